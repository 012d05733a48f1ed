"""Shapes, dtypes and arguments of draws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

import functrain as ft
from functrain import random
from functrain.errors import InvalidArgument, ShapeMismatch

DOUBLE = torch.float64
THREE = torch.tensor([0.5, 0.2, 0.3]).log()


@given(st.lists(st.integers(0, 4), max_size=4).map(tuple))
@settings(max_examples=25, deadline=None)
def test_a_draw_has_the_shape_that_was_asked_for(shape):
    key = random.key(0)
    draws = [random.bits(key, shape), random.uniform(key, shape), random.normal(key, list(shape))]
    draws += [random.truncated_normal(key, shape), random.bernoulli(key, 0.5, shape), random.randint(key, shape, 0, 9)]
    draws += [random.categorical(key, THREE, shape), random.uniform(key, shape, dtype=DOUBLE)]
    assert {(draw.shape, draw.is_contiguous()) for draw in draws} == {(torch.Size(shape), True)}


def test_the_shape_of_bernoulli_is_that_of_p():
    assert random.bernoulli(random.key(0)).shape == ()
    assert random.bernoulli(random.key(0), torch.full((2, 3), 0.5)).shape == (2, 3)


@pytest.mark.parametrize("shape", [-1, (2, -1), 2.0, (2.0,), "ab", True, None, torch.tensor(3)])
def test_a_shape_that_is_none(shape):
    with pytest.raises(InvalidArgument, match="shape must be an integer of at least 0 or a tuple"):
        random.uniform(random.key(0), shape)


@pytest.mark.parametrize("draw", [random.uniform, random.normal, random.truncated_normal])
def test_a_dtype_that_is_not_drawn(draw):
    with pytest.raises(InvalidArgument, match=r"dtype must be one of torch.float64.*got torch.int64"):
        draw(random.key(0), 3, dtype=torch.int64)


@pytest.mark.parametrize("draw", [random.uniform, random.truncated_normal])
def test_limits_that_are_wrong(draw):
    key, one = random.key(0), torch.ones(3)
    for low, high in (
        (1.0, 1.0),
        (2.0, 1.0),
        (math.nan, 1.0),
        (1.0, 1 + 1e-12),
        (one, one),
        (0.0, torch.tensor([1.0, -1.0, 1.0])),
    ):
        with pytest.raises(InvalidArgument, match=r"low must be below high in torch\.float32"):
            draw(key, 3, low, high)
    with pytest.raises(InvalidArgument, match="high must be a number or a tensor, got 'a'"):
        draw(key, 3, 0.0, "a")
    with pytest.raises(ShapeMismatch, match=r"low of shape \(3,\) must broadcast to the shape of the draw, \(2,\)"):
        draw(key, 2, torch.zeros(3), 2.0)
    with pytest.raises(ShapeMismatch, match="must broadcast"):
        draw(key, (), torch.zeros(3), 2.0)


def test_limits_that_are_numbers_are_checked_in_a_trace_too():
    with pytest.raises(InvalidArgument, match="low must be below high"):
        make_fx(lambda key: random.uniform(key, 3, 2.0, 1.0))(random.key(0))


@pytest.mark.parametrize(("low", "high"), [(-math.inf, 0.0), (0.0, math.inf), (-3e38, 3e38)])
def test_uniform_over_an_infinite_range(low, high):
    with pytest.raises(InvalidArgument, match=r"high - low must be finite in torch.float32"):
        random.uniform(random.key(0), 3, low, high)
    with pytest.raises(InvalidArgument, match=r"high - low must be finite"):
        make_fx(lambda key: random.uniform(key, 3, low, high))(random.key(0))
    with pytest.raises(InvalidArgument, match=r"high - low must be finite"):
        random.uniform(random.key(0), 3, torch.tensor(low), high)


def test_truncated_normal_where_nothing_is_left():
    with pytest.raises(InvalidArgument, match=r"no probability is left between low=50\.0 and high=60\.0"):
        random.truncated_normal(random.key(0), 3, 50.0, 60.0)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan, True, "a", None])
def test_p_that_is_no_probability(p):
    with pytest.raises(InvalidArgument, match="p must be a probability from 0 to 1"):
        random.bernoulli(random.key(0), p, 3)


@pytest.mark.parametrize("p", [torch.tensor([0.5, 1.5]), torch.tensor(math.nan), torch.tensor([1, 0])])
def test_a_tensor_that_holds_no_probabilities(p):
    with pytest.raises(InvalidArgument, match="p must be floating-point probabilities from 0 to 1"):
        random.bernoulli(random.key(0), p)


def test_p_that_does_not_fit_the_shape():
    with pytest.raises(ShapeMismatch, match=r"p of shape \(3,\) must broadcast"):
        random.bernoulli(random.key(0), torch.full((3,), 0.5), (2,))


@pytest.mark.parametrize(
    ("low", "high"), [(3, 3), (4, 3), (torch.tensor(4), 3), (torch.tensor([1, 4]), torch.tensor(3))]
)
def test_randint_of_an_empty_range(low, high):
    with pytest.raises(InvalidArgument, match="low must be below high"):
        random.randint(random.key(0), 2, low, high)


@pytest.mark.parametrize("high", [2.0, True, 2**63, torch.tensor(2.0), None])
def test_randint_with_a_limit_that_is_no_integer(high):
    with pytest.raises(InvalidArgument, match="high must be an integer of 64 bits with sign or a tensor of such"):
        random.randint(random.key(0), 3, 0, high)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.uint64, np.int32])
def test_randint_takes_numpys_integers(kind):
    expected = random.randint(random.key(0), 9, 3, 200)
    assert torch.equal(random.randint(random.key(0), 9, kind(3), kind(200)), expected)
    assert torch.equal(random.randint(random.key(0), 9, low=kind(3), high=200), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int16, torch.int64])
def test_randint_takes_tensors_of_any_integers(dtype):
    low, high = torch.tensor([3, 5], dtype=dtype), torch.tensor([200, 201], dtype=dtype)
    expected = random.randint(random.key(0), (4, 2), low.long(), high.long())
    for limits in ((low, high), (low, high.long()), (low.long(), high)):
        assert torch.equal(random.randint(random.key(0), (4, 2), *limits), expected)
    assert torch.equal(ft.jit(lambda key, a, b: random.randint(key, (4, 2), a, b))(random.key(0), low, high), expected)
    with pytest.raises(InvalidArgument, match="low must be below high"):
        random.randint(random.key(0), (4, 2), high, low)


@pytest.mark.parametrize("limit", [np.uint64(2**63), torch.tensor([1, 2**63], dtype=torch.uint64)])
def test_randint_with_a_limit_beyond_64_bits_with_sign(limit):
    with pytest.raises(InvalidArgument, match="high must be an integer of 64 bits with sign"):
        random.randint(random.key(0), 2, 0, limit)


def test_randint_with_limits_that_do_not_fit_the_shape():
    with pytest.raises(ShapeMismatch, match="high of shape"):
        random.randint(random.key(0), 3, 0, torch.arange(1, 3))


@pytest.mark.parametrize("of", [-1, 2.0, True, None, torch.tensor(3)])
def test_a_permutation_of_nothing(of):
    with pytest.raises(
        InvalidArgument, match="a permutation is of an integer of at least 0 or of a tensor with an axis"
    ):
        random.permutation(random.key(0), of)


@pytest.mark.parametrize("row", [[-math.inf, -math.inf], [math.nan, 0.0], [math.inf, 0.0]])
def test_logits_that_no_class_can_be_drawn_from(row):
    with pytest.raises(InvalidArgument, match=r"NaN or \+inf, or nothing but -inf"):
        random.categorical(random.key(0), torch.tensor([[0.0, 0.0], row]))


def test_logits_of_the_wrong_kind():
    key = random.key(0)
    for logits in (torch.arange(3), [0.5, 0.5]):
        with pytest.raises(InvalidArgument, match="logits must be a floating-point tensor"):
            random.categorical(key, logits)
    for logits, axis in ((torch.zeros(2, 0), -1), (torch.zeros(2), 1), (torch.zeros(()), -1)):
        with pytest.raises(InvalidArgument, match="must hold the classes, at least one"):
            random.categorical(key, logits, axis=axis)
    with pytest.raises(ShapeMismatch, match=r"logits, without the axis, of shape \(4,\) must broadcast"):
        random.categorical(key, torch.zeros(4, 3), (5,))


def test_gradients_flow_through_the_limits():
    high = torch.tensor(3.0, requires_grad=True)
    key = random.key(0)
    random.uniform(key, 5, 0.0, high).sum().backward()
    assert high.grad is not None
    torch.testing.assert_close(high.grad, random.uniform(key, 5).sum())


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, math.nan, True, "a", None, torch.tensor(1.0), torch.tensor(-0.5)])
def test_a_rate_of_dropout_that_is_none(rate):
    with pytest.raises(InvalidArgument, match="rate must be at least 0 and below 1, got"):
        random.dropout_mask(random.key(0), rate, 3)


@pytest.mark.parametrize("rate", [torch.tensor([0.5]), torch.tensor(0)])
def test_a_rate_of_dropout_that_is_no_number(rate):
    with pytest.raises(InvalidArgument, match=r"rate must be a number or a floating-point tensor of one, got torch\."):
        random.dropout_mask(random.key(0), rate, 3)


def test_a_mask_has_a_floating_point_dtype_and_a_shape():
    with pytest.raises(InvalidArgument, match="dtype must be one of"):
        random.dropout_mask(random.key(0), 0.5, 3, torch.int64)
    with pytest.raises(InvalidArgument, match="shape must be"):
        random.dropout_mask(random.key(0), 0.5, -1)
