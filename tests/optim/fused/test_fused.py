"""The fast paths of chains: PyTorch's fused kernels give what the pieces give, or are left alone."""

import attrs
import pytest
import torch

import functrain as ft
from functrain import optim, schedule, tree
from functrain.engine.backends.aten.source import compile
from functrain.engine.graph.passes.functionalizing import functionalize
from functrain.engine.graph.passes.simplifying import simplify
from functrain.engine.graph.queries import is_item
from functrain.engine.tracing.to_graph import trace
from functrain.operators import OVERWRITING
from functrain.optim.fused import fast_path, paths

FALL = schedule.linear(0.1, 0.01)
FAST = {
    "adam": optim.adam(0.1),
    "adam, scheduled": optim.adam(FALL),
    "adam, l2": optim.adam(0.1, b1=0.8, b2=0.9, eps=1e-3, weight_decay=0.3),
    "adamw": optim.adamw(0.1, weight_decay=0.3),
    "adamw, scheduled": optim.adamw(FALL, weight_decay=0.3),
    "adamw, climbing": optim.adamw(0.1, maximize=True),
    "adamw, clipped": optim.chain(optim.clip_by_global_norm(0.5), optim.adamw(0.1)),
    "momentum": optim.sgd(0.1, momentum=0.9),
    "nesterov": optim.sgd(FALL, momentum=0.9, nesterov=True),
    "momentum, l2": optim.sgd(0.1, momentum=0.9, weight_decay=0.3),
    "nesterov, l2, climbing": optim.sgd(0.1, momentum=0.9, nesterov=True, weight_decay=0.3, maximize=True),
}
every = pytest.mark.parametrize("name", FAST)


def without(transform):
    return attrs.evolve(transform, fused=None)


def drawn(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"matrix": (5, 3), "large": (130, 130), "scalar": (), "none": (0, 2), "in": {"vector": (7,)}}

    def draw(shape):
        if isinstance(shape, dict):
            return {key: draw(inside) for key, inside in shape.items()}
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return draw(shapes)


def stepped(transform, params, steps=4, gradients=None, jit=False):
    dtype = tree.leaves(params)[0].dtype

    def step(carry, gradients, position):
        return optim.step(transform, gradients, carry[1], carry[0], optim.Context(position=position))

    run = ft.jit(step) if jit else step
    carry = params, transform.init(params)
    for k in range(steps):
        position = torch.tensor(k / steps, dtype=torch.float64)
        carry = run(carry, drawn(k + 1, dtype) if gradients is None else gradients, position)
    return carry


@pytest.fixture
def calls(monkeypatch):
    """How often a kernel was used."""
    counted = []
    for name in ("_run_at_once", "_record"):
        run = getattr(paths, name)
        monkeypatch.setattr(paths, name, lambda *args, run=run: (counted.append(args[0]), run(*args))[1])
    return counted


def close(a, b, tolerance=1e-6):
    assert not tree.differences(a, b, rtol=10 * tolerance, atol=tolerance)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernel_gives_what_the_pieces_give(name, dtype, calls):
    params = drawn(0, dtype)
    before = tree.clone(params)
    expected = stepped(without(FAST[name]), params)
    assert calls == []
    tolerance = 1e-6 if dtype is torch.float32 else 1e-13
    close(stepped(FAST[name], params), expected, tolerance)
    assert len(calls) == 4
    close(stepped(FAST[name], params, jit=True), expected, tolerance)
    assert len(calls) > 4
    assert tree.equal(params, before)


@pytest.mark.parametrize(
    "transform",
    [
        optim.adamw(0.1, b1=FALL),
        optim.adam(0.1, amsgrad=True),
        optim.sgd(0.1, momentum=0.9, dampening=0.1),
        optim.sgd(0.1, momentum=FALL),
        optim.chain(optim.adamw(0.1), optim.scale(0.5)),
        optim.chain(optim.accumulate(2, optim.identity), optim.scale_by_adam(), optim.scale_by_learning_rate(0.1)),
        optim.chain(
            attrs.evolve(optim.scale_by_adam(), update=lambda updates, state, params, context: (updates, state)),
            optim.scale_by_learning_rate(0.1),
        ),
    ],
    ids=repr,
)
def test_other_formulas_have_no_kernel(transform, calls):
    close(stepped(transform, drawn(0)), stepped(without(transform), drawn(0)))
    assert calls == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64])
