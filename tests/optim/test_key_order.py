"""The order of the keys of a dict is free: of gradients, of what is evaluated, and of parameters that were loaded."""

import pytest
import torch
from every_optimizer import OPTIMIZERS
from every_transform import TRANSFORMS, draw, tensors

import functrain as ft
from functrain import optim, random, tree

DOUBLE, KEY = torch.float64, random.key(0)

WRAPPED = {
    "flattened sam": lambda: optim.flatten(optim.sam(optim.sgd(0.01, momentum=0.9))),
    "flattened lbfgs": lambda: optim.flatten(optim.lbfgs()),
    "lbfgs without a search": lambda: optim.lbfgs(0.1, line_search=None),
    "lbfgs of a group": lambda: optim.partition(
        {"x": optim.lbfgs(), "y": optim.sgd(0.01)}, {"x": ["a", "b.*"], "y": ...}
    ),
    "accumulated": lambda: optim.accumulate(2, optim.flatten(optim.adam(0.1))),
    "mechanized": lambda: optim.mechanize(optim.sgd(1.0, momentum=0.9)),
    "sophia every time": lambda: optim.sophia(0.1, every=1),
}
MAKE = {name: lambda make=make: make(0.01) for name, (make, _) in OPTIMIZERS.items()} | WRAPPED


def turned(values):
    """The same tree, the keys of all its dicts the other way around."""
    if isinstance(values, dict):
        return {key: turned(values[key]) for key in reversed(values)}
    return values


def loss(params):
    curvature = torch.tensor([[1.0, 2.0, 0.5], [0.3, 3.0, -1.0], [0.7, 0.1, 2.0]], dtype=DOUBLE)
    inner = params["b"]["u"] @ curvature @ params["b"]["v"]
    return 3 * (params["a"] - 1).square().sum() + (inner - 2).square() + params["b"]["u"].square().sum() + params["c"]


def start():
    return {
        "b": {"v": torch.tensor([0.3, -0.2, 0.9], dtype=DOUBLE), "u": torch.tensor([0.1, 0.4, -0.5], dtype=DOUBLE)},
        "a": torch.tensor([0.2, 0.7], dtype=DOUBLE),
        "c": torch.ones((), dtype=DOUBLE),
    }


def run(optimizer, of_gradients, params, state, steps):
    evaluate = ft.value_and_grad(loss)

    def seen(params):
        value, grads = evaluate(params)
        return value, of_gradients(grads)

    for step in steps:
        value, grads = seen(params)
        key = random.fold_in(KEY, step)
        context = optim.Context(loss=value, evaluate=seen, key=key, loss_scale=torch.ones(()))
        params, state = optim.step(optimizer, grads, state, params, context)
    return params, state


@pytest.mark.parametrize("name", MAKE)
def test_the_order_of_the_gradients_keys_makes_no_difference(name):
    optimizer, params = MAKE[name](), start()
    plain, _ = run(optimizer, lambda grads: grads, params, optimizer.init(params), range(5))
    other, _ = run(optimizer, turned, params, optimizer.init(params), range(5))
    assert not tree.differences(other, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", MAKE)
def test_the_order_of_the_parameters_keys_may_change_between_updates(name):
    optimizer, params = MAKE[name](), start()
    half, state = run(optimizer, lambda grads: grads, params, optimizer.init(params), range(3))
    plain, _ = run(optimizer, lambda grads: grads, half, state, range(3, 6))
    other, _ = run(optimizer, lambda grads: grads, turned(half), state, range(3, 6))
    assert not tree.differences(other, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_no_piece_minds_the_order(name):
    transform, params = TRANSFORMS[name], draw(0)
    state = transform.init(params)
    plain = transform.update(draw(1), state, params, tensors(1, 4))[0]
    other = transform.update(turned(draw(1)), state, turned(params), tensors(1, 4))[0]
    assert not tree.differences(other, plain, rtol=1e-6, atol=1e-7)


def test_a_product_with_the_hessian_takes_gradients_of_another_order():
    params = start()
    context = optim.Context(evaluate=lambda p: (loss(p), turned(ft.grad(loss)(p))), key=KEY)
    piece = optim.scale_by_sophia(b2=0.0, every=1)
    _, state = piece.update(ft.grad(loss)(params), piece.init(params), params, context)
    assert torch.equal(state["hessian"]["a"], torch.full((2,), 6.0, dtype=DOUBLE))
