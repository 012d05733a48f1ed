"""Losses in every dtype against formulas in float64, and what is not finite."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

import functrain as ft
from functrain import losses
from functrain.errors import DtypeMismatch

INF, NAN = math.inf, math.nan
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
CLASS_WEIGHT = torch.tensor([0.5, 0.0, 2.0, 1.5])


def draw(*shape, seed=0, size=1.0):
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The formulas, written once more in float64: each takes float64 tensors and gives float64 values.


def soft(prediction, target, smoothing=0.0, factor=None):
    q = (1 - smoothing) * target.numpy() + smoothing / prediction.shape[-1]
    q = q if factor is None else q * factor.double().numpy()
    return torch.from_numpy(-(q * log_softmax(prediction.numpy(), -1)).sum(-1))


def hard(prediction, target, **options):
    return soft(prediction, torch.nn.functional.one_hot(target, prediction.shape[-1]).double(), **options)


def binary(prediction, target):
    p, t = prediction.numpy(), target.numpy()
    return torch.from_numpy(t * np.logaddexp(0, -p) + (1 - t) * np.logaddexp(0, p))


LABELS = torch.tensor([0, 1, 2, 3, 2, 0, 1])
SOFT = draw(7, 4, seed=3).softmax(-1)
CASES = {
    "labels": (losses.cross_entropy, hard, LABELS),
    "smoothed": (
        partial(losses.cross_entropy, label_smoothing=0.2, class_weight=CLASS_WEIGHT),
        partial(hard, smoothing=0.2, factor=CLASS_WEIGHT),
        LABELS,
    ),
    "probabilities": (
        partial(losses.cross_entropy, label_smoothing=0.2, class_weight=CLASS_WEIGHT),
        partial(soft, smoothing=0.2, factor=CLASS_WEIGHT),
        SOFT,
    ),
    "nll": (
        partial(losses.nll, class_weight=CLASS_WEIGHT),
        lambda p, t: -p.gather(1, t[:, None])[:, 0] * CLASS_WEIGHT.double()[t],
        LABELS,
    ),
    "mse": (losses.mse, lambda p, t: (p - t) ** 2, draw(7, 4, seed=5)),
    "mae": (losses.mae, lambda p, t: (p - t).abs(), draw(7, 4, seed=5)),
    "binary_cross_entropy": (losses.binary_cross_entropy, binary, draw(7, 4, seed=5).sigmoid()),
}


@pytest.mark.parametrize("size", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_the_formula_on_the_same_numbers(name, dtype, size):
    loss, formula, target = CASES[name]
    prediction = draw(7, 4, size=size).to(dtype)
    target = target.to(dtype) if target.is_floating_point() else target
    values = loss(prediction, target)
    exact = formula(prediction.double(), target.double() if target.is_floating_point() else target)
    wide = torch.promote_types(dtype, torch.float32)
    assert values.dtype == wide
    rtol = 1e-5 if wide == torch.float32 else 1e-9
    torch.testing.assert_close(values.double(), exact, rtol=rtol, atol=rtol * max(1.0, size) * 1e-1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_in_float64(name, dtype):
    loss, _, target = CASES[name]
    prediction = draw(7, 4).to(dtype)
    target = target.to(dtype) if target.is_floating_point() else target

    def total(p, t):
        return losses.weighted_mean(loss(p, t), torch.arange(7.0))

    gradient = ft.grad(total)(prediction, target)
    exact = ft.grad(total)(prediction.double(), target.double() if target.is_floating_point() else target)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient.double(), exact, rtol=4 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_errors_of_complex_numbers_are_their_lengths(dtype):
    p, t = (torch.complex(draw(5, seed=s), draw(5, seed=s + 1)).to(dtype) for s in (0, 2))
    torch.testing.assert_close(losses.mse(p, t).double(), (p - t).to(torch.complex128).abs() ** 2, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses.mae(p, t).double(), (p - t).to(torch.complex128).abs(), rtol=1e-5, atol=1e-6)
    at_zero = ft.grad(
        lambda p: losses.weighted_mean(losses.mse(p, t.clone())) + losses.weighted_mean(losses.mae(p, t))
    )(t)
    assert at_zero.abs().max() == 0.0
    for args in ((p, t.real), (p.real, t)):
        with pytest.raises(DtypeMismatch, match=r"must be real numbers for yes or no, got torch\.complex"):
            losses.binary_cross_entropy(*args)


# 0 log 0 is 0.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("jit", [False, True])
def test_what_has_no_share_adds_nothing(dtype, jit):
    logits = torch.tensor([[0.0, -INF], [-INF, 0.0], [1.0, -INF]], dtype=dtype)
    q = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]], dtype=dtype)
    soft, labels = losses.cross_entropy, torch.tensor([0, 0, 0])
    masked = partial(losses.cross_entropy, class_weight=torch.tensor([0.0, 1.0]))
    nll = partial(losses.nll, class_weight=torch.tensor([0.0, 1.0]))
    run = ft.jit if jit else lambda f: f
    assert run(soft)(logits, q).tolist() == [0.0, INF, INF]
    assert run(soft)(logits, labels).tolist() == [0.0, INF, 0.0]
    assert run(masked)(logits, q).tolist() == [0.0, 0.0, INF]
    assert run(masked)(logits, labels).tolist() == [0.0, 0.0, 0.0]
    assert run(nll)(logits, labels).tolist() == [0.0, 0.0, 0.0]
    smoothed = partial(losses.cross_entropy, label_smoothing=1.0, class_weight=torch.tensor([1.0, 0.0]))
    assert run(smoothed)(logits[:1], torch.tensor([1])).tolist() == [0.0]
    gradient = run(ft.grad(lambda p: losses.weighted_mean(soft(p, q[:1]))))(logits[:1])
    assert gradient.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_certain_yes_or_no_costs_nothing_where_it_is_right(dtype):
    logits = torch.tensor([INF, -INF, INF, -INF, INF, NAN], dtype=dtype)
    target = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.5, 1.0], dtype=dtype)
    values = losses.binary_cross_entropy(logits, target)
    assert values[:5].tolist() == [0.0, 0.0, INF, INF, INF] and values[5].isnan()
    gradient = ft.grad(lambda p: losses.binary_cross_entropy(p, target).sum())(logits)
    assert gradient[:5].tolist() == [0.0, 0.0, 1.0, -1.0, 0.5] and gradient[5].isnan()


def test_targets_have_gradients_too():
    p, q = draw(3, 4), draw(3, 4, seed=1).softmax(-1)
    q = torch.where(torch.eye(3, 4).bool(), 0.0, q)
    by_target = ft.grad(lambda q: losses.cross_entropy(p, q).sum())(q)
    torch.testing.assert_close(by_target, -p.log_softmax(-1))
    yes = torch.tensor([0.0, 1.0, 0.3, 0.0], dtype=torch.float64)
    torch.testing.assert_close(ft.grad(lambda t: losses.binary_cross_entropy(p[0], t).sum())(yes), -p[0])


@pytest.mark.parametrize("name", CASES)
def test_nan_is_passed_on(name):
    loss, _, target = CASES[name]
    prediction = draw(7, 4)
    prediction[2] = NAN
    values = loss(prediction, target).reshape(7, -1)
    bad = values.isnan().any(1)
    assert bad[2] and not bad[[0, 1, 3, 4, 5, 6]].any()


# Means and sums.


@pytest.mark.parametrize("weight", [None, torch.ones(32), torch.ones(32, 4096), torch.ones(32, dtype=torch.float16)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_means_of_many_are_taken_in_float32_at_least(dtype, weight):
    mean = losses.weighted_mean(torch.ones(32, 4096, dtype=dtype), weight)
    assert mean.item() == 1.0 and mean.dtype == torch.promote_types(dtype, torch.float32)
    shares = losses.shares(torch.ones(32, 64, dtype=dtype), None if weight is None else torch.ones(32))
    assert isinstance(shares, float) or (shares.dtype == dtype and shares[0, 0].item() == 1 / 2048)


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float16, torch.float64])
def test_weights_of_any_dtype_weigh_alike(kind):
    weight, values = torch.tensor([[1, 0], [1, 1], [0, 0]]).to(kind), torch.tensor([[1.0, 9.0], [2.0, 3.0], [7.0, 7.0]])
    assert losses.weighted_mean(values, weight).item() == 2.0
    assert losses.weighted_mean(values, weight[:, 0]).item() == 15.0 / 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_mean_of_short_numbers_is_the_mean(dtype):
    values = (draw(1000) * 100).to(dtype)
    weight = draw(1000, seed=1).abs()
    exact = (values.double() * weight).sum() / weight.sum()
    torch.testing.assert_close(losses.weighted_mean(values, weight).double(), exact, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(losses.weighted_mean(values).double(), values.double().mean(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weighted", ["no", "rows", "elements", "half"])
def test_the_mean_of_batches_by_their_mass_is_the_mean_of_all(weighted):
    batches, weights = [draw(3, 4), draw(5, 2, seed=1), draw(1, 7, seed=2)], [None] * 3
    if weighted != "no":
        weights = [draw(*(b.shape if weighted == "elements" else b.shape[:1]), seed=9).abs() for b in batches]
    if weighted == "half":
        weights = [(w * 20_000).half() for w in weights]
    masses = [losses.mass(b, w) for b, w in zip(batches, weights, strict=True)]
    means = [losses.weighted_mean(b, w) for b, w in zip(batches, weights, strict=True)]
    own = [
        torch.ones(b.shape) if w is None else w.double().reshape(len(b), -1)
        for b, w in zip(batches, weights, strict=True)
    ]
    spread = torch.cat([w.expand(b.shape).flatten() for b, w in zip(batches, own, strict=True)])
    exact = (torch.cat([b.flatten() for b in batches]) * spread).sum() / spread.sum()
    got = sum(mass * mean for mass, mean in zip(masses, means, strict=True)) / sum(masses)
    torch.testing.assert_close(got, exact.to(got.dtype), rtol=1e-6, atol=0)
