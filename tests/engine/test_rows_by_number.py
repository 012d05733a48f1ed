"""Rows by a tensor without axes, `x[k]`, and writes to them: eager's numbers in jit, or a refusal in words."""

import pytest
import torch

import functrain as ft
from functrain.errors import NotTraceable, SideEffect

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
C = X.reshape(2, 3, 4)
RUNS = {"aten": ft.jit, "replay": lambda f: ft.jit(f, backend="replay")}


def number(k, dtype=torch.int64):
    return torch.tensor(k, dtype=dtype)


def written(write):
    def f(x, *numbers):
        y = x.clone()
        write(y, *numbers)
        return y

    return f


def put(*index):
    """A function that writes to x[...] where a letter of the index stands for the next number."""

    def f(y, *numbers):
        remaining = iter(numbers)
        at = tuple(next(remaining) if part == "k" else part for part in index)
        y[at] = y[at] * 2 + 1
        y[at if len(at) > 1 else at[0]] = 3
        y[at] = torch.arange(y[at].numel()).reshape(y[at].shape)

    return written(f)


def augmented(y, k):
    y[k] += 2
    y[k, 1:] -= y[0, 1:]
    y[..., k] *= 3


READS = {
    "a row": (lambda x, k: x[k], X, [2]),
    "from the end": (lambda x, k: x[k], X, [-1]),
    "in a tuple": (lambda x, k: x[(k,)], X, [1]),
    "with a slice": (lambda x, k: x[k, 1:4], X, [1]),
    "the last axis": (lambda x, k: x[..., k], C, [-2]),
    "two": (lambda x, k, j: x[k, j], C, [1, -1]),
    "two apart": (lambda x, k, j: x[k, :, j], C, [1, 2]),
    "beside a number": (lambda x, k: x[k, 0], C, [1]),
    "beside a new axis": (lambda x, k: x[None, k], C, [1]),
    "beside a list": (lambda x, k: x[k, [0, 1]], C, [1]),
    "beside a tensor": (lambda x, k: x[k, torch.tensor([0, 2]), torch.tensor([1, 0])], C, [1]),
    "an element": (lambda x, k: x[k], X[0], [3]),
    "of what is closed over": (lambda x, k: X[k] + x, X[0], [3]),
    "by what is computed": (lambda x, k: x[x.sum(1).argmax() - k], X, [0]),
    "a clone, then a write": (lambda x, k: (lambda y: (y[k].clone(), y.mul_(2)))(x.clone())[0], X, [1]),
    "written": (put("k"), X, [-2]),
    "written, with a slice": (put("k", slice(1, 3)), X, [1]),
    "written, the last axis": (put(..., "k"), C, [1]),
    "written, two apart": (put("k", slice(None), "k"), C, [1, -1]),
    "written, a new axis": (put(None, "k"), X, [1]),
    "written, a number beside": (put("k", 0), X, [1]),
    "augmented": (written(augmented), X, [1]),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("read", READS)
def test_the_values_are_those_of_eager(read, run):
    f, x, numbers = READS[read]
    for dtype in (torch.int64, torch.int32, torch.int8):
        made = [number(k, dtype) for k in numbers]
        assert torch.equal(RUNS[run](f)(x, *made), f(x, *made))


@pytest.mark.parametrize("read", READS)
def test_so_are_the_gradients(read):
    f, x, numbers = READS[read]
    made = [number(k) for k in numbers]

    def loss(x):
        return (f(x, *made) ** 3).sum()

    y = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(y), y)
    for g in (ft.grad(loss), torch.func.grad(loss), ft.grad(ft.remat(loss)), torch.func.grad(ft.remat(loss))):
        torch.testing.assert_close(ft.jit(g)(x), expected)


def test_in_a_scan_and_under_vmap():
    numbers = torch.tensor([0, -1, 2])

    def step(c, k):
        return c * 0.5 + X[k] * c[k], c[k]

    last, ys = ft.jit(lambda c, xs: ft.scan(step, c, xs))(X[1], numbers)
    expected, rows = ft.fold(step, X[1], numbers)
    assert torch.equal(last, expected) and torch.equal(ys, rows)
    rows = ft.jit(ft.vmap(lambda k: ft.grad(lambda x: (x[k] ** 2).sum())(X)))(numbers)
    assert torch.equal(
        rows, torch.stack([torch.zeros_like(X).index_copy(0, k[None] % 4, 2 * X[k][None]) for k in numbers])
    )
    both = ft.jit(ft.vmap(lambda x, k: x[..., k]))(torch.stack([X, X * 2, X * 3]), numbers)
    assert torch.equal(both, torch.stack([X[:, 0], 2 * X[:, -1], 3 * X[:, 2]]))


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("k", [4, -5, 2**40])
@pytest.mark.parametrize("f", [lambda x, k: x[k], put("k")])
def test_out_of_range_is_refused_as_eager_does(f, k, run):
    for g in (f, RUNS[run](f)):
        with pytest.raises(IndexError, match=f"index {k} is out of bounds for dimension 0 with size 4"):
            g(X, number(k))


def test_too_many_numbers_are_refused_as_eager_does():
    for g in (lambda x, k: x[k, k, k], ft.jit(lambda x, k: x[k, k, k])):
        with pytest.raises(IndexError, match="too many indices for tensor of dimension 2"):
            g(X, number(0))


def through_a_row(y, k):
    y[k].mul_(2)


def part_of_a_row(y, k):
    y[k][1:3] = 2


def put_elsewhere(y, k):
    row = y[k]
    row += 1
    y[0] = row


def another_row(y, k):
    row, same = y[k], y[k]
    row += 1
    y.copy_(same.expand(4, 6))


def read_after_a_write(y, k):
    row = y.t()[k]
    y.mul_(2)
    y[:, 0] = row


@pytest.mark.parametrize("write", [through_a_row, part_of_a_row, put_elsewhere, another_row, read_after_a_write])
def test_what_would_show_that_a_row_is_a_copy_is_refused(write):
    with pytest.raises(NotTraceable, match=r"a row taken by a tensor, as x\[k\], was changed .* or clone it"):
        ft.jit(written(write))(X, number(1))


def test_a_row_of_an_argument_is_the_arguments():
    def f(x, k):
        x[k] += 1
        return x

    with pytest.raises(SideEffect, match="x is changed in place"):
        ft.jit(f)(X, number(1))


def test_a_mask_without_axes_has_no_fixed_shape():
    with pytest.raises(NotTraceable, match="the shape of a result depends on the values"):
        ft.jit(lambda x, k: x[k])(X, torch.tensor(True))
