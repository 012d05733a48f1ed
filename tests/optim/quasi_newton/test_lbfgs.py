"""L-BFGS and its line search, against PyTorch's, and against what the conditions of Wolfe say."""

import math

import pytest
import torch

import functrain as ft
from functrain import data, losses, nn, optim, random, tree
from functrain.errors import InvalidArgument

DOUBLE = torch.float64
INPUTS = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
TARGETS = torch.randn(20, 2, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)


def begin(dtype=DOUBLE):
    generator = torch.Generator().manual_seed(2)
    shapes = {"a": (4, 3), "b": (4,), "c": (2, 4)}
    return {name: torch.randn(shape, generator=generator, dtype=DOUBLE).to(dtype) for name, shape in shapes.items()}


def network(params):
    dtype = params["a"].dtype
    hidden = (INPUTS.to(dtype) @ params["a"].T + params["b"]).tanh()
    penalty = sum((p.abs() ** 2).sum() for p in params.values())
    return (hidden @ params["c"].T - TARGETS.to(dtype)).abs().square().mean() + 1e-3 * penalty


def rosenbrock(params):
    x, y = params["x"], params["y"]
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


def away():
    return {"x": torch.tensor(-1.2, dtype=DOUBLE), "y": torch.tensor(1.0, dtype=DOUBLE)}


PROBLEMS = {"network": (network, begin), "rosenbrock": (rosenbrock, away)}


def stepper(transform, f):
    evaluate = ft.value_and_grad(f)

    def step(params, state):
        loss, grads = evaluate(params)
        context = optim.Context(loss=loss, evaluate=evaluate)
        return optim.step(transform, grads, state, params, context), loss

    return step


def ours(transform, f, params, steps, jit=False):
    step = ft.jit(stepper(transform, f)) if jit else stepper(transform, f)
    state, seen = transform.init(params), []
    for _ in range(steps):
        (params, state), loss = step(params, state)
        seen.append(float(loss))
    return params, seen


