"""An operation that fails inside a compiled call: the error says which one, and names the user's line that made it."""

import pytest
import torch
import torch.nn.functional as F

import functrain as ft
from functrain import losses, nn, optim
from functrain.engine import grad, jit, remat, scan
from functrain.errors import LabelOutOfRange

P = {"e": torch.ones(5, 3), "w": torch.eye(3)}
GOOD, BAD = torch.tensor([1, 2]), torch.tensor([1, 7])


def looked_up(p, x):
    h = F.embedding(x, p["e"])  # the embedding
    h = torch.tanh(h @ p["w"])  # the product
    return h.sum()


def inverted(p, x):
    return torch.linalg.inv(p["w"])[x - x].sum()  # the inverse


def selected(p, x):
    rows = torch.where(x > 0, x, -x)
    return p["e"].index_select(0, rows).pow(2).sum()  # the selection


def deep(p, x):
    h = torch.linalg.cholesky(p["w"]) @ p["w"]  # the factor
    return (h * x.sum()).sum()


def note(f, *args) -> str:
    with pytest.raises((IndexError, RuntimeError)) as caught:
        f(*args)
    return "\n".join(getattr(caught.value, "__notes__", []))


SINGULAR = {**P, "w": torch.zeros(3, 3)}
CASES = [
    (looked_up, (P, GOOD), (P, BAD), "embedding(float32(5, 3), int64(2,))", "# the embedding"),
    (inverted, (P, GOOD), (SINGULAR, GOOD), "_linalg_check_errors(int32())", "# the inverse"),
    (selected, (P, GOOD), (P, BAD), "index_select(float32(5, 3), int64(2,))", "# the selection"),
    (deep, (P, GOOD), (SINGULAR, GOOD), "_linalg_check_errors(int32())", "# the factor"),
]


@pytest.mark.parametrize("first", [True, False], ids=["first call", "later call"])
@pytest.mark.parametrize("under", [lambda f: f, grad, lambda f: remat(f)], ids=["value", "gradient", "remat"])
@pytest.mark.parametrize(("f", "good", "bad", "operation", "line"), CASES, ids=[c[0].__name__ for c in CASES])
def test_the_line_of_the_forward_pass_is_named(f, good, bad, operation, line, under, first):
    fast = jit(lambda p, x: under(f)(p, x))
    if not first:
        fast(*good)
    said = note(fast, *bad)
    assert f"raised by {operation} in the compiled function <lambda>; from test_failures.py:" in said
    assert said.count("\n") == 0
    assert line in said


def written_back(p, x):
    return p["e"].gather(0, x[:, None].expand(2, 3)).sum()  # the gathering


@pytest.mark.parametrize("twice", [False, True])
def test_the_gradient_of_a_line_is_named(twice):
    """The forward pass is not needed, and so not run: only the backward operation can fail."""
    once = lambda p, x: grad(lambda p: written_back(p, x))(p)["e"]  # noqa: E731
    f = once if not twice else lambda p, x: grad(lambda p: (once(p, x) * p["e"]).sum())(p)["e"]
    said = note(jit(f), P, BAD)
    assert "the gradient of test_failures.py:" in said
    assert "# the gathering" in said


def test_the_line_inside_a_loop_is_named():
    def step(c, i):
        return c + F.embedding(i, P["e"]).sum(), c  # inside the loop

    said = note(jit(lambda xs: scan(step, torch.zeros(()), xs)), torch.tensor([1, 2, 9]))
    assert "# inside the loop" in said


def test_a_layer_of_functrain_names_the_users_line_and_its_own():
    learner = ft.Learner(nn.serial(nn.dense(3)), losses.cross_entropy, optim.sgd(lr=0.1))
    batch = (torch.ones(4, 3), torch.tensor([0, 1, 2, 9]))
    state = ft.init(learner, ft.random.key(0), batch)
    step = jit(lambda s, b: ft.train_step(learner)(s, b))  # of mine
    with pytest.raises(LabelOutOfRange, match=r"the label 9, met by the compiled function <lambda>") as caught:
        step(state, batch)
    said = caught.value.__notes__[0]
    assert "# of mine" in said
    assert "in functrain/losses" in said


def test_operations_that_are_called_together_name_their_lines():
    def f(p):
        return {k: v + P["w"] for k, v in p.items()}  # three sums

    fast = jit(f)
    good = {k: torch.ones(3, 3) for k in "abc"}
    fast(good)
    made_by = next(iter(fast._entries[0].compiled.__globals__["made_by"].values()))
    assert [operation for operation, _ in made_by] == ["add"] * 3
    assert "# three sums" in str(made_by[0][1])


def test_a_custom_backward_names_its_own_line():
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(x, i):
            return x * 2

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(inputs[1])

        @staticmethod
        def backward(ctx, g):  # pyright: ignore
            (i,) = ctx.saved_tensors
            return g.index_select(0, i)[:1].expand_as(g), None  # my own rule

    said = note(jit(lambda x, i: grad(lambda x: Twice.apply(x, i).sum())(x)), torch.ones(3), BAD)
    assert "# my own rule" in said
    assert "the gradient of" not in said


def test_errors_of_what_is_no_operation_stay_as_they_are():
    class Own(Exception):
        pass

    def f(x):
        raise Own("mine")

    with pytest.raises(Own) as caught:
        jit(f)(torch.ones(2))
    assert all("raised by" not in one for one in caught.value.__notes__)


def test_inductor_names_the_line_of_a_kernel_and_of_an_operation():
    def f(p, x):
        h = p["e"][x]  # the rows
        h = torch.tanh(h @ p["w"]).exp().sum(0)
        return h * torch.linalg.inv(p["w"])  # the inverse of all

    fast = jit(f, backend="inductor")
    fast(P, GOOD)
    assert "# the rows" in note(fast, P, BAD)
    assert "# the inverse of all" in note(fast, SINGULAR, GOOD)
