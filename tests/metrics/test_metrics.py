"""Metrics: against scikit-learn, and the laws of a monoid under any cut, order and padding."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, top_k_accuracy_score
from torch.fx.experimental.proxy_tensor import make_fx

from functrain import losses, metrics, tree
from functrain.errors import InvalidArgument, ShapeMismatch

CLASSES = 5
METRICS = {
    "loss": metrics.mean(losses.cross_entropy),
    "accuracy": metrics.accuracy,
    "top_2": metrics.top_k(2),
    "collection": metrics.collection({"accuracy": metrics.accuracy, "loss": metrics.mean(losses.cross_entropy)}),
}


def examples(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randn(n, CLASSES, generator=generator)
    return prediction, torch.randint(0, CLASSES, (n,), generator=generator), torch.rand(n, generator=generator)


def measure(metric, *batches):
    acc = metric.init()
    for batch in batches:
        acc = metric.update(acc, *batch)
    return acc


def assert_close(a, b):
    found = tree.differences(a, b, rtol=1e-12, atol=1e-12)
    assert not found, found


# --- against scikit-learn ---


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_are_scikit_learns(weighted):
    prediction, target, weight = examples(200)
    sample_weight = weight.numpy() if weighted else None
    batch = (prediction, target, weight) if weighted else (prediction, target)
    expected = {
        "accuracy": accuracy_score(target, prediction.argmax(-1), sample_weight=sample_weight),
        "top_2": top_k_accuracy_score(target, prediction, k=2, sample_weight=sample_weight),
        "loss": log_loss(target, prediction.double().softmax(-1), sample_weight=sample_weight),
    }
    for name, value in expected.items():
        metric = METRICS[name]
        # The loss is computed in float32 by example; counts are exact.
        assert metric.compute(measure(metric, batch)).item() == pytest.approx(
            value, rel=1e-6 if name == "loss" else 1e-12
        )


def test_any_loss_is_a_metric():
    prediction, _, weight = examples(50)
    metric = metrics.mean(losses.mse)
    target = prediction.flip(0)
    expected = mean_squared_error(target, prediction, sample_weight=weight.numpy())
    assert metric.compute(measure(metric, (prediction, target, weight))).item() == pytest.approx(expected, rel=1e-6)


def test_more_than_one_label_an_example():
    prediction, target = torch.eye(3).expand(2, 3, 3), torch.tensor([[0, 1, 2], [0, 0, 0]])
    assert metrics.accuracy.compute(measure(metrics.accuracy, (prediction, target))).item() == pytest.approx(4 / 6)
    weighted = measure(metrics.accuracy, (prediction, target, torch.tensor([1.0, 3.0])))
    assert metrics.accuracy.compute(weighted).item() == pytest.approx((3 + 3) / 12)


def test_top_1_is_accuracy_and_top_all_is_one():
    batch = examples(50)
    one, everything = metrics.top_k(1), metrics.top_k(CLASSES)
    assert_close(measure(one, batch), measure(metrics.accuracy, batch))
    assert everything.compute(measure(everything, batch)).item() == pytest.approx(1.0)


# --- laws ---


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(sorted(METRICS)),
    cuts=st.lists(st.integers(0, 40), max_size=5),
    order=st.permutations(range(6)),
    padding=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_the_result_does_not_depend_on_cut_order_and_padding(name, cuts, order, padding, seed):
    metric, (prediction, target, weight) = METRICS[name], examples(40, seed)
    edges = [0, *sorted(cuts), 40]
    parts = [slice(a, b) for a, b in pairwise(edges)]
    nan = torch.full((padding, CLASSES), float("nan"))
    accumulators = [
        measure(
            metric,
            (
                torch.cat([prediction[part], nan]),
                torch.cat([target[part], target[:padding]]),
                torch.cat([weight[part], torch.zeros(padding)]),
            ),
        )
        for part in parts
    ]
    merged = metric.init()
    for index in order:
        if index < len(accumulators):
            merged = metric.merge(merged, accumulators[index])
    assert_close(metric.compute(merged), metric.compute(measure(metric, (prediction, target, weight))))


@pytest.mark.parametrize("name", METRICS)
def test_merge_is_a_commutative_monoid(name):
    metric = METRICS[name]
    a, b, c = (measure(metric, examples(7, seed)) for seed in range(3))
    assert_close(metric.merge(metric.merge(a, b), c), metric.merge(a, metric.merge(b, c)))
    assert tree.equal(metric.merge(a, b), metric.merge(b, a))
    assert tree.equal(metric.merge(metric.init(), a), a)
    assert tree.equal(metric.merge(a, metric.init()), a)


@pytest.mark.parametrize("name", METRICS)
def test_updating_twice_is_merging(name):
    metric, one, two = METRICS[name], examples(7, 1), examples(9, 2)
    assert_close(measure(metric, one, two), metric.merge(measure(metric, one), measure(metric, two)))


@pytest.mark.parametrize("name", METRICS)
def test_nothing_is_mutated(name):
    metric, batch = METRICS[name], examples(7)
    before = metric.init()
    copy = tree.map(torch.clone, (before, batch))
    metric.compute(metric.merge(before, metric.update(before, *batch)))
    assert tree.equal((before, batch), copy)


@pytest.mark.parametrize("name", METRICS)
def test_traced_and_mapped_is_eager(name):
    metric, batch = METRICS[name], examples(7)
    expected = measure(metric, batch)
    traced = make_fx(lambda acc, *batch: metric.update(acc, *batch))(metric.init(), *examples(7, 3))
    assert_close(traced(metric.init(), *batch), expected)
    stacked = [torch.stack(pair) for pair in zip(batch, examples(7, 3), strict=True)]
    mapped = torch.func.vmap(lambda *batch: metric.compute(measure(metric, batch)))(*stacked)
    assert_close(tree.map(lambda m: m[0], mapped), metric.compute(expected))


@pytest.mark.parametrize("name", METRICS)
def test_accumulators_are_separate_float64_tensors_on_the_device_asked_for(name):
    leaves = tree.leaves(METRICS[name].init("meta"))
    assert all(leaf.dtype == torch.float64 and leaf.device.type == "meta" for leaf in leaves)
    assert len({id(leaf) for leaf in leaves}) == len(leaves)
    assert all(leaf.dtype == torch.float64 for leaf in tree.leaves(measure(METRICS[name], examples(7))))


def test_many_small_values_do_not_drown():
    metric = metrics.mean(lambda prediction, target: prediction)
    acc = measure(metric, (torch.full((1,), 2.0**24), None), *[(torch.ones(1), None)] * 3)
    assert acc.total.item() == 2**24 + 3  # in float32 it would stay 2^24


def test_nothing_seen_is_nan():
    for metric in (metrics.accuracy, METRICS["loss"]):
        assert metric.compute(metric.init()).isnan()
        prediction, target, _ = examples(3)
        assert metric.compute(measure(metric, (prediction, target, torch.zeros(3)))).isnan()


# --- bad input ---


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "2"])
def test_k_must_be_a_count(k):
    with pytest.raises(InvalidArgument, match="k must be a whole number of at least 1, got"):
        metrics.top_k(k)


def test_top_k_needs_k_classes():
    with pytest.raises(InvalidArgument, match=r"top_k\(6\) needs at least 6 classes, got 5"):
        measure(metrics.top_k(6), examples(3))


@pytest.mark.parametrize("name", ["accuracy", "top_2"])
@pytest.mark.parametrize("shape", [(3, 1), (2,), (3, CLASSES)])
def test_labels_of_another_shape_are_refused(name, shape):
    with pytest.raises(
        ShapeMismatch, match=r"one label per prediction, shape \(3,\) for a prediction of shape \(3, 5\)"
    ):
        measure(METRICS[name], (examples(3)[0], torch.zeros(shape, dtype=torch.int64)))


def test_a_function_that_reduces_is_refused():
    with pytest.raises(ShapeMismatch, match="one per example"):
        measure(metrics.mean(torch.nn.functional.mse_loss), (torch.ones(3), torch.ones(3)))


def test_a_weight_of_another_length_is_refused():
    prediction, target, _ = examples(3)
    with pytest.raises(ShapeMismatch, match=r"the values have shape \(3,\), weight has \(2,\)"):
        measure(metrics.accuracy, (prediction, target, torch.ones(2)))
