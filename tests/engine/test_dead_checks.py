"""What nobody reads and eager execution refuses: the compiled function refuses it too."""

import pytest
import torch
import torch.nn.functional as F

import functrain as ft
from functrain.engine.graph.passes.functionalizing import functionalize
from functrain.engine.graph.passes.simplifying import simplify
from functrain.engine.tracing.to_graph import trace

W = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
ONES = torch.ones(2, 3)


def written(write):
    def f(w, t):
        y = w.clone()
        write(y, t)
        return y

    return f


COLUMN = (slice(None), None)
OPERATIONS = {  # of labels or indices (a, b) into five rows
    "index": lambda w, t: w[t],
    "index of two axes": lambda w, t: w[t, t % 3],
    "a row by a number": lambda w, t: w[t[1]],
    "take": lambda w, t: w.t()[0].take(t),
    "put": lambda w, t: w.t()[0].put(t, ONES[:, 0]),
    "gather": lambda w, t: w.gather(0, t[COLUMN]),
    "scatter": lambda w, t: w.scatter(0, t[COLUMN], 1.0),
    "scatter of values": lambda w, t: w.scatter(0, t[COLUMN], ONES),
    "scatter and multiply": lambda w, t: w.scatter(0, t[COLUMN], 2.0, reduce="multiply"),
    "scatter_add": lambda w, t: w.scatter_add(0, t[COLUMN], ONES),
    "scatter_reduce": lambda w, t: w.scatter_reduce(0, t[COLUMN], ONES, "amax"),
    "index_select": lambda w, t: w.index_select(0, t),
    "index_add": lambda w, t: w.index_add(0, t, ONES),
    "index_copy": lambda w, t: w.index_copy(0, t, ONES),
    "index_fill": lambda w, t: w.index_fill(0, t, 1.0),
    "index_fill by a tensor": lambda w, t: w.index_fill(0, t, torch.tensor(1.0)),
    "index_put": lambda w, t: w.index_put((t,), ONES, accumulate=True),
    "x[t] = v": written(lambda y, t: y.__setitem__(t, 1.0)),
    "x[1:][t] = v": written(lambda y, t: torch.cat([y, y])[5:].__setitem__(t, 1.0)),
    "x[mask, t] = v": written(lambda y, t: y.expand(2, 2, 5, 3).clone().__setitem__((torch.eye(2) > 0, t), 1.0)),
    "x[k] = v": written(lambda y, t: y.__setitem__(t[1], 1.0)),
    "scatter_": written(lambda y, t: y.scatter_(0, t[COLUMN], ONES)),
    "put_": written(lambda y, t: y.t()[0].put_(t, ONES[:, 0])),
    "by itself": lambda w, t: t.repeat(3)[:5].index_fill_(0, t.repeat(3)[:5], 1),
    "embedding": lambda w, t: F.embedding(t, w),
    "embedding_bag": lambda w, t: F.embedding_bag(t[None], w, mode="max"),
    "nll_loss": lambda w, t: F.nll_loss(w.t()[:2].log(), t),
    "nll_loss, ignoring": lambda w, t: F.nll_loss(w.t()[:2].log(), torch.where(t == 4, 7, t), ignore_index=7),
    "nll_loss of images": lambda w, t: F.nll_loss(w.t()[:2].log()[:, :, None, None], t[:, None, None]),
    "cross_entropy": lambda w, t: F.cross_entropy(w.t()[:2], t, reduction="none"),
    "multi_margin_loss": lambda w, t: F.multi_margin_loss(w.t()[:2], t),
    "multilabel_margin_loss": lambda w, t: F.multilabel_margin_loss(w.t()[:2], t.repeat(2, 3)[:, :5]),
    "a probability": lambda w, t: F.binary_cross_entropy(t / 4, torch.ones(2)),
    "a quotient": lambda w, t: (7 // (5 - t)) + (t % (5 - t)) + torch.fmod(t, 5 - t),
    "a quotient in place": written(lambda y, t: t.clone().floor_divide_(5 - t)),
    "searchsorted": lambda w, t: torch.searchsorted(ONES[0, :2], ONES[0, :2], sorter=(t - 3).clamp(min=0)),
    "masked_scatter": lambda w, t: w.masked_scatter(t[1] > 4, torch.ones(2)),
    "segment_reduce": lambda w, t: torch.segment_reduce(w, "sum", lengths=t.clamp(min=0)),
    "eig": lambda w, t: torch.linalg.eig(torch.eye(2) / (5 - t[1])),
    "eigh": lambda w, t: torch.linalg.eigh(torch.eye(3) / (5 - t[1])),
    "svd": lambda w, t: torch.linalg.svd(torch.eye(2) / (5 - t[1])),
    "the rank of a symmetric matrix": lambda w, t: torch.linalg.matrix_rank(torch.eye(3) / (5 - t[1]), hermitian=True),
    "a pseudo-inverse": lambda w, t: torch.linalg.pinv(torch.eye(2) / (5 - t[1])),
    "least squares": lambda w, t: torch.linalg.lstsq(torch.eye(2) / (5 - t[1]), ONES[:, :1]),
    "cholesky_inverse": lambda w, t: torch.cholesky_inverse(torch.eye(2) * (5 - t[1])),
    "histc": lambda w, t: torch.histc(w / (5 - t[1])),
}
GOOD, WRONG = torch.tensor([4, 1]), torch.tensor([4, 5])


def unread(f):
    def g(w, t):
        f(w, t)
        return w * 2

    return g


def is_refused(f, *args):
    try:
        f(*args)
    except (RuntimeError, IndexError):
        return True
    return False


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_eager_refuses_is_refused_though_nobody_reads_it(name):
    f = unread(OPERATIONS[name])
    compiled = ft.jit(f)
    for labels in (GOOD, WRONG, torch.tensor([4, -1]), torch.tensor([4, -6])):
        assert is_refused(compiled, W, labels) == is_refused(f, W, labels)
    assert torch.equal(compiled(W, GOOD), W * 2)
    assert is_refused(compiled, W, WRONG)


@pytest.mark.parametrize("name", ["index", "gather", "index_select", "nll_loss", "take"])
def test_a_gradient_that_checks_the_same_is_check_enough(name):
    f = ft.grad(lambda w, t: OPERATIONS[name](w, t).sum())
    made = simplify(functionalize(trace(lambda w, t: [f(w, t)], [W, GOOD]).gm)).graph
    assert [n.name for n in made.nodes if "assert" in n.name] == []
    assert is_refused(ft.jit(f), W, WRONG)


TRUE_DIVISION = torch.tensor([7, 0]), torch.tensor([1, 0])
ROWS = W.t().log().repeat(1, 60)  # three of 300 classes, more than a byte counts
EDGES = {  # what kernels do not refuse, and what they do, where the limits are beyond the dtype
    "true division by zero": (lambda a, b: torch.div(a, b, rounding_mode=None), TRUE_DIVISION),
    "true division in place": (lambda a, b: a.double().div_(b, rounding_mode=None), TRUE_DIVISION),
    "bytes of many classes": (F.nll_loss, (ROWS, torch.tensor([0, 200, 255], dtype=torch.uint8))),
    "a byte beyond the classes": (F.nll_loss, (ROWS[:, :100], torch.tensor([0, 1, 156], dtype=torch.uint8))),
    "an ignored byte": (
        lambda x, t: F.nll_loss(x, t, ignore_index=156),
        (ROWS[:, :100], torch.tensor([0, 1, 156], dtype=torch.uint8)),
    ),
}


@pytest.mark.parametrize("name", EDGES)
def test_limits_are_those_of_the_kernel_at_the_edge_of_a_dtype(name):
    f, args = EDGES[name]
    assert is_refused(ft.jit(lambda *args: (f(*args), args[0] * 2)[1]), *args) == is_refused(f, *args)


def test_equal_checks_are_made_once():
    def f(w, t):
        w[t], w.t()[:, t], w.index_select(0, t % 5), w[t.clone()]  # pyright: ignore[reportUnusedExpression]
        return [w + 1]

    made = simplify(functionalize(trace(f, [W, GOOD]).gm)).graph
    assert len([n for n in made.nodes if "assert" in n.name]) == 2


def test_inductor_refuses_it_too():
    names = ["index", "x[t] = v", "nll_loss", "embedding_bag"]
    f = ft.jit(lambda w, t: ([OPERATIONS[n](w, row) for n, row in zip(names, t)], w + 1)[1], backend="inductor")  # noqa: B905
    good = GOOD.expand(4, 2)
    assert torch.equal(f(W, good), W + 1)
    for k in range(4):
        wrong = good.clone()
        wrong[k, 1] = 5
        with pytest.raises((IndexError, RuntimeError)):
            f(W, wrong)
