"""SAM and Sophia: against their formulas, compiled, in fits, and what they need."""

import pytest
import torch

import functrain as ft
from functrain import data, losses, nn, optim, random, tree
from functrain.errors import InvalidArgument
from functrain.optim.evaluating.diagonal import hutchinson

DOUBLE = torch.float64
PARAMS = {"a": torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=DOUBLE), "b": torch.tensor(0.7, dtype=DOUBLE)}


def loss(params):
    a, b = params["a"], params["b"]
    return (a**4).sum() / 4 + (a.sum() * b) ** 2 / 2 + b.exp()


EVALUATE = ft.value_and_grad(loss)


def context(params, seed=0):
    return optim.Context(loss=loss(params), evaluate=EVALUATE, key=random.key(seed))


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("jit", [False, True])
def test_the_gradient_comes_from_uphill(adaptive, jit):
    piece = optim.gradients_uphill(0.3, adaptive)
    grads = EVALUATE(PARAMS)[1]
    scale = tree.map(torch.abs if adaptive else torch.ones_like, PARAMS)
    norm = torch.stack([(s * g).norm() for s, g in zip(tree.leaves(scale), tree.leaves(grads), strict=True)]).norm()
    there = tree.map(lambda p, g, s: p + 0.3 * s * s * g / norm, PARAMS, grads, scale)
    expected = EVALUATE(there)[1]

    def f(params):
        return piece.update(EVALUATE(params)[1], (), params, context(params))[0]

    assert not tree.differences((ft.jit(f) if jit else f)(PARAMS), expected, rtol=1e-10)


def test_where_the_gradient_is_zero_it_stays_zero():
    evaluate = ft.value_and_grad(lambda p: (p["w"] ** 2).sum())
    params = {"w": torch.zeros(2)}
    where = optim.Context(loss=0.0, evaluate=evaluate)
    assert tree.equal(optim.gradients_uphill(0.5).update(params, (), params, where)[0], params)


def test_the_estimate_of_the_diagonal_is_right_on_average():
    flat = PARAMS["a"].flatten()
    hessian = torch.autograd.functional.hessian(lambda a: loss({"a": a.reshape(2, 2), "b": PARAMS["b"]}), flat)
    keys = random.split(random.key(1), 4000)
    estimates = ft.vmap(lambda key: hutchinson(PARAMS, optim.Context(evaluate=EVALUATE, key=key))["a"])(keys)
    error = (estimates.mean(0).flatten() - hessian.diagonal()).abs()
    assert (error <= 5 * estimates.flatten(1).std(0) / 4000**0.5 + 1e-12).all()


@pytest.mark.parametrize("every", [1, 3])
def test_sophia_compiled_is_sophia(every):
    transform = optim.sophia(0.05, every=every, gamma=0.5)

    def step(params, state, key):
        loss, grads = EVALUATE(params)
        return optim.step(transform, grads, state, params, optim.Context(loss=loss, evaluate=EVALUATE, key=key))

    fast, one, other = ft.jit(step), (PARAMS, transform.init(PARAMS)), (PARAMS, transform.init(PARAMS))
    for seed in range(7):
        before = one[1][0]["hessian"]
        one, other = step(*one, random.key(seed)), fast(*other, random.key(seed))
        assert not tree.differences(one, other, rtol=1e-10, atol=1e-12)
        assert tree.equal(before, one[1][0]["hessian"]) == (seed % every != 0)
    assert len(fast.traces) == 1


ROWS = data.ArrayDataset((torch.randn(24, 6, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3))
OPTIMIZERS = {
    "sam": optim.sam(optim.sgd(0.1, momentum=0.9)),
    "asam": optim.sam(optim.adamw(0.01), rho=0.5, adaptive=True),
    "sophia": optim.sophia(0.01, every=2),
    "group": optim.partition({"w": optim.sam(optim.sgd(0.1)), "r": optim.sophia(0.01)}, {"w": "0.*", "r": ...}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_compiled_fit_is_an_eager_one(name):
    model = nn.serial(nn.dense(5), nn.batch_norm(), nn.tanh, nn.dropout(0.2), nn.dense(3))
    learner = ft.Learner(model, losses.cross_entropy, OPTIMIZERS[name])
    loader = data.loader(ROWS, data.shuffled(7))
    runs = [
        ft.fit(learner, ft.init(learner, random.key(0), ROWS[:1]), train=loader, epochs=2, jit=jit, chunk=3)
        for jit in (False, "aten")
    ]
    assert not tree.differences(runs[0].state, runs[1].state, rtol=1e-4, atol=1e-5)


def test_what_they_need_is_said():
    params = {"w": torch.ones(2)}
    for transform in (optim.sam(optim.sgd(0.1)), optim.sophia(0.1)):
        with pytest.raises(InvalidArgument, match=r"needs a function params -> .loss, gradients. of this batch"):
            transform.update(params, transform.init(params), params)
        with pytest.raises(InvalidArgument, match=r"accumulate: .* evaluates other parameters"):
            optim.accumulate(2, transform)
    with pytest.raises(InvalidArgument, match="needs the random key of this step"):
        where = optim.Context(evaluate=EVALUATE)
        optim.sophia(0.1).update(PARAMS, optim.sophia(0.1).init(PARAMS), PARAMS, where)


def test_arguments_out_of_range_are_named():
    for make, message in (
        (lambda: optim.sam(optim.sgd(0.1), rho=-1.0), "rho must be a number of at least 0"),
        (lambda: optim.sam(0.1), "transform must be a Transform"),
        (lambda: optim.sophia(0.1, every=0), "every must be a whole number of updates, at least 1"),
        (lambda: optim.sophia(0.1, gamma=-1.0), "gamma must be a number of at least 0"),
        (lambda: optim.sophia(0.1, most=-1.0), "most must be a number of at least 0"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            make()
