"""Operations on small tensors are called in groups, and give what they give one by one."""

import pytest
import torch

from functrain.engine.backends import aten
from functrain.engine.graph.passes.fusing import fuse
from functrain.engine.graph.passes.simplifying import simplify
from functrain.engine.tracing.to_graph import trace


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


LARGE = torch.randn(130, 130, generator=torch.Generator().manual_seed(0))
SUMS = {
    "p - k g": (lambda p, a, b: [p - 0.1 * (a @ b)], 1),
    "p + g": (lambda p, a, b: [p + a @ b], 1),
    "g + k p": (lambda p, a, b: [torch.add(a @ b, p, alpha=0.9)], 1),
    "g - k p": (lambda p, a, b: [torch.sub(a @ b, p, alpha=0.5)], 1),
    "a product that is used twice": (lambda p, a, b: [p - 0.1 * (a @ b), (a @ b).sum()], 0),
    "a broadcast sum": (lambda p, a, b: [p[0] + a @ b, p], 0),
    "a parameter that its gradient needs": (lambda p, a, b: [p - 0.1 * (p @ (p @ b))], 1),
}


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("donated", [(), ((0, 0),)])
def test_a_matrix_product_is_added_as_it_is_computed(name, donated):
    f, count = SUMS[name]
    traced = trace(f, [LARGE] * 3)
    run = aten.compile(traced.gm, traced.inputs, donated)
    fused = fuse(simplify(trace(f, [LARGE] * 3).gm))
    assert sum(n.target is torch.ops.aten.addmm.default for n in fused.graph.nodes) == count
    inputs = [LARGE.clone(), LARGE.t().contiguous(), LARGE / 2]
    expected = f(*(x.clone() for x in inputs))
    given = [x.clone() for x in inputs]
    torch.testing.assert_close(run(given), expected, rtol=1e-5, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(given[len(donated) :], inputs[len(donated) :], strict=True))


def test_the_sum_is_computed_in_the_memory_of_the_parameter():
    traced = trace(SUMS["p - k g"][0], [LARGE] * 3)
    assert ".addmm_(" in aten.compile(traced.gm, traced.inputs, ((0, 0),)).source
    assert ".addmm_(" not in aten.compile(traced.gm, traced.inputs).source
