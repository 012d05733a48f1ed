"""Products of tensors without elements, over dtypes for which some kernels do not exist."""

import pytest
import torch

from functrain.engine import jit

DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.complex64]
PRODUCTS = {
    "matmul": (
        torch.matmul,
        [((0, 3), (3, 2)), ((2, 0), (0, 2)), ((2, 0), (0,)), ((3, 2, 0), (3, 0, 2))],
    ),
    "bmm": (torch.bmm, [((3, 2, 0), (3, 0, 2)), ((0, 2, 3), (0, 3, 2))]),
    "dot": (torch.dot, [((0,), (0,))]),
    "outer": (torch.outer, [((0,), (2,)), ((0,), (0,))]),
    "linear": (torch.nn.functional.linear, [((0, 3), (2, 3)), ((2, 0), (4, 0))]),
    "addmm": (lambda x, y: torch.addmm(torch.zeros(y.shape[-1:], dtype=x.dtype), x, y), [((2, 0), (0, 2))]),
    "sum of products": (lambda x, y: (x @ y) + (x @ y), [((2, 0), (0, 2)), ((0, 3), (3, 0))]),
    "prod": (lambda x, y: x.prod(), [((0,), (0,)), ((0, 2), (0,))]),
    "cumprod": (lambda x, y: x.cumprod(0), [((0, 2), (0,))]),
    "kron": (torch.kron, [((0, 2), (2, 2))]),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_nothing_are_what_they_are_in_eager_execution_errors_included(name, dtype):
    f, shapes = PRODUCTS[name]
    for pair in shapes:
        operands = [torch.empty(shape, dtype=dtype) for shape in pair]
        try:
            expected = f(*operands)
        except Exception as error:
            with pytest.raises(type(error)):
                jit(f)(*operands)
            continue
        ours = jit(f)(*operands)
        assert (ours.dtype, ours.shape) == (expected.dtype, expected.shape)
        assert torch.equal(ours, expected)
