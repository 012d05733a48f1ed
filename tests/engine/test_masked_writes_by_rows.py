"""Writes where a mask is true under vmap, eager and jitted: what a loop over the rows gives, or a refusal in words."""

import pytest
import torch

import functrain as ft
from functrain.errors import InvalidArgument, NotTraceable, SideEffect

G = torch.Generator().manual_seed(0)
X = torch.randn(4, 3, 5, generator=G)
WHOLE = torch.rand(4, 3, 5, generator=G) > 0.5
ROWS = torch.rand(4, 3, generator=G) > 0.5
COLUMNS = torch.rand(4, 5, generator=G) > 0.5
TWO = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) > 0
FLAGS = torch.tensor([True, False, True, True])
NUMBERS = torch.tensor([0, -1, 2, 1])
SCALARS = torch.randn(4, generator=G)
VALUES = torch.randn(4, 5, generator=G)
SOURCES = torch.randn(4, 15, generator=G)
PAIRS = torch.randn(4, 2, 5, generator=G)
RUNS = {
    "vmap": ft.vmap,
    "jit": lambda f, dims=0: ft.jit(ft.vmap(f, dims)),
    "torch.func": lambda f, dims=0: ft.jit(torch.func.vmap(f, dims)),
    "replay": lambda f, dims=0: ft.jit(ft.vmap(f, dims), backend="replay"),
}


def put(at, value=lambda v: v):
    def f(x, mask, v, k):
        y = x.clone()
        y[at(mask, k)] = value(v)
        return y

    return f


CASES = {  # what is written, mask, value
    "a number": (put(lambda m, k: m, lambda v: 5), WHOLE, SCALARS),
    "a scalar": (put(lambda m, k: m), WHOLE, SCALARS),
    "a scalar of another dtype": (put(lambda m, k: m, lambda v: v.double()), WHOLE, SCALARS),
    "nan": (put(lambda m, k: m, lambda v: float("nan")), ROWS, SCALARS),
    "a row": (put(lambda m, k: m), ROWS, VALUES),
    "a row with more axes": (put(lambda m, k: m, lambda v: v[None, None, None]), ROWS, VALUES),
    "after a slice": (put(lambda m, k: (slice(0, 2), m)), COLUMNS, SCALARS),
    "a column after a slice": (put(lambda m, k: (slice(None), m), lambda v: v[:3, None]), COLUMNS, VALUES),
    "after all": (put(lambda m, k: (..., m)), COLUMNS, SCALARS),
    "beside a whole number": (put(lambda m, k: (m, -2)), ROWS, SCALARS),
    "beside a new axis": (put(lambda m, k: (None, m, None), lambda v: v[None]), ROWS, VALUES),
    "before a number": (put(lambda m, k: (m, k)), ROWS, SCALARS),
    "behind a number": (put(lambda m, k: (k, m)), COLUMNS, SCALARS),
    "elements counted": (put(lambda m, k: m), TWO, PAIRS),
    "elements counted, one column": (put(lambda m, k: (m, k), lambda v: v[:, 0]), TWO, PAIRS),
    "nothing": (put(lambda m, k: m & False, lambda v: v[:0]), TWO, PAIRS),
    "a flag": (put(lambda m, k: m), FLAGS, VALUES),
    "a flag behind a slice": (put(lambda m, k: (slice(None), m, 1)), FLAGS, SCALARS),
    "two flags": (put(lambda m, k: (m, m)), FLAGS, VALUES),
    "to a view": (lambda x, m, v, k: (y := x.clone(), y.t()[1:].__setitem__(m[1:], v))[0], COLUMNS, SCALARS),
    "to a diagonal": (lambda x, m, v, k: (y := x.clone(), y.diagonal().__setitem__(m, v))[0], ROWS, SCALARS),
    "to whole numbers": (
        lambda x, m, v, k: put(lambda m, k: m, lambda v: 2.5)((x * 9).long(), m, v, k),
        WHOLE,
        SCALARS,
    ),
    "to rows of no elements": (lambda x, m, v, k: put(lambda m, k: m)(x[:, :0], m, v, k), ROWS, SCALARS),
    "masked_fill_": (lambda x, m, v, k: x.clone().masked_fill_(m, v), WHOLE, SCALARS),
    "masked_fill": (lambda x, m, v, k: torch.masked_fill(x, mask=m[:, None], value=v), ROWS, SCALARS),
    "masked_fill that grows": (lambda x, m, v, k: x[0].masked_fill(m, v), WHOLE, SCALARS),
    "masked_scatter_": (lambda x, m, v, k: x.clone().masked_scatter_(m, v), WHOLE, SOURCES),
    "masked_scatter": (lambda x, m, v, k: torch.masked_scatter(x, m[:, None], v), ROWS, SOURCES),
    "index_put_": (lambda x, m, v, k: x.clone().index_put_((m,), v), ROWS, VALUES),
    "index_put": (lambda x, m, v, k: torch.index_put(x, [m], v), TWO, PAIRS),
    "index_put, adding": (lambda x, m, v, k: x.index_put((m,), v, accumulate=True), TWO, PAIRS),
}


def loop(f, mapped, args):
    rows = [[a[n] if m else a[0] for a, m in zip(args, mapped, strict=True)] for n in range(4)]
    return torch.stack([f(*row) for row in rows])


MAPPED = {"all": (1, 1, 1, 1), "no mask": (1, 0, 1, 0), "no value": (1, 1, 0, 0), "no numbers": (1, 0, 0, 0)}


