"""Choices and loops by value: Python's own are the oracle, under every order of transforms."""

import pytest
import torch

import functrain as ft
from functrain.errors import InvalidArgument, NotATensor, ShapeMismatch, TreeMismatch
from tests.engine.nesting import nested, nodes, oracle, orders

W = torch.tensor([[0.5, -0.3, 0.1], [0.2, 0.6, -0.4], [-0.1, 0.3, 0.7]])
X = torch.tensor([0.3, -0.5, 0.8])
INSIDE = ("grad", "torch.func.grad", "vmap", "remat")


def python_cond(pred, true_fun, false_fun, *operands):
    return (true_fun if bool(pred) else false_fun)(*operands)


def python_while(cond_fun, body_fun, value, max_steps=None):
    while bool(cond_fun(value)):
        value = body_fun(value)
    return value


def choosing(cond, _):
    """Rows of a batch choose differently; both branches close over what is differentiated, one over nothing else."""

    def f(x):
        w = W * x
        made = cond(x[0] > 0.2, lambda x: {"y": torch.sin(x @ w), "n": 1}, lambda x: {"y": (x * w[0]).exp(), "n": 2}, x)
        return (made["y"] ** 2).sum() * made["n"] + cond(x.sum() > 100, lambda: x.sum(), lambda: x.prod() * 3)

    return f


def looping(_, loop):
    """Rows of a batch end at different steps, one of them before the first."""

    def f(x):
        value = loop(lambda v: (v["h"] ** 2).sum() < 2.5, lambda v: {"h": v["h"] * 1.4 + x * x, "n": v["n"] + 1},
                     {"h": x * 2, "n": torch.tensor(0)}, max_steps=20)  # fmt: skip
        return (value["h"] * x).sum() * (1 + value["n"])

    return f


def both(cond, loop):
    """A choice in a loop in a choice."""

    def f(x):
        def body(h):
            return cond(h.sum() > 1, lambda: h * 0.5 + x, lambda: h * x.exp() + 0.3)

        def run(h):
            return loop(lambda h: (h * h).sum() < 4, body, h, max_steps=8)

        def bounded(h):  # the bound belongs to what is computed
            for _ in range(8):
                if not bool((h * h).sum() < 4):
                    break
                h = body(h)
            return h

        return cond(x[0] < 10, bounded if loop is python_while else run, lambda h: h, x).sum()

    return f


