"""Operations on small tensors are called in groups, and give what they give one by one."""

import pytest
import torch

from functrain.engine import aten
from functrain.engine.trace import trace


def scaled(*tensors):
    *leaves, factor = tensors
    return [torch.sqrt(x * factor + factor) / factor for x in leaves]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_scalar_tensor_serves_the_whole_group(dtype):
    tensors = [torch.rand(3), torch.rand(4, 2), torch.rand(5), torch.tensor(0.3, dtype=dtype)]
    traced = trace(scaled, tensors, ["a", "b", "c", "factor"])
    f = aten.compile(traced.gm, traced.inputs)
    assert len([line for line in f.source.splitlines() if "[" in line and "return" not in line]) == 4
    assert all(torch.equal(a, b) for a, b in zip(f(tensors), scaled(*tensors), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scalars_of_another_dtype_are_not_grouped_with_it(dtype):
    tensors = [torch.tensor(0.5), torch.tensor(2.0), torch.tensor(0.3, dtype=dtype)]
    traced = trace(scaled, tensors, ["a", "b", "factor"])
    got = aten.compile(traced.gm, traced.inputs)(tensors)
    assert all(a.dtype == dtype and torch.equal(a, b) for a, b in zip(got, scaled(*tensors), strict=True))