def test_other_dtypes_have_no_kernel(dtype, calls):
    params = drawn(0, dtype)
    got, expected = stepped(FAST["adamw"], params), stepped(without(FAST["adamw"]), params)
    close(got, expected, 1e-2 if dtype is torch.bfloat16 else 1e-6)
    assert calls == []


def test_gradients_may_lie_in_any_order():
    params, gradients = {"w": torch.ones(2, 3)}, {"w": torch.randn(3, 2).t()}
    for name in ("adamw", "momentum"):
        close(
            stepped(FAST[name], params, gradients=gradients), stepped(without(FAST[name]), params, gradients=gradients)
        )


def test_parameters_that_are_not_contiguous_have_no_kernel(calls):
    params = {"w": torch.randn(3, 2).t()}
    close(*(stepped(one, params, gradients={"w": torch.ones(2, 3)}) for one in (FAST["adam"], without(FAST["adam"]))))
    assert calls == []


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("size", [1e25, float("inf"), float("nan")])
def test_a_square_that_overflows_is_seen(size, jit):
    params, gradients = {"w": torch.ones(40)}, {"w": torch.ones(40)}
    gradients["w"][3] = size
    (after, _) = stepped(FAST["adamw"], params, 2, gradients, jit)
    assert after["w"].isnan().nonzero().tolist() == [[3]]


@every
def test_one_tensor_may_be_all_that_is_passed(name):
    params = drawn(0)
    close(stepped(FAST[name], params, 1, params, jit=True), stepped(without(FAST[name]), params, 1, params))


# --- in a graph ---


@every
def test_donated_memory_is_overwritten_and_nothing_else(name):
    transform, params = FAST[name], drawn(0)
    fast = ft.jit(lambda carry, g: optim.step(transform, g, carry[1], carry[0]), donate=0)
    gradients = drawn(1)
    carry = tree.clone(optim.step(transform, gradients, transform.init(params), params))
    expected = optim.step(without(transform), gradients, carry[1], carry[0])
    kept = tree.clone(gradients)
    places = sorted(leaf.data_ptr() for leaf in tree.leaves(carry) if leaf.numel())
    after = fast(carry, gradients)
    assert sorted(leaf.data_ptr() for leaf in tree.leaves(after) if leaf.numel()) == places
    close(after, expected)
    assert tree.equal(gradients, kept)


def test_a_training_step_updates_a_large_parameter_as_soon_as_its_gradient_is_there(monkeypatch):
    monkeypatch.setattr(paths, "SMALL", 1 << 14)
    width = 160
    params = {str(k): torch.randn(width, width) / width**0.5 for k in range(4)}
    transform = FAST["adamw"]

    def loss(params, x):
        for weight in params.values():
            x = torch.tanh(x @ weight)
        return x.square().sum()

    def step(carry, x):
        return optim.step(transform, ft.grad(loss)(carry[0], x), carry[1], carry[0])

    fast, x = ft.jit(step, donate=0), torch.randn(8, width)
    expected = optim.step(without(transform), ft.grad(loss)(params, x), transform.init(params), params)
    close(fast((tree.clone(params), transform.init(params)), x), expected, 1e-5)

    leaves, structure = tree.flatten(((params, transform.init(params)), x))
    traced = trace(lambda *flat: tree.leaves(step(*tree.unflatten(structure, flat))), leaves)
    run = compile(simplify(functionalize(traced.gm)), traced.inputs, tuple((k, k) for k in range(len(leaves) - 1)))
    updates = [k for k, line in enumerate(run.source.splitlines()) if line.count("[x") >= 3]
    products = [k for k, line in enumerate(run.source.splitlines()) if " = c" in line and "tanh" not in line]
    assert len(updates) == 4 and sum(k < products[-1] for k in updates) >= 3


