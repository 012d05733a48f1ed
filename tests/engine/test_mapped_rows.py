"""Rows by a number that vmap maps over, without jit: what a loop over the batch gives, or a refusal in words."""

import operator

import pytest
import torch
from torch.autograd import forward_ad

import functrain as ft
from functrain.errors import InvalidArgument, SideEffect

X = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
K = torch.tensor([0, 2, -2, 1, -1])
ROWS = torch.tensor([[0, 1], [1, 2], [2, 2], [0, 0], [1, 0]])
V = torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(1))


def by_loop(f, *args):
    return torch.stack([f(*row) for row in zip(*args, strict=True)])


READS = {
    "a row": lambda x, k: x[k],
    "the last axis": lambda x, k: x[..., k],
    "two": lambda x, k: x[k, k],
    "two apart": lambda x, k: x[k, :, k],
    "a new axis": lambda x, k: x[k, None, k],
    "a list beside it": lambda x, k: x[k, [0, 2]],
    "a list apart": lambda x, k: x[k, :, [0, 2]],
    "a list before": lambda x, k: x[[0, 2], :, k],
    "a tensor apart": lambda x, k: x[k, :, torch.tensor([[0], [2]])],
    "computed": lambda x, k: x[x.sum((1, 2)).argmax(), k % 3],
    "a clone": lambda x, k: (lambda y: (y[k].clone(), y.mul_(2))[0])(x.clone()),
}


def put(*index):
    """A function that writes to x[...] in three ways, where a letter of the index stands for the number."""

    def f(x, k, v):
        y, at = x.clone(), tuple(k if part == "k" else part for part in index)
        y[at] += v.sum()
        y[at] = y[at] * torch.arange(y[at].numel()).reshape(y[at].shape)
        y[at] = y[at].flip(0) if y[at].dim() else 3
        return y

    return f


WRITES = {
    "a row": put("k"),
    "a slice": put("k", slice(1, 3)),
    "two apart": put("k", slice(None), "k"),
    "a list beside it": put("k", [0, 2]),
    "a list apart": put("k", slice(None), [0, 2]),
    "an exchange": lambda x, k, v: exchanged(x.clone(), k),
}


def exchanged(y, k):
    before = y[k].clone()
    y[k] = y[0]
    y[0] = before
    return y


@pytest.mark.parametrize("name", READS)
def test_reads(name):
    f = READS[name]
    expected = by_loop(f, X, K)
    assert torch.equal(ft.vmap(f)(X, K), expected)
    shared = ft.vmap(f, (None, 0))(X[0], K)
    assert torch.equal(shared, torch.stack([f(X[0], k) for k in K]))
    gradients = ft.vmap(ft.grad(lambda x, k: (f(x, k) ** 2).sum()))(X, K)
    assert torch.equal(gradients, by_loop(ft.grad(lambda x, k: (f(x, k) ** 2).sum()), X, K))


@pytest.mark.parametrize("name", WRITES)
def test_writes(name):
    f = WRITES[name]
    torch.testing.assert_close(ft.vmap(f)(X, K, V), by_loop(f, X, K, V), rtol=0, atol=0)


@pytest.mark.parametrize(
    "index", [lambda i: (i, slice(None), [0, 2]), lambda i: (i, slice(None), i), lambda i: (..., i)]
)
@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0)])
def test_indices_with_axes_are_pytorchs_own(index, dims):
    args = [a if d == 0 else a[0] for a, d in zip((X, ROWS), dims, strict=True)]
    each = [[a[n] if d == 0 else a for a, d in zip(args, dims, strict=True)] for n in range(5)]
    f = lambda x, i: x[index(i)]  # noqa: E731
    assert torch.equal(ft.vmap(f, dims)(*args), torch.stack([f(*one) for one in each]))


def test_per_example_gradients_of_a_loss_by_label():
    def loss(w, x, y):
        return -(w @ x).log_softmax(0)[y]

    w, x, y = X[0, 0, :3], X[:, 0, 0], K % 3
    expected = by_loop(lambda x, y: ft.grad(loss)(w, x, y), x, y)
    torch.testing.assert_close(ft.vmap(ft.grad(loss), (None, 0, 0))(w, x, y), expected)
    torch.testing.assert_close(ft.vmap(ft.vmap(ft.grad(loss), (None, 0, 0)))(w[None], x[None], y[None])[0], expected)


@pytest.mark.parametrize("run", [ft.vmap, lambda f: ft.jit(ft.vmap(f))])
def test_out_of_range(run):
    for f in (READS["a row"], lambda x, k: WRITES["a list apart"](x, k, x)):
        with pytest.raises(IndexError, match=r"index 3 is out of bounds for dimension . with size 3"):
            run(f)(X, K + 1)


def through_a_row(y, k):
    y[k].mul_(2)
    return y


def part_of_a_row(y, k):
    y[k][1:] = 2
    return y


def never_put_back(y, k):
    row = y[k]
    row += 1
    return row


def read_after_a_write(y, k):
    row = y[k]
    y.mul_(2)
    return row


