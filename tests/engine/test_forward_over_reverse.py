"""Forward derivatives of backward passes inside jit, against torch.autograd.functional; which argument, which value."""

import pytest
import torch
import torch.nn.functional as F

from functrain.engine import grad, hessian, jit, value_and_grad
from functrain.errors import DtypeMismatch, InvalidArgument

FORWARD_OVER_REVERSE = {
    "solve": lambda A: torch.linalg.solve(A, torch.ones(3, dtype=A.dtype)).sum(),
    "det": torch.det,
    "slogdet": lambda A: torch.linalg.slogdet(A)[1],
    "inv": lambda A: torch.linalg.inv(A).square().sum(),
    "cholesky": lambda A: torch.linalg.cholesky(A @ A.T + torch.eye(3, dtype=A.dtype)).sum(),
    "group_norm": lambda A: (F.group_norm(A[None], 3) ** 3).sum(),
    "layer_norm": lambda A: (F.layer_norm(A, [3]) ** 3).sum(),
    "softmax": lambda A: (A.softmax(0) ** 2).sum(),
    "logsumexp": lambda A: A.logsumexp(1).prod(),
}


@pytest.mark.parametrize("name", FORWARD_OVER_REVERSE)
def test_a_forward_derivative_of_a_backward_pass_is_the_same_inside_jit(name):
    f = FORWARD_OVER_REVERSE[name]
    x = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 3 * torch.eye(3).double()
    wanted = torch.autograd.functional.hessian(f, x)
    torch.testing.assert_close(jit(hessian(f))(x), wanted)
    torch.testing.assert_close(jit(torch.func.hessian(f))(x), wanted)

    def pulled(x):
        return torch.func.vjp(f, x)[1](torch.ones((), dtype=torch.float64))[0]

    product = jit(lambda x: torch.func.jvp(pulled, (x,), (x,))[1])(x)
    torch.testing.assert_close(product, torch.einsum("abij,ij->ab", wanted, x))


def test_a_negative_argnum_counts_from_the_end_and_others_are_errors():
    x, y = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])

    def f(*args):
        return torch.stack([arg.sum() for arg in args]).prod()

    value, gradient = value_and_grad(f, -1)(x, y)
    assert (float(value), gradient.tolist()) == (21.0, [3.0, 3.0])
    for argnum in (2, -3, True, "a", (0, 1)):
        with pytest.raises(InvalidArgument, match="argnum must be the position of one of the 2 arguments"):
            value_and_grad(f, argnum)(x, y)


def test_the_gradient_of_a_complex_value_is_refused():
    with pytest.raises(DtypeMismatch, match="must return a real number, got a complex one"):
        grad(lambda z: (z**2).sum())(torch.ones(2, dtype=torch.complex64))