@pytest.mark.parametrize("gradient, leaves", [(lambda p: 2 * p, [1, 4]), (lambda p: p, [5])], ids=["made", "passed"])
def test_it_is_one_operation_for_all_leaves_but_large_ones_that_follow_their_gradient(gradient, leaves, monkeypatch):
    monkeypatch.setattr(paths, "SMALL", 1 << 14)
    transform, params = FAST["adamw"], drawn(0)

    def step(carry, g):
        return optim.step(transform, tree.map(gradient, g), carry[1], carry[0])

    fast = ft.jit(step)
    close(fast((params, transform.init(params)), params), step((params, transform.init(params)), params))
    nodes = [node for node in fast.traces[0].graph.graph.nodes if node.target in OVERWRITING]
    assert sorted(len(node.args[0]) for node in nodes) == leaves
    assert all(is_item(user) for node in nodes for user in node.users)


def looped(transform, params, rate=None):
    def step(carry, g):
        return optim.step(transform, ft.tree.map(lambda p: p * g, carry[0]), carry[1], carry[0]), None

    (params, _), _ = ft.scan(step, (params, transform.init(params)), torch.tensor([0.5, -1.0, 2.0]))
    return params


@pytest.mark.parametrize("name", ["adam, l2", "nesterov, l2, climbing"])
def test_loops_of_it_are_differentiated_and_mapped_over(name):
    fast, slow = FAST[name], without(FAST[name])
    params = {"w": torch.tensor([1.0, -2.0]), "b": torch.tensor(0.5)}
    many = tree.map(lambda p: torch.stack([p, 2 * p]), params)

    def total(transform):
        return lambda params: sum(leaf.square().sum() for leaf in looped(transform, params).values())

    for transformed in (
        lambda t: looped(t, params),
        lambda t: ft.grad(total(t))(params),
        lambda t: ft.vmap(lambda p: looped(t, p))(many),
        lambda t: ft.vmap(ft.grad(total(t)))(many),
    ):
        close(ft.jit(lambda f=transformed: f(fast))(), transformed(slow), 1e-5)


def test_a_tensor_that_wants_gradients_gets_them():
    params = {"w": torch.tensor([1.0, -2.0], requires_grad=True)}
    gradients = {"w": 3 * params["w"]}
    after, _ = optim.step(FAST["momentum"], gradients, FAST["momentum"].init(params), params)
    after["w"].sum().backward()
    assert torch.allclose(params["w"].grad, torch.full((2,), 0.7))


def test_the_rate_can_be_learned():
    def after(lr):
        params = {"w": torch.tensor([1.0, -2.0])}
        transform = optim.adamw(lr)
        return optim.step(transform, params, transform.init(params), params)[0]["w"].sum()

    lr = torch.tensor(0.1)
    slope = (after(lr + 1e-2) - after(lr - 1e-2)) / 2e-2
    assert torch.allclose(ft.grad(after)(lr), slope, rtol=1e-2)
    assert torch.allclose(ft.jit(ft.grad(after))(lr), slope, rtol=1e-2)


def test_inductor_gets_the_parts():
    transform, params = FAST["adamw"], {"w": torch.ones(3), "b": torch.ones(())}
    fast = ft.jit(lambda carry, g: optim.step(transform, g, carry[1], carry[0]), backend="inductor")
    carry, gradients = (params, transform.init(params)), {"w": torch.tensor([1.0, -2.0, 3.0]), "b": torch.tensor(0.5)}
    close(fast(carry, gradients), optim.step(without(transform), gradients, carry[1], carry[0]))


def test_what_does_not_fit_is_refused_as_by_the_pieces():
    transform, params = FAST["adamw"], {"w": torch.ones(2)}
    state = transform.init(params)
    with pytest.raises(ft.errors.TreeMismatch, match=r"the gradients must have the structure of the parameters"):
        optim.step(transform, {"v": torch.ones(2)}, state, params)
    with pytest.raises(ft.errors.TreeMismatch, match=r"expected float32\(2,\), got float32\(1,\)"):
        optim.step(transform, {"w": torch.ones(1)}, state, params)


def test_a_path_begins_where_its_pieces_do():
    pieces = [optim.clip_by_global_norm(1.0), optim.scale_by_adam(), optim.scale_by_learning_rate(0.1)]
    assert fast_path(pieces)[0] == 1 and fast_path(pieces[:2]) == (0, None)