@pytest.mark.parametrize("name", CASES)
def test_writes_are_those_of_a_loop(name):
    f, mask, value = CASES[name]
    args = (X, mask, value, NUMBERS)
    for mapped in MAPPED.values():
        expected = loop(f, mapped, args)
        passed = [a if m else a[0] for a, m in zip(args, mapped, strict=True)]
        for run in RUNS.values():
            made = run(f, tuple(0 if m else None for m in mapped))(*passed)
            torch.testing.assert_close(made, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ["a row", "elements counted", "masked_fill_", "masked_scatter_", "index_put, adding"])
def test_so_are_the_gradients(name):
    f, mask, value = CASES[name]

    def gradients(x, mask, value, k):
        total = lambda both: (f(both[0], mask, both[1], k) ** 2 * torch.arange(15.0).view(3, 5)).sum()  # noqa: E731
        return torch.cat([g.reshape(-1) for g in ft.grad(total)((x, value))])

    args = (X, mask, value, NUMBERS)
    for run in (ft.vmap, RUNS["jit"]):
        torch.testing.assert_close(run(gradients)(*args), loop(gradients, (1, 1, 1, 1), args))


@pytest.mark.parametrize("name", ["masked_fill", "masked_scatter", "index_put", "index_put, adding"])
@pytest.mark.parametrize("mapped", [(0, 1, 0, 0), (0, 0, 1, 0), (0, 1, 1, 0)])
def test_what_returns_a_new_tensor_takes_one_that_all_rows_share(name, mapped):
    f, *args = CASES[name]
    passed = [a if m else a[0] for a, m in zip((X, *args, NUMBERS), mapped, strict=True)]
    for run in RUNS.values():
        made = run(f, tuple(0 if m else None for m in mapped))(*passed)
        assert torch.equal(made, loop(f, mapped, (X, *args, NUMBERS)))


def test_a_row_of_both_batches():
    f = CASES["elements counted"][0]
    args = [torch.stack([a, a.flip(0)]) for a in (X, TWO, PAIRS, NUMBERS)]
    expected = torch.stack([loop(f, (1, 1, 1, 1), [a[n] for a in args]) for n in range(2)])
    for run in RUNS.values():
        assert torch.equal(run(run(f))(*args), expected)


WRONG = {
    "another number of elements": (put(lambda m, k: m), ROWS, PAIRS, "to another number of them"),
    "a mask of another shape": (put(lambda m, k: m, lambda v: 1.0), COLUMNS, PAIRS, "The shape of the mask"),
    "a mask of one element": (put(lambda m, k: m[:1], lambda v: 1.0), ROWS, PAIRS, "The shape of the mask"),
    "too short a row": (put(lambda m, k: m, lambda v: v[0, :4]), ROWS, PAIRS, "must match the existing size"),
    "another dtype": (put(lambda m, k: m, lambda v: v.double()), TWO, PAIRS, "source and destination dtypes match"),
    "too short a source": (
        lambda x, m, v, k: x.masked_scatter(m, v[0, :2]),
        WHOLE,
        PAIRS,
        "more places than",
    ),
    "too many axes": (lambda x, m, v, k: x.index_put((m,), v[None]), TWO, PAIRS, "cannot be broadcast"),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", WRONG)
def test_what_a_loop_refuses_is_refused(name, run):
    f, mask, value, words = WRONG[name]
    with pytest.raises((RuntimeError, IndexError)):
        loop(f, (1, 1, 1, 1), (X, mask, value, NUMBERS))
    with pytest.raises((RuntimeError, IndexError), match=words):
        RUNS[run](f)(X, mask, value, NUMBERS)


def added(x, m, v, k):
    y = x.clone()
    y[m] += 1
    return y


def asked(x, m, v, k):
    return x if m.any() else -x


RAGGED = (NotTraceable, r"vmap: the shape of a result .* each row has others.*choose with torch.where")
BESIDE = (InvalidArgument, r"a mask beside another, or beside a list .* make one mask of all, or .* torch.where")
SHARED = (SideEffect, r"vmap: .* writes what differs by row .* as x.new_zeros\(shape\)")
REFUSED = {
    "x[m] += 1": (added, ROWS, RAGGED),
    "x[m]": (lambda x, m, v, k: x[m].sum(), ROWS, RAGGED),
    "nonzero": (lambda x, m, v, k: m.nonzero().sum(), ROWS, RAGGED),
    "where": (lambda x, m, v, k: torch.where(m)[0].sum(), ROWS, RAGGED),
    "masked_select": (lambda x, m, v, k: x.masked_select(m).sum(), WHOLE, RAGGED),
    "a value": (asked, ROWS, (NotTraceable, "Python looks at the values of a tensor")),
    "beside a list": (put(lambda m, k: (m, [0])), ROWS, BESIDE),
    "beside a mask": (put(lambda m, k: (m[:, 0], m[0])), WHOLE, BESIDE),
    "beside a tensor": (lambda x, m, v, k: x.index_put((m, torch.tensor([0])), v), ROWS, BESIDE),
    "to what all share": (lambda x, m, v, k: torch.zeros(3, 5).__setitem__(m, v), ROWS, SHARED),
    "masked_fill_ of it": (lambda x, m, v, k: torch.zeros(3, 5).masked_fill_(m, v), WHOLE, SHARED),
    "masked_scatter_ of it": (lambda x, m, v, k: torch.zeros(3, 5).masked_scatter_(m, x), WHOLE, SHARED),
    "index_put_ of it": (lambda x, m, v, k: torch.zeros(3, 5).index_put_((m,), v), ROWS, SHARED),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rows_is_refused_with_the_remedy(name, run):
    f, mask, (error, words) = REFUSED[name]
    with pytest.raises(error, match=words):
        RUNS[run](f)(X, mask, SCALARS, NUMBERS)
