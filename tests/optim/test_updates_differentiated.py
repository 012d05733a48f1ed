"""Derivatives through whole updates: finite, and equal to difference quotients in float64, for all transforms."""

import pytest
import torch
from every_transform import KEY, TRANSFORMS, draw

import functrain as ft
from functrain import nn, optim, random, schedule, tree

DOUBLE = torch.float64
STEPS = 5


def trained(transform, params, gradients):
    """The parameters after some updates, of which gradients and parameters are what is differentiated."""
    state = transform.init(params)
    for step in range(STEPS):
        context = optim.Context(step / STEPS, step, step=step, key=KEY, loss=1.0, weight=2.0)
        params, state = optim.step(transform, gradients[step], state, params, context)
    return params


def length(params):
    weights = {"0": {"weight": 0.7, "bias": -1.3}, "temperature": 0.4}
    return sum((leaf.square() * w).sum() for leaf, w in zip(tree.leaves(params), tree.leaves(weights), strict=True))


def quotients(f, at, step=1e-6):
    """The central difference quotient of f by each element of a list of tensors."""
    found = []
    for index, leaf in enumerate(at):
        slopes = torch.zeros_like(leaf)
        for i in range(leaf.numel()):
            ends = []
            for sign in (step, -step):
                other = leaf.clone().flatten()
                other[i] += sign
                ends.append(f([*at[:index], other.view(leaf.shape), *at[index + 1 :]]))
            slopes.view(-1)[i] = (ends[0] - ends[1]) / (2 * step)
        found.append(slopes)
    return found


def close(got, expected, rtol=1e-6, atol=1e-7):
    for a, b in zip(got, expected, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_by_gradients_and_parameters(name):
    transform, params = TRANSFORMS[name], draw(0, DOUBLE)
    gradients = [draw(10 + step, DOUBLE) for step in range(STEPS)]
    leaves, structure = tree.flatten((params, gradients))

    def f(leaves):
        return length(trained(transform, *tree.unflatten(structure, leaves)))

    close(ft.grad(f)(leaves), quotients(f, leaves))


BY_OPTIONS = {
    "sgd": (optim.sgd, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "dampening": 0.3}),
    "nesterov": (lambda **o: optim.sgd(**o, nesterov=True), {"lr": 0.1, "momentum": 0.9}),
    "adam": (optim.adam, {"lr": 0.1, "b1": 0.8, "b2": 0.9, "eps": 1e-3, "weight_decay": 0.1}),
    "adamw": (optim.adamw, {"lr": 0.1, "b1": 0.8, "b2": 0.9, "eps": 1e-3, "weight_decay": 0.1}),
    "clip": (
        lambda lr, max_norm: optim.chain(optim.clip_by_global_norm(max_norm), optim.sgd(lr)),
        {"lr": 0.1, "max_norm": 0.5},
    ),
    "accumulate": (lambda **o: optim.accumulate(2, optim.adamw(**o)), {"lr": 0.1, "weight_decay": 0.1, "eps": 1e-3}),
    "skip": (lambda **o: optim.skip_nonfinite(optim.adam(**o)), {"lr": 0.1, "eps": 1e-3}),
    "chain": (
        lambda lr, momentum: optim.chain(optim.accumulate(2, optim.trace(momentum)), optim.adam(lr)),
        {"lr": 0.1, "momentum": 0.5},
    ),
    "groups": (
        lambda lr, eps: optim.partition(
            {"matrices": optim.adam(lr, eps=eps), "temperature": optim.sgd(lr)},
            {"matrices": "*.*", "temperature": "temperature"},
        ),
        {"lr": 0.1, "eps": 1e-3},
    ),
    "schedule": (lambda start, end: optim.adam(schedule.cosine(start, end)), {"start": 0.1, "end": 0.01}),
}


@pytest.mark.parametrize("zeros", ["none", "an element", "a leaf", "a step", "all"])
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", BY_OPTIONS)
def test_by_hyperparameters_also_where_gradients_are_exactly_zero(name, jit, zeros):
    make, values = BY_OPTIONS[name]
    params, gradients = draw(0, DOUBLE), [draw(10 + step, DOUBLE) for step in range(STEPS)]
    for step, one in enumerate(gradients):
        if zeros == "an element":
            one["0"]["weight"][1, 0] = 0.0
        if zeros == "a leaf":
            one["0"]["bias"].zero_()
        if zeros == "all" or (zeros == "a step" and step in (0, 1)):
            gradients[step] = tree.zeros_like(one)
    at = [torch.tensor(value, dtype=DOUBLE) for value in values.values()]

    def f(at):
        return length(trained(make(**dict(zip(values, at, strict=True))), params, gradients))

    gradient = ft.jit(ft.grad(f)) if jit else ft.grad(f)
    close(gradient(at), quotients(f, at))


@pytest.mark.parametrize("name", ["adam", "adamw", "clip"])
def test_by_gradients_that_are_exactly_zero(name):
    # Where they are zero Adam's update is m / eps; the steps of the quotient must be small beside eps.
    make, values = BY_OPTIONS[name]
    params, zero = draw(0, DOUBLE), tree.zeros_like(draw(0, DOUBLE))
    leaves, structure = tree.flatten([zero] * STEPS)

    def f(leaves):
        return length(trained(make(**values), params, tree.unflatten(structure, leaves)))

    if name == "clip":
        leaves = [leaf + 0.01 * (i > 0) for i, leaf in enumerate(leaves)]
    close(ft.grad(f)(leaves), quotients(f, leaves, step=1e-8), rtol=1e-4, atol=1e-5)


def test_a_learning_rate_through_a_model_that_does_not_use_a_parameter():
    """Fault J: a unit that is off has gradients of exactly zero."""
    model = nn.serial(nn.dense(3), nn.relu, nn.dense(1))
    x = torch.linspace(-1, 1, 8, dtype=DOUBLE)[:, None]
    params, _ = model.init(random.key(0), x)
    params["0"]["bias"] = params["0"]["bias"] - torch.tensor([0.0, 0.0, 99.0], dtype=DOUBLE)

    def loss(params):
        return (model.apply(params, {}, x)[0] - x.sin()).square().mean()

    def after(lr):
        transform, p = optim.adam(lr), params
        state = transform.init(p)
        for _ in range(3):
            p, state = optim.step(transform, ft.grad(loss)(p), state, p, optim.Context())
        return loss(p)

    lr = torch.tensor(0.01, dtype=DOUBLE)
    slope = (after(lr + 1e-6) - after(lr - 1e-6)) / 2e-6
    for gradient in (ft.grad(after), ft.jit(ft.grad(after)), torch.func.grad(after)):
        assert gradient(lr).item() == pytest.approx(slope.item(), rel=1e-5)