def part_read_after_a_write(y, k):
    row = y[k][1:]
    y += 1
    return torch.sin(row)


OPERATORS = [operator.eq, operator.ne, operator.lt, operator.add, operator.matmul, operator.iadd]


@pytest.mark.parametrize("compute", OPERATORS, ids=lambda compute: compute.__name__)
def test_an_operator_does_not_swallow_the_refusal(compute):
    # PyTorch hands a TypeError over to Python, which then compares the objects: `row == 0` would be False.
    def f(x, k):
        row = x[k]
        x.zero_()
        return torch.zeros(()) + torch.as_tensor(compute(row, torch.ones(4, 4)))

    with pytest.raises(SideEffect, match=r"a row taken by a number that vmap maps over"):
        ft.vmap(lambda x, k: f(x.clone(), k))(X, K)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(
    "f", [through_a_row, part_of_a_row, never_put_back, read_after_a_write, part_read_after_a_write]
)
def test_what_would_show_that_a_row_is_a_copy_is_refused(f, inference):
    with (
        torch.inference_mode(inference),
        pytest.raises(SideEffect, match=r"a row taken by a number that vmap maps over"),
    ):
        ft.vmap(lambda x, k: f(x.clone(), k))(X, K)


def beside_a_list(x, k):
    return x[k, :, [0, 2]] * x[:, k, [1, 1]].sum()


def stated(x, k):
    value, pull = torch.func.vjp(lambda x: beside_a_list(x, k), x)  # pyright: ignore[reportAssignmentType]
    return value, lambda cotangent: (pull(cotangent)[0], None)


@pytest.mark.parametrize("around", [ft.remat(beside_a_list), ft.custom_gradient(stated)], ids=["remat", "custom"])
def test_rows_are_the_same_within_a_function_that_autograd_calls(around):
    def slope(f):
        return lambda x, k: ft.grad(lambda x: (f(x, k) ** 2).sum())(x)

    numbers = K % 3  # an axis of three, and one of four
    torch.testing.assert_close(ft.vmap(around)(X, numbers), looped(beside_a_list, numbers))
    wanted = looped(slope(beside_a_list), numbers)
    torch.testing.assert_close(ft.vmap(slope(around))(X, numbers), wanted)
    total = ft.grad(lambda x: (ft.vmap(around)(x, numbers) ** 2).sum())
    torch.testing.assert_close(total(X), wanted)


def looped(f, numbers):
    return torch.stack([f(x, k) for x, k in zip(X, numbers, strict=True)])


SHARED = {
    "x[k] = v": lambda x, k: torch.zeros(3).__setitem__(k % 3, x[0, 0, 0]),
    "x[[k]] = v": lambda x, k: torch.zeros(3).__setitem__((k % 3).reshape(1), x[0, 0, 0]),
    "add_": lambda x, k: torch.zeros(3, 4, 4).add_(x),
    "scatter_": lambda x, k: torch.zeros(3).scatter_(0, (k % 3).reshape(1), 1.0),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", SHARED)
def test_a_write_of_rows_to_what_all_share_is_refused_with_the_remedy(name, jit):
    f = ft.vmap(lambda x, k: (SHARED[name](x, k), x)[1])
    with pytest.raises(SideEffect, match=r"vmap: .* writes what differs by row .* as x.new_zeros\(shape\)"):
        (ft.jit(f) if jit else f)(X, K)


@pytest.mark.parametrize("jit", [False, True])
def test_out_is_refused_with_the_remedy(jit):
    f = ft.vmap(lambda x, k: torch.add(x, 1, out=torch.empty(3, 4, 4)))
    with pytest.raises(InvalidArgument, match=r"vmap: add is called with out=.*use what the function returns"):
        (ft.jit(f) if jit else f)(X, K)


def test_dual_numbers_by_hand_are_refused_with_the_remedy():
    with forward_ad.dual_level(), pytest.raises(InvalidArgument, match=r"make no dual numbers .* by functrain's jvp"):
        ft.vmap(lambda x: forward_ad.make_dual(x, x))(X)


AT = {  # where the axes of the indices do not stand first
    "after a slice": lambda i: (slice(1, 3), i),
    "after a number": lambda i: (1, slice(None), i),
    "between": lambda i: (slice(None), i, slice(1, 3)),
    "after all": lambda i: (..., i),
    "with a list": lambda i: (slice(None), i, [0, 3]),
    "apart": lambda i: (i, slice(None), [0, 3]),
    "a list alone": lambda i: (slice(None), [0, 3]),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", AT)
def test_values_are_written_in_the_order_of_their_axes(name, jit):
    def f(x, i):
        y, at = x.clone(), AT[name](i)
        y[at] = torch.arange(y[at].numel(), dtype=y.dtype).view(y[at].shape) * x[0, 0, 0]
        return y

    mapped = ft.vmap(f)
    assert torch.equal((ft.jit(mapped) if jit else mapped)(X, ROWS), by_loop(f, X, ROWS))
