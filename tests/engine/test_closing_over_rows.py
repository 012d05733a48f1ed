"""What `remat` and `custom_gradient` close over, under transforms of torch.func in and around them, traced or not.

PyTorch runs such a function with the transforms numbered anew: what is closed over must not be taken for another's.
"""

import pytest
import torch

import functrain as ft
from functrain.errors import InvalidArgument

X, W = torch.arange(1, 4.0), torch.tensor([10.0, 20, 30])


def stated(f):
    @ft.custom_gradient
    def with_gradient(x):
        value, pull = torch.func.vjp(f, x)  # pyright: ignore[reportAssignmentType]
        return value, lambda cotangent: pull(cotangent)[0]

    return with_gradient


INNER = {  # of x, closing over w; some hand it to a transform inside
    "plain": lambda w: lambda x: (x * w).sum(),
    "vmap": lambda w: lambda x: ft.vmap(lambda row: row * w)(x).sum(),
    "grad": lambda w: lambda x: torch.func.grad(lambda y: (y * y * w).sum())(x).sum(),
    "jvp": lambda w: lambda x: ft.jvp(lambda y: (y * y * w).sum(), (x,), (x,))[1],
}
OUTER = {
    "grad": lambda f: torch.func.grad(lambda w: f(w)(X)),
    "jvp": lambda f: lambda w: ft.jvp(lambda w: f(w)(X), (w,), (w,))[1],
    "vmap": lambda f: lambda w: torch.func.vmap(lambda w: f(w)(X))(W * w),
    "vmap(grad": lambda f: lambda w: torch.func.vmap(lambda w: torch.func.grad(lambda x: f(w)(x))(X))(W * w),
    "grad(vmap": lambda f: torch.func.grad(lambda w: torch.func.vmap(lambda u: f(u)(X))(W * w).sum()),
    "grad(grad": lambda f: torch.func.grad(lambda w: torch.func.grad(lambda x: f(w)(x))(X).sum()),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("inner", INNER)
def test_remat_is_right_and_custom_gradient_right_or_refused(inner, outer, jit):
    run = lambda f: (ft.jit if jit else lambda g: g)(OUTER[outer](f))(torch.tensor(2.0))  # noqa: E731
    expected = run(INNER[inner])
    torch.testing.assert_close(run(lambda w: ft.remat(INNER[inner](w))), expected)
    if outer.startswith("vmap"):
        torch.testing.assert_close(run(lambda w: stated(INNER[inner](w))), expected)
    else:
        with pytest.raises(InvalidArgument, match="closes over a tensor that is being differentiated"):
            run(lambda w: stated(INNER[inner](w)))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("around", [ft.remat, stated])
@pytest.mark.parametrize("vmap", [ft.vmap, torch.func.vmap])
def test_a_row_of_one_batch_is_not_taken_for_that_of_another(around, vmap, jit):
    # Of the two axes of three, the closed-over row belongs to the outer one: the gradient is sum(c[i, j] w[i] x[j]).
    c = torch.arange(9.0).reshape(3, 3) ** 2
    table = lambda a: vmap(lambda w: vmap(lambda x: around(lambda x: w * x)(x * a))(X))(W)  # noqa: E731
    gradient = torch.func.grad(lambda a: (table(a) * c).sum())
    assert (ft.jit(gradient) if jit else gradient)(torch.tensor(1.0)) == W @ c @ X


def test_a_row_that_the_backward_pass_alone_closes_over():
    c = torch.arange(9.0).reshape(3, 3) ** 2

    def passed(w):
        return ft.custom_gradient(lambda x: (x * 1, lambda cotangent: cotangent * w))

    def table(a):
        return ft.vmap(lambda w: ft.vmap(lambda x: passed(w)(x * a))(X))(W)

    assert torch.func.grad(lambda a: (table(a) * c).sum())(torch.tensor(1.0)) == W @ c @ X