PROGRAMS = {"choosing": choosing, "looping": looping, "both": both}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    "order", [*INSIDE, *orders(2), "jit(grad(vmap", "jit(vmap(grad", "jit(grad(grad", "vmap(jit(grad"]
)
def test_equals_python(program, order):
    f, plain = PROGRAMS[program](ft.cond, ft.while_loop), PROGRAMS[program](python_cond, python_while)
    torch.testing.assert_close(nested(order, f)(X), oracle(order, plain, X), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ft.jit(nested(order, f))(X), oracle(order, plain, X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", [*INSIDE, "vmap(grad", "grad(vmap"])
def test_the_graph_of_a_loop_does_not_depend_on_its_bound(order):
    def f(steps):
        return lambda x: ft.while_loop(lambda h: h.sum() < 3, lambda h: h * x + 1, x, max_steps=steps).sum()

    assert nodes(ft.jit(nested(order, f(10))).lower(X).graph) == nodes(ft.jit(nested(order, f(1000))).lower(X).graph)


def test_one_branch_alone_runs():
    ran = []

    def watched(name):
        def f(x):
            ran.append(name)
            return x * 2

        return f

    ft.cond(torch.tensor(True), watched("true"), watched("false"), X)
    assert ran == ["true"]
    # Compiled, the other one would divide an integer by zero.
    f = ft.jit(lambda p, n: ft.cond(p, lambda n: n // n, lambda n: n, n))
    assert f(torch.tensor(False), torch.tensor(0)) == 0 and f(torch.tensor(True), torch.tensor(7)) == 1


def test_a_gradient_goes_through_the_branch_that_ran_alone():
    def f(x):
        return ft.cond(x > 0, lambda: x.sqrt(), lambda: x * 0)

    for g in (ft.grad(f), ft.jit(ft.grad(f))):
        assert g(torch.tensor(0.0)) == 0 and g(torch.tensor(4.0)) == 0.25


def test_a_loop_without_a_bound():
    def f(x):
        return ft.while_loop(lambda v: v[0] < 100, lambda v: (v[0] * x, v[1] + 1), (x, torch.tensor(0)))

    for g in (f, ft.jit(f)):
        value, steps = g(torch.tensor(3.0))
        assert value == 243 and steps == 4
        assert g(torch.tensor(200.0))[1] == 0
    batch = torch.tensor([3.0, 200.0, 1.1])
    steps = torch.stack([f(x)[1] for x in batch])
    assert torch.equal(ft.vmap(f)(batch)[1], steps) and torch.equal(ft.jit(ft.vmap(f))(batch)[1], steps)
    pushed = ft.jit(lambda x: ft.jvp(lambda x: f(x)[0], (x,), (torch.tensor(1.0),)))(torch.tensor(3.0))
    assert pushed[0] == 243 and pushed[1] == 5 * 3**4


def test_a_gradient_of_a_loop_without_a_bound_is_refused_in_jit():
    def f(x):
        return ft.while_loop(lambda v: v < 100, lambda v: v * x, x)

    with pytest.raises(InvalidArgument, match=r"a gradient inside jit .* while_loop .* pass max_steps"):
        ft.jit(ft.grad(f))(torch.tensor(3.0))


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_bound_ends_a_loop(steps):
    def f(x):
        return ft.while_loop(lambda x: True, lambda x: x + 1, x, max_steps=steps)

    assert f(torch.tensor(0)) == steps and ft.jit(f)(torch.tensor(0)) == steps
    rows = torch.arange(3)
    assert torch.equal(ft.jit(ft.vmap(f))(rows), rows + steps) and torch.equal(ft.vmap(f)(rows), rows + steps)


@pytest.mark.parametrize("jit", [lambda f: f, ft.jit], ids=["eager", "jit"])
@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda x: ft.cond(x, lambda: x, lambda: x), NotATensor, "cond: the condition must be a bool"),
        (lambda x: ft.cond(x > 0, lambda: x, lambda: x), ShapeMismatch, "cond: the condition must be a scalar"),
        (lambda x: ft.while_loop(lambda v: v, lambda v: v, x), NotATensor, "while_loop: .* be a bool"),
        (lambda x: ft.while_loop(lambda v: v > 0, lambda v: v, x), ShapeMismatch, "while_loop: .* be a scalar"),
        (lambda x: ft.while_loop(lambda v: v.sum() < 9, lambda v: v[:1], x), TreeMismatch, "step of while_loop"),
        (lambda x: ft.while_loop(lambda v: True, lambda v: v, {"n": 1}), NotATensor, "the value of while_loop: leaf n"),
        (lambda x: ft.while_loop(lambda v: True, lambda v: v, x, -1), InvalidArgument, "max_steps .*-1"),
    ],
)  # fmt: skip
def test_bad_input(jit, f, error, message):
    with pytest.raises(error, match=message):
        jit(f)(X)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda x: x[:1], r"the result: float32\(3,\) where it is true, float32\(1,\) where it is false"),
        (lambda x: {"y": x}, "y: nothing where it is true"),
        (lambda x: x.double(), r"float64\(3,\) where it is false"),
    ],
)
def test_branches_that_differ_are_named_where_both_are_traced(other, message):
    def f(x):
        return ft.cond(x.sum() > 0, lambda x: x, other, x)

    for g in (ft.jit(f), ft.vmap(lambda x: f(x))):
        with pytest.raises(TreeMismatch, match=f"both functions of cond (?s:.*){message}"):
            g(X if isinstance(g, type(ft.jit(f))) else torch.stack([X, X]))


def test_branches_of_other_containers_are_named():
    with pytest.raises(TreeMismatch, match="the branches: "):
        ft.jit(lambda x: ft.cond(x.sum() > 0, lambda: [x], lambda: (x,)))(X)
