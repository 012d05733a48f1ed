"""Metrics in every dtype against scikit-learn, with weights of rows and elements; their shape contracts; NaN."""

import math

import pytest
import torch
from sklearn.metrics import accuracy_score, mean_absolute_error, top_k_accuracy_score

import functrain as ft
from functrain import losses, metrics
from functrain.errors import DtypeMismatch, ShapeMismatch

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
N, CLASSES = 40, 6


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABELS = torch.randint(0, CLASSES, (N,), generator=torch.Generator().manual_seed(1))
WEIGHT = draw(N, seed=2).abs()


def measure(metric, prediction, target, weight=None, cut=N):
    acc = metric.init()
    for rows in torch.arange(len(prediction)).split(cut):
        acc = metric.update(acc, prediction[rows], target[rows], None if weight is None else weight[rows])
    return float(metric.compute(acc))


@pytest.mark.parametrize("cut", [N, 7])
@pytest.mark.parametrize("weight", [None, WEIGHT, WEIGHT.half(), WEIGHT > 0.5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_accuracy_and_top_k_are_scikit_learns(dtype, weight, cut):
    prediction = draw(N, CLASSES).to(dtype)
    own = None if weight is None else weight.double().numpy()
    scores = prediction.double().numpy()
    exact = accuracy_score(LABELS, scores.argmax(1), sample_weight=own)
    assert measure(metrics.accuracy, prediction, LABELS, weight, cut) == pytest.approx(exact, abs=1e-12)
    exact = top_k_accuracy_score(LABELS, scores, k=3, sample_weight=own, labels=range(CLASSES))
    assert measure(metrics.top_k(3), prediction, LABELS, weight, cut) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_means_of_losses_are_scikit_learns(dtype):
    p, t = (draw(4000, seed=s).to(dtype) * 100 for s in (0, 1))
    weight = draw(4000, seed=2).abs()
    exact = mean_absolute_error(t.double(), p.double(), sample_weight=weight)
    assert measure(metrics.mean(losses.mae), p, t, weight, 333) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("name", ["accuracy", "top_2", "loss"])
def test_weights_of_elements_weigh_each_element(name):
    metric = {"accuracy": metrics.accuracy, "top_2": metrics.top_k(2), "loss": metrics.mean(losses.cross_entropy)}[name]
    tokens, target = draw(N // 4, 4, CLASSES), LABELS.view(N // 4, 4)
    flat = measure(metric, tokens.flatten(0, 1), LABELS, WEIGHT)
    assert measure(metric, tokens, target, WEIGHT.view(N // 4, 4), 3) == pytest.approx(flat, rel=1e-12)
    by_row = measure(metric, tokens.flatten(0, 1), LABELS, WEIGHT[: N // 4].repeat_interleave(4))
    assert measure(metric, tokens, target, WEIGHT[: N // 4]) == pytest.approx(by_row, rel=1e-12)
    with pytest.raises(ShapeMismatch, match=r"the values have shape \(40,\), weight has \(40, 2\)"):
        metric.update(metric.init(), tokens.flatten(0, 1), LABELS, torch.ones(40, 2))


@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.top_k(1), metrics.top_k(2)])
def test_a_prediction_that_holds_nan_hits_nothing(metric):
    # PyTorch takes NaN for the largest of all, so the label at its place would be a hit.
    prediction = torch.tensor([[0.0, math.nan, 1.0], [3.0, 1.0, 0.0], [math.inf, 0.0, -math.inf]])
    for label in range(3):
        target = torch.tensor([label, 0, 0])
        assert measure(metric, prediction, target) == pytest.approx(2 / 3)
        assert ft.jit(metric.measure)(prediction, target).tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.top_k(1)])
@pytest.mark.parametrize(
    ("prediction", "target", "error", "message"),
    [
        (torch.zeros(5, 1), torch.zeros(5).long(), ShapeMismatch, r"one class alone, shape \(5, 1\).*for yes or no"),
        (torch.zeros(5, 4, 1), torch.zeros(5, 4).long(), ShapeMismatch, "one class alone"),
        (torch.zeros(5), torch.zeros(5).long(), ShapeMismatch, r"one label per prediction, shape \(\)"),
        (torch.zeros(5, 3), torch.zeros(5, 1).long(), ShapeMismatch, r"shape \(5,\) .* got \(5, 1\)"),
        (torch.zeros(5, 3), torch.zeros(5, 3), ShapeMismatch, "one label per prediction"),
        (torch.zeros(5, 3), torch.zeros(5), DtypeMismatch, r"target must be integer labels, got torch.float32"),
        (torch.zeros(5, 3) * 1j, torch.zeros(5).long(), DtypeMismatch, "prediction must be real numbers"),
    ],
)
def test_what_is_no_choice_among_classes_is_refused(metric, prediction, target, error, message):
    with pytest.raises(error, match=message):
        metric.update(metric.init(), prediction, target)


def test_yes_or_no_by_the_remedy_of_the_message():
    metric = metrics.mean(lambda prediction, target: (prediction > 0) == target)
    prediction, target = draw(9), draw(9, seed=1) > 0
    exact = accuracy_score(target, prediction > 0)
    assert measure(metric, prediction, target) == pytest.approx(exact)


def test_complex_values_have_no_mean_here():
    metric = metrics.mean(lambda prediction, target: prediction - target)
    with pytest.raises(DtypeMismatch, match=r"values must be real numbers, got torch\.complex64"):
        metric.update(metric.init(), torch.ones(2) * 1j, torch.ones(2))