def theirs(f, params, steps, **options):
    params = tree.map(lambda p: p.clone().requires_grad_(), params)
    optimizer, seen = torch.optim.LBFGS(tree.leaves(params), max_iter=1, max_eval=26, **options), []

    def closure():
        optimizer.zero_grad()
        loss = f(params)
        loss.backward()
        return loss

    for _ in range(steps):
        seen.append(float(optimizer.step(closure).detach()))
    return tree.map(torch.detach, params), seen


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("history", [3, 10])
@pytest.mark.parametrize("problem, steps", [("network", 60), ("rosenbrock", 30)])
def test_with_its_line_search_it_is_pytorchs(problem, steps, history, jit):
    f, start = PROBLEMS[problem]
    got, losses_ = ours(optim.lbfgs(history_size=history), f, start(), steps, jit)
    expected, their_losses = theirs(f, start(), steps, history_size=history, line_search_fn="strong_wolfe")
    assert losses_ == pytest.approx(their_losses, rel=1e-4, abs=1e-9)
    assert not tree.differences(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lr", [0.3, 3.0])
def test_the_first_length_that_is_tried_is_the_rate(lr):
    got, _ = ours(optim.lbfgs(lr), network, begin(), 10)
    expected, _ = theirs(network, begin(), 10, lr=lr, history_size=10, line_search_fn="strong_wolfe")
    assert not tree.differences(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("lr", [0.1, 0.5])
def test_without_a_line_search_it_is_pytorchs(lr):
    got, _ = ours(optim.lbfgs(lr, line_search=None), network, begin(), 100)
    expected, _ = theirs(network, begin(), 100, lr=lr, history_size=10)
    assert not tree.differences(got, expected, rtol=1e-6, atol=1e-6)


def test_complex_parameters_go_where_pytorchs_go():
    def f(params):
        return ((params["w"] - 1j).abs().square() * torch.tensor([1.0, 5.0, 20.0], dtype=DOUBLE)).sum()

    start = {"w": torch.tensor([3j, 1 - 2j, 0.5 + 0j], dtype=torch.complex128)}
    got, _ = ours(optim.lbfgs(), f, start, 8)
    expected, _ = theirs(f, start, 8, history_size=10, line_search_fn="strong_wolfe")
    assert not tree.differences(got, expected, rtol=1e-7, atol=1e-7)


def test_a_fit_by_lbfgs_ends_where_the_normal_equations_do():
    inputs = torch.cat([INPUTS, torch.ones(20, 1, dtype=DOUBLE)], 1)
    exact = torch.linalg.lstsq(inputs, TARGETS).solution
    rows = data.ArrayDataset((INPUTS, TARGETS))
    learner = ft.Learner(nn.dense(2), losses.mse, optim.lbfgs())
    state = ft.init(learner, random.key(0), rows[:1])
    run = ft.fit(learner, state, train=data.loader(rows, data.sequential(20)), epochs=30)
    torch.testing.assert_close(run.state.params["weight"], exact[:3].T, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(run.state.params["bias"], exact[3], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("c2", [0.9, 0.1])
@pytest.mark.parametrize("seed", range(8))
def test_what_the_search_returns_meets_the_conditions_of_wolfe(seed, c2):
    generator = torch.Generator().manual_seed(seed)
    start = tree.map(lambda p: torch.randn(p.shape, generator=generator, dtype=DOUBLE) * 3, begin())
    evaluate = ft.value_and_grad(network)
    loss, grads = evaluate(start)
    search = optim.strong_wolfe(optim.scale(10.0 ** (seed % 4 - 2)), c2=c2)
    after, _ = optim.step(search, grads, search.init(start), start, optim.Context(loss=loss, evaluate=evaluate))
    way = tree.map(lambda a, b: a - b, after, start)

    def slope(gradients):
        return sum((g * d).sum() for g, d in zip(tree.leaves(gradients), tree.leaves(way), strict=True))

    new, there = evaluate(after)
    assert new <= loss + 1e-4 * slope(grads)
    assert slope(there).abs() <= c2 * slope(grads).abs()


def test_where_the_loss_is_not_finite_it_is_too_far():
    def f(params):
        return -torch.log(1 - params["w"].abs()).sum() + 5 * (params["w"] - 0.9).square().sum()

    params = {"w": torch.tensor([0.0], dtype=DOUBLE)}
    got, _ = ours(optim.lbfgs(lr=100.0), f, params, 20)
    w = got["w"]
    # A slope of 1e-9 ends it; the slope of a step of Newton is the gradient squared by the curvature, here 17.
    assert w.isfinite() and abs(float(1 / (1 - w) + 10 * (w - 0.9))) < 1.4e-4


def test_at_a_minimum_and_uphill_nothing_moves():
    params = {"w": torch.zeros(2)}
    context = optim.Context(loss=0.0, evaluate=ft.value_and_grad(lambda p: (p["w"] ** 2).sum()))
    for direction, gradient in ((optim.identity, torch.zeros(2)), (optim.negate, torch.ones(2))):
        search = optim.strong_wolfe(direction)
        updates, _ = search.update({"w": gradient}, (), params, context)
        assert tree.equal(tree.map(torch.abs, updates), {"w": torch.zeros(2)})


def test_nan_is_passed_on():
    params, search = {"w": torch.zeros(2)}, optim.lbfgs()
    context = optim.Context(loss=0.0, evaluate=ft.value_and_grad(lambda p: (p["w"] ** 2).sum()))
    updates, _ = search.update({"w": torch.tensor([1.0, math.nan])}, search.init(params), params, context)
    assert updates["w"].isnan().all()


def test_vmap_is_a_loop():
    starts = {"x": torch.tensor([-1.2, 0.5, 2.0], dtype=DOUBLE), "y": torch.tensor([1.0, 0.0, -1.0], dtype=DOUBLE)}
    transform = optim.lbfgs()

    def run(params):
        state = transform.init(params)
        for _ in range(5):
            (params, state), _ = stepper(transform, rosenbrock)(params, state)
        return params

    looped = tree.stack([run({name: leaf[i] for name, leaf in starts.items()}) for i in range(3)])
    for mapped in (ft.vmap(run)(starts), ft.jit(ft.vmap(run))(starts)):
        assert not tree.differences(mapped, looped, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_it_keeps_dtypes_and_learns_in_each(dtype):
    params, seen = ours(optim.lbfgs(), network, begin(dtype), 30)
    assert all(leaf.dtype == dtype for leaf in tree.leaves(params))
    assert seen[-1] < 0.5 * seen[0]


def test_empty_trees_and_empty_leaves_are_no_trouble():
    for params in ({}, {"w": torch.zeros(0)}):
        transform = optim.lbfgs()
        context = optim.Context(loss=0.0, evaluate=lambda p: (torch.zeros(()), p))
        assert tree.equal(transform.update(params, transform.init(params), params, context)[0], params)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: optim.lbfgs(history_size=0), "history_size must be a whole number of at least 1"),
        (lambda: optim.lbfgs(line_search="armijo"), "line_search must be one of 'strong_wolfe', None"),
        (lambda: optim.lbfgs(max_steps=0), "max_steps must be a whole number of at least 1"),
        (lambda: optim.lbfgs(-1.0), "lr must be a number of at least 0"),
        (lambda: optim.lbfgs(c1=0.9, c2=0.1), "c1 and c2 must be numbers with 0 < c1 < c2 < 1, got 0.9 and 0.1"),
        (lambda: optim.strong_wolfe(0.1), "transform must be a Transform, got"),
        (lambda: optim.strong_wolfe(optim.identity, tolerance=-1.0), "tolerance must be a number of at least 0"),
    ],
)
def test_options_out_of_range_are_named(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()


def test_it_needs_the_batch():
    transform, params = optim.lbfgs(), {"w": torch.ones(1)}
    with pytest.raises(InvalidArgument, match=r"pass optim\.Context\(evaluate="):
        optim.step(transform, params, transform.init(params), params)


def test_a_search_whose_direction_makes_no_update_is_none():
    search = optim.strong_wolfe(optim.skip_nonfinite(optim.scale_by_lbfgs()))
    params, evaluate = {"w": torch.tensor([3.0])}, ft.value_and_grad(lambda p: (p["w"] ** 4).sum())
    state, counts = search.init(params), []
    for factor in (1.0, math.nan, 1.0):
        loss, grads = evaluate(params)
        context = optim.Context(loss=loss, evaluate=evaluate)
        after, state = optim.step(search, {"w": grads["w"] * factor}, state, params, context)
        counts.append((optim.updates_made(search, state).item(), bool(after["w"] != params["w"])))
        params = after
    assert counts == [(1, True), (1, False), (2, True)]
