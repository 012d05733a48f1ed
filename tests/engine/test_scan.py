"""The scan: equal to the fold, plain, traced and transformed; one trace of the body, whatever the length."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain import engine, tree
from functrain.engine import Stop, fold
from functrain.engine.graph.functionalizing import functionalize
from functrain.engine.graph.scan_node import compile_loops, loops
from functrain.engine.tracing.recording import recording
from functrain.engine.tracing.to_graph import trace as engine_trace
from functrain.engine.transforms.gradients import pull_back
from functrain.engine.transforms.scanning import discovering
from functrain.engine.transforms.scanning.scans import scan
from functrain.errors import InvalidArgument, NotATensor, ShapeMismatch, SideEffect, TreeMismatch

OUTSIDE = torch.tensor([0.5, -0.5])


def step(carry, x):
    """Uses a tree, closes over a tensor, returns the old carry, and ends on a condition."""
    h = torch.tanh(carry["h"] * OUTSIDE + x["a"] + x["b"].sum())
    after = {"h": h, "n": carry["n"] + 1}
    return after, {"n": carry["n"], "sum": h.sum()}


def stopping(carry, x):
    after, y = step(carry, x)
    return Stop(after, y, when=after["n"] >= 3)


def start():
    return {"h": torch.tensor([0.1, 0.2]), "n": torch.tensor(0)}


def rows(n):
    gen = torch.Generator().manual_seed(n)
    return {"a": torch.randn(n, 2, generator=gen), "b": torch.randn(n, 3, generator=gen)}


def trace(f, *args):
    leaves, spec = tree.flatten(args)
    return engine_trace(lambda *x: tree.leaves(f(*tree.unflatten(spec, x))), leaves).gm


def traced(f):
    """The function through a graph that no backend has touched."""
    return lambda *args: tree.unflatten(tree.structure(f(*args)), trace(f, *args)(*tree.leaves(args)))


WAYS = {"plain": lambda f: f, "graph": traced, "jit": engine.jit}


def close(a, b):
    assert not tree.differences(a, b, rtol=1e-5, atol=1e-6), tree.differences(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n", [1, 2, 6])
def test_equals_fold(way, n):
    expected = fold(step, start(), [tree.map(lambda x, i=i: x[i], rows(n)) for i in range(n)])
    close(WAYS[way](lambda carry, xs: scan(step, carry, xs))(start(), rows(n)), expected)


@pytest.mark.parametrize("way", WAYS)
def test_stop_keeps_the_carry_and_leaves_zeros(way):
    n = 6
    carry, ys = fold(stopping, start(), [tree.map(lambda x, i=i: x[i], rows(n)) for i in range(n)])
    assert len(ys["n"]) == 3
    padded = tree.map(lambda y: torch.cat([y, y.new_zeros(n - 3)]), ys)
    close(WAYS[way](lambda carry, xs: scan(stopping, carry, xs))(start(), rows(n)), (carry, padded))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("f", [step, stopping])
def test_length_zero_returns_the_carry_and_empty_outputs(way, f):
    carry, ys = WAYS[way](lambda carry, xs: scan(f, carry, xs))(start(), rows(0))
    close(carry, start())
    assert ys["n"].shape == (0,) and ys["n"].dtype == torch.int64 and ys["sum"].shape == (0,)


@pytest.mark.parametrize("way", WAYS)
def test_without_xs_and_without_outputs(way):
    def f(x):
        return scan(lambda c, nothing: (c * 2, nothing), x, None, length=4)[0]

    assert WAYS[way](f)(torch.tensor(1.0)) == 16
    assert scan(lambda c, x: (c, None), torch.ones(2), torch.ones(3))[1] is None


def test_inputs_are_not_changed_and_results_share_no_memory():
    def f(carry, xs):
        return scan(lambda c, x: ((c[1], c[0]), c[0]), carry, xs)

    carry, xs = (torch.zeros(2), torch.ones(2)), torch.zeros(3, 1)
    for way in WAYS.values():
        (a, b), ys = way(f)(carry, xs)
        assert torch.equal(a, carry[1]) and torch.equal(b, carry[0]) and ys[:, 0].tolist() == [0, 1, 0]
    assert carry[0].tolist() == [0, 0] and carry[1].tolist() == [1, 1]


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(4)), st.integers(1, 4), st.lists(st.booleans(), min_size=4, max_size=4), st.booleans())
def test_any_exchange_of_the_carry_with_donation(order, n, fresh, donate):
    """Carries that swap, repeat and stay are right in place too."""

    def f(carry, xs):
        def one(c, x):
            return [c[o] + x if new else c[o] for o, new in zip(order, fresh, strict=True)], [c[0], c[order[0]]]

        return scan(one, carry, xs)

    carry = [torch.full((2,), float(k)) for k in range(4)]
    xs = torch.arange(float(n))
    expected = f([c.clone() for c in carry], xs)
    close(engine.jit(f, donate=0 if donate else ())([c.clone() for c in carry], xs), expected)


def test_body_is_traced_once_whatever_the_length():
    calls = []

    def f(carry, xs):
        def counted(c, x):
            calls.append(recording() is not None)
            return step(c, x)

        return scan(counted, carry, xs)

    g = engine.jit(f)
    close(g(start(), rows(50)), scan(step, start(), rows(50)))
    assert calls == [True]


def test_compiled_body_is_called_once_a_step_and_donated_state_keeps_its_memory():
    gm = trace(lambda c, xs: scan(step, c, xs), start(), rows(5))
    calls = []

    def backend(body, examples, donated):
        assert [p for p in body.graph.nodes if p.op == "placeholder"].__len__() == len(examples)

        def run(inputs):
            calls.append(1)
            outputs = body(*inputs)
            for i, o in donated:
                inputs[i].copy_(outputs[o])
            return outputs

        return run

    assert compile_loops(gm, backend, ((0, 0), (1, 1))) == ()
    inputs = tree.leaves((start(), rows(5)))
    outputs = gm(*inputs)
    assert len(calls) == 5 and outputs[0] is inputs[0] and outputs[1] is inputs[1]
    close(outputs[:2], tree.leaves(scan(step, start(), rows(5))[0]))


def test_state_that_is_used_elsewhere_too_is_not_carried_in_place():
    def f(c, xs):
        last, _ = scan(lambda c, x: (c + x, None), c, xs)
        return [last, c * 2]

    gm = trace(f, torch.ones(2), torch.ones(3, 2))
    assert compile_loops(gm, lambda *a: loops(gm)[0].target.step, ((0, 0),)) == ((0, 0),)


def test_nested_scans():
    def f(c, xs):
        return scan(lambda c, x: scan(lambda c, y: (c * y + 1, c), c, x), c, xs)

    args = torch.tensor(0.5), torch.arange(6.0).reshape(2, 3)
    for way in WAYS.values():
        close(way(f)(*args), f(*args))


def test_inside_transforms_it_unrolls():
    six = rows(6)

    def total(c, xs):
        return scan(stopping, c, xs)[1]["sum"].sum()

    def loop(c, xs):
        return fold(lambda c, i: step(c, tree.map(lambda x: x[i], xs)), c, range(3))[1]["sum"].sum()

    def h(c):
        return {"h": c, "n": torch.tensor(0)}

    expected = torch.func.grad(lambda c: loop(h(c), six))(start()["h"])
    gradient = torch.func.grad(lambda c: total(h(c), six))
    close(gradient(start()["h"]), expected)
    close(engine.jit(gradient)(start()["h"]), expected)
    batch = torch.stack([start()["h"], -start()["h"]])
    close(torch.func.vmap(lambda c: total(h(c), six))(batch), torch.stack([total(h(c), six) for c in batch]))


GRADIENTS = {
    "torch.func.grad": torch.func.grad,
    "grad": engine.grad,
    "value_and_grad": lambda f: lambda *x: engine.value_and_grad(f)(*x)[1],
    "pull_back": lambda f: lambda x, *rest: pull_back(lambda x: (f(x, *rest), torch.ones(()), None), x)[1],
}


@pytest.mark.parametrize("by", GRADIENTS)
@pytest.mark.parametrize("wanted", ["carry", "xs", "closed over"])
def test_gradients_flow_through_a_scan(by, wanted):
    given = torch.tensor([[0.5, -0.2], [0.1, 0.3]]), torch.tensor([0.1, 0.2]), rows(5)["a"]

    def loss(x):
        w, first, xs = given
        w, first, xs = {"closed over": (x, first, xs), "carry": (w, x, xs), "xs": (w, first, x)}[wanted]
        last, ys = scan(lambda c, r: ((c @ w + r).tanh(), c.sum()), first, xs)
        return last.sum() + (ys**2).sum()

    x = {"closed over": torch.ones(2, 2) / 3, "carry": torch.ones(2) / 5, "xs": rows(4)["a"]}[wanted]
    expected = torch.autograd.functional.jacobian(loss, x)
    assert expected.abs().min() > 0
    gradient = GRADIENTS[by](loss)
    close(gradient(x), expected)
    close(engine.jit(gradient)(x), expected)


def test_a_scan_whose_body_differentiates_is_one_loop():
    def f(w, xs):
        return scan(lambda w, x: (w - 0.1 * engine.grad(lambda w: ((w * x).sum() - 1) ** 2)(w), None), w, xs)[0]

    args = torch.ones(3), torch.randn(4, 3)
    assert len(loops(trace(f, *args))) == 1
    close(engine.jit(f)(*args), f(*args))


def test_rows_that_stop_at_different_steps_under_vmap():
    def f(c):
        return scan(lambda c, x: Stop(c + x, c, when=c + x > 5), c, torch.ones(8))

    batch = torch.tensor([0.0, 4.0, 9.0])
    close(torch.func.vmap(f)(batch), tree.stack([f(c) for c in batch]))


def test_masks_where_the_condition_cannot_be_asked_for(monkeypatch):
    """What runs on other devices, on the CPU: steps after the stop are computed and ignored."""
    monkeypatch.setattr(discovering, "can_be_asked", lambda tensors: False)
    gm = trace(lambda c, xs: scan(stopping, c, xs), start(), rows(6))
    assert not loops(gm)[0].target.kind.stops
    close(gm(*tree.leaves((start(), rows(6)))), tree.leaves(scan(stopping, start(), rows(6))))


def test_writes_into_intermediates_are_fine_and_into_the_carry_refused():
    def fine(c, x):
        y = c + x
        y.add_(1)
        return y, None

    def wrong(c, x):
        c.add_(x)
        return c.clone(), None

    args = torch.zeros(2), torch.ones(3, 2)
    assert engine.jit(lambda c, xs: scan(fine, c, xs)[0])(*args).tolist() == [6, 6]
    with pytest.raises(SideEffect, match=r"the carry of scan is changed in place at test_scan.py:\d+: `c.add_\(x\)`"):
        engine.jit(lambda c, xs: scan(wrong, c, xs)[0])(*args)


def test_writes_around_a_scan_leave_it_one_node():
    def f(c, xs):
        c = c * 2
        c.add_(1)
        return scan(lambda c, x: (c + x, c), c, xs)

    def through_views(c, xs):
        y, z, rows = c.clone(), c.clone(), xs.clone()
        y[0].add_(1)
        z.view(-1).mul_(3)
        rows[1:].sub_(1)
        return scan(lambda c, x: (c + x * y[0], c), z, rows)

    args = torch.zeros(2), torch.ones(3, 2)
    close(engine.jit(through_views)(torch.ones(2), args[1]), through_views(torch.ones(2), args[1]))
    close(engine.jit(f)(*args), f(*args))
    for program in (f, through_views):
        made = functionalize(trace(program, *args))
        assert len(loops(made)) == 1
        close(made(*args), tree.leaves(program(*args)))


@pytest.mark.parametrize("way", ["plain", "jit"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda c: {**c, "h": c["h"][:1]}, r"h: began as float32\(2,\) on cpu, became float32\(1,\) on cpu"),
        (lambda c: {**c, "n": c["n"] * 1.5}, r"n: began as int64\(\) on cpu, became float32\(\) on cpu"),
        (lambda c: {"h": c["h"]}, r"n: began as int64\(\) on cpu, became nothing"),
        (lambda c: {**c, "more": c["n"]}, r"more: began as nothing, became int64\(\) on cpu"),
        (lambda c: {**c, "n": 1}, r"n: began as int64\(\) on cpu, became int"),
        (lambda c: {**c, "h": (c["h"],)}, r"h: began as .*\n.*h.0: began as nothing"),
    ],
)
def test_carry_that_changes_its_shape_is_named(way, changed, message):
    f = WAYS[way](lambda c, xs: scan(lambda c, x: (changed(c), None), c, xs)[0])
    with pytest.raises(
        TreeMismatch, match="must keep the structure, shapes and dtypes of the carry, but:\n.*" + message
    ):
        f(start(), rows(2))


def test_lists_and_tuples_are_told_apart():
    with pytest.raises(TreeMismatch, match="the branches: began as"):
        scan(lambda c, x: (tuple(c), None), [torch.ones(1)], torch.ones(2))


def one(c, x):
    return c, None


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: scan(one, torch.ones(1), None), InvalidArgument, "number of steps: pass xs"),
        (lambda: scan(one, torch.ones(1), ()), InvalidArgument, "xs holds no tensor; pass length=n"),
        (lambda: scan(one, torch.ones(1), torch.ones(2), length=3), InvalidArgument, "length is 3, but .* has 2 rows"),
        (lambda: scan(one, torch.ones(1), None, length=-1), InvalidArgument, "at least 0, got -1"),
        (lambda: scan(one, torch.ones(1), None, length=True), InvalidArgument, "at least 0, got True"),
        (lambda: scan(one, torch.ones(1), {"a": torch.tensor(1)}), ShapeMismatch, "leaf a is a scalar"),
        (
            lambda: scan(one, torch.ones(1), {"a": torch.ones(2), "b": torch.ones(3, 1)}),
            ShapeMismatch,
            r"one common first axis, got a \(2,\), b \(3, 1\)",
        ),
        (lambda: scan(one, {"lr": 0.1}, torch.ones(2)), NotATensor, "the carry of scan: leaf lr must be a tensor"),
        (lambda: scan(one, torch.ones(1), {"a": [1, 2]}), NotATensor, "the xs of scan: leaf a.0 must be a tensor"),
        (lambda: scan(lambda c, x: c, torch.ones(1), torch.ones(2)), NotATensor, r"must return \(carry, y\) or Stop"),
        (
            lambda: scan(lambda c, x: (c, {"y": "text"}), torch.ones(1), torch.ones(2)),
            NotATensor,
            "the output of scan: leaf y must be a tensor or a number, got str",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("donate", [(), 0])
def test_what_a_step_leaves_as_it_is_is_not_copied_at_each_step(donate):
    def summed(carry, xs):
        return scan(lambda carry, x: ((carry[0], carry[1] + x, carry[2]), carry[0] * x), carry, xs)

    start, xs = (torch.tensor(3.0), torch.tensor(0.0), torch.ones(2)), torch.arange(4.0)
    fast = engine.jit(summed, donate=donate)
    (same, total, ones), ys = fast(tree.clone(start), xs)
    assert (same.item(), total.item(), ones.tolist(), ys.tolist()) == (3.0, 6.0, [1.0, 1.0], [0.0, 3.0, 6.0, 9.0])
    (node,) = loops(fast.traces[-1].graph)
    targets = [inner.target for inner in node.target.body.graph.nodes if inner.op == "call_function"]
    assert torch.ops.aten.clone.default not in targets
