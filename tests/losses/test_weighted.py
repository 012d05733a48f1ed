"""Weighted sums: the formula, and that zero weight leaves no trace."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain import weighted
from functrain.errors import ShapeMismatch


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.sampled_from([(), (3,), (2, 2)]), st.integers(0, 1000))
def test_it_is_the_sum_of_weight_times_value(n, trailing, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n, *trailing, generator=generator, dtype=torch.float64)
    weight = torch.rand(n, generator=generator, dtype=torch.float64)
    total, mass = weighted.total(values, weight)
    spread = weight.view(n, *[1] * len(trailing)).expand_as(values)
    torch.testing.assert_close(total, (values * spread).sum())
    torch.testing.assert_close(mass, spread.sum())


def test_without_weights_each_value_counts_once():
    total, mass = weighted.total(torch.ones(2, 3))
    assert (float(total), mass) == (6.0, 6.0)


def test_weights_of_all_leading_axes():
    total, mass = weighted.total(torch.tensor([[1.0, 2.0], [4.0, 8.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert (float(total), float(mass)) == (9.0, 2.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_value_of_zero_weight_leaves_no_trace_in_the_sum_or_the_gradient(bad):
    values = torch.tensor([1.0, bad, 2.0], requires_grad=True)
    total, mass = weighted.total(values, torch.tensor([1.0, 0.0, 2.0]))
    assert (total.item(), mass.item()) == (5.0, 3.0)
    assert torch.autograd.grad(total, values)[0].tolist() == [1.0, 0.0, 2.0]


def test_booleans_and_other_dtypes_sum_in_the_dtype_asked_for():
    total, mass = weighted.total(torch.tensor([True, False, True]), torch.tensor([0.5, 1.0, 1.0]), torch.float64)
    assert total.dtype == mass.dtype == torch.float64
    assert (float(total), float(mass)) == (1.5, 2.5)
    total, _ = weighted.total(torch.ones(2), torch.ones(2, dtype=torch.float64))
    assert total.dtype == torch.float32


def test_a_scalar_is_refused():
    with pytest.raises(ShapeMismatch, match=r"one per example, shape \(n, \.\.\.\), got a scalar.*reduction='none'"):
        weighted.total(torch.tensor(1.0))


@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (2, 3, 1)])
def test_a_weight_of_another_shape_is_refused(shape):
    with pytest.raises(ShapeMismatch, match=r"weight must have the leading axes.*\(2, 3\), weight has"):
        weighted.total(torch.ones(2, 3), torch.ones(shape))
