"""Losses against torch.nn.functional, in values and gradients; the weighted reduction; and bad targets."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from toolz import curry
from torch.fx.experimental.proxy_tensor import make_fx

from functrain import losses
from functrain.errors import DtypeMismatch, InvalidArgument, LabelOutOfRange, ShapeMismatch

N, CLASSES = 6, 4
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.0], dtype=torch.float64)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(*shape, seed=0):
    return torch.randint(0, CLASSES, shape, generator=torch.Generator().manual_seed(seed))


def value_and_gradient(loss, prediction, target):
    prediction = prediction.clone().requires_grad_()
    values = loss(prediction, target)
    (gradient,) = torch.autograd.grad(
        (values * torch.arange(1.0, values.numel() + 1).view_as(values)).sum(), prediction
    )
    return values.detach(), gradient


def assert_same(ours, theirs, prediction, target):
    for a, b in zip(
        value_and_gradient(ours, prediction, target), value_and_gradient(theirs, prediction, target), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# --- against PyTorch ---


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_logsumexp_and_log_softmax_are_pytorchs(axis):
    x = draw(3, 5)
    torch.testing.assert_close(losses.logsumexp(x, axis), x.exp().sum(axis).log(), rtol=1e-12, atol=0)
    torch.testing.assert_close(losses.log_softmax(x, axis), F.log_softmax(x, axis), rtol=0, atol=0)
    expected = x - losses.logsumexp(x, axis).unsqueeze(axis)
    torch.testing.assert_close(losses.log_softmax(x, axis), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1e4, -1e4, 1e30])
def test_logits_of_any_size_are_stable(size):
    x = torch.tensor([[size, size, size, size], [size, 0.0, 0.0, 0.0]])
    assert losses.logsumexp(x).isfinite().all()
    assert losses.cross_entropy(x, torch.tensor([1, 0]))[0].item() == pytest.approx(math.log(4))
    values, gradient = value_and_gradient(losses.cross_entropy, x, torch.tensor([1, 2]))
    assert values.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("class_weight", [None, WEIGHTS])
@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_cross_entropy_is_pytorchs(smoothing, class_weight, kind):
    target = labels(N) if kind == "labels" else draw(N, CLASSES, seed=1).softmax(-1)
    ours = partial(losses.cross_entropy, label_smoothing=smoothing, class_weight=class_weight)
    theirs = partial(F.cross_entropy, label_smoothing=smoothing, weight=class_weight, reduction="none")
    assert_same(ours, theirs, draw(N, CLASSES), target)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_cross_entropy_takes_more_axes_with_the_classes_last(smoothing, kind):
    prediction = draw(N, 3, 2, CLASSES)
    target = labels(N, 3, 2) if kind == "labels" else draw(N, 3, 2, CLASSES, seed=1).softmax(-1)

    def theirs(prediction, target):
        target = target if kind == "labels" else target.movedim(-1, 1)
        return F.cross_entropy(prediction.movedim(-1, 1), target, reduction="none", label_smoothing=smoothing)

    assert losses.cross_entropy(prediction, target).shape == (N, 3, 2)
    assert_same(partial(losses.cross_entropy, label_smoothing=smoothing), theirs, prediction, target)


@pytest.mark.parametrize("class_weight", [None, WEIGHTS])
@pytest.mark.parametrize("axes", [(), (3,)])
def test_nll_is_pytorchs_and_completes_log_softmax(class_weight, axes):
    prediction, target = draw(N, *axes, CLASSES), labels(N, *axes)
    ours = partial(losses.nll, class_weight=class_weight)
    theirs = partial(losses.cross_entropy, class_weight=class_weight)
    assert ours(prediction, target).shape == target.shape
    assert_same(lambda p, t: ours(losses.log_softmax(p), t), theirs, prediction, target)


def test_nll_picks_by_the_label_as_integer_indexing_does():
    log_probability, target = losses.log_softmax(draw(N, CLASSES)), labels(N)
    torch.testing.assert_close(losses.nll(log_probability, target), -log_probability[range(N), target])


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32])
def test_labels_of_any_integer_dtype_are_the_same(dtype):
    prediction, target = draw(N, CLASSES), labels(N)
    for loss in (losses.nll, losses.cross_entropy):
        assert torch.equal(loss(prediction, target.to(dtype)), loss(prediction, target))


PAIRS = {
    "mse": (losses.mse, F.mse_loss),
    "mae": (losses.mae, F.l1_loss),
    "binary_cross_entropy": (losses.binary_cross_entropy, F.binary_cross_entropy_with_logits),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shape", [(N,), (N, 1), (N, 3, 2)])
def test_regression_and_binary_losses_are_pytorchs_by_element(name, shape):
    ours, theirs = PAIRS[name]
    prediction, target = draw(*shape), draw(*shape, seed=1).sigmoid()
    assert ours(prediction, target).shape == shape
    assert_same(ours, partial(theirs, reduction="none"), prediction, target)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_binary_targets_need_not_be_floats(dtype):
    target = torch.tensor([0, 1, 1])
    expected = losses.binary_cross_entropy(draw(3), target.double())
    assert torch.equal(losses.binary_cross_entropy(draw(3), target.to(dtype)), expected)


def test_binary_cross_entropy_is_stable():
    values = losses.binary_cross_entropy(torch.tensor([1e4, -1e4, 1e4]), torch.tensor([1.0, 0.0, 0.0]))
    assert values.tolist() == [0.0, 0.0, 1e4]


# --- laws: curry, vmap, trace ---


def test_options_can_be_fixed_before():
    prediction, target = draw(N, CLASSES), labels(N)
    expected = losses.cross_entropy(prediction, target, label_smoothing=0.1)
    assert torch.equal(partial(losses.cross_entropy, label_smoothing=0.1)(prediction, target), expected)
    assert torch.equal(curry(losses.cross_entropy)(label_smoothing=0.1)(prediction, target), expected)


CASES = {
    "cross_entropy": (losses.cross_entropy, draw(5, N, CLASSES), labels(5, N)),
    "smoothed": (partial(losses.cross_entropy, label_smoothing=0.1), draw(5, N, CLASSES), labels(5, N)),
    "weighted": (partial(losses.cross_entropy, class_weight=WEIGHTS), draw(5, N, CLASSES), labels(5, N)),
    "probabilities": (losses.cross_entropy, draw(5, N, CLASSES), draw(5, N, CLASSES, seed=1).softmax(-1)),
    "nll": (losses.nll, draw(5, N, CLASSES), labels(5, N)),
    "mse": (losses.mse, draw(5, N, 2), draw(5, N, 2, seed=1)),
    "mae": (losses.mae, draw(5, N, 2), draw(5, N, 2, seed=1)),
    "binary_cross_entropy": (losses.binary_cross_entropy, draw(5, N, 2), draw(5, N, 2, seed=1).sigmoid()),
    "weighted_mean": (losses.weighted_mean, draw(5, N), draw(5, N, seed=1).relu()),
}


@pytest.mark.parametrize("name", CASES)
def test_vmap_is_a_loop_in_values_and_gradients(name):
    f, prediction, target = CASES[name]
    rows = list(zip(prediction, target, strict=True))
    torch.testing.assert_close(torch.func.vmap(f)(prediction, target), torch.stack([f(*row) for row in rows]))
    gradient = torch.func.grad(lambda p, t: f(p, t).sum())
    expected = torch.stack([gradient(*row) for row in rows])
    torch.testing.assert_close(torch.func.vmap(gradient)(prediction, target), expected)


@pytest.mark.parametrize("name", ["cross_entropy", "smoothed", "nll"])
def test_a_label_loss_can_be_mapped_down_to_one_example(name):
    f, prediction, target = CASES[name]
    torch.testing.assert_close(torch.func.vmap(f)(prediction[0], target[0]), f(prediction[0], target[0]))


@pytest.mark.parametrize("name", CASES)
def test_traced_is_eager(name):
    f, prediction, target = CASES[name]

    def both(prediction, target):
        gradient, value = torch.func.grad_and_value(lambda p: f(p, target).sum())(prediction)
        return value, gradient

    traced = make_fx(both)(draw(*prediction.shape[1:], seed=5), target[1])
    for got, expected in zip(traced(prediction[0], target[0]), both(prediction[0], target[0]), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


# --- the weighted reduction ---


def test_reduce_is_the_weighted_mean():
    values = torch.tensor([1.0, 2.0, 4.0])
    assert losses.weighted_mean(values).item() == pytest.approx(7 / 3)
    assert losses.weighted_mean(values, torch.tensor([1.0, 0.0, 3.0])).item() == 13 / 4
    assert losses.weighted_mean(values.view(1, 3).expand(2, 3), torch.tensor([1.0, 5.0])).item() == pytest.approx(7 / 3)


@pytest.mark.parametrize("shape", [(5,), (5, 3)])
@pytest.mark.parametrize("weight", [None, [1.0, 0.0, 2.5, 3.0, 0.3], [0.0] * 5])
def test_shares_are_the_gradient_of_reduce_by_the_values_bitwise(shape, weight):
    values = torch.randn(shape, requires_grad=True)
    weight = None if weight is None else torch.tensor(weight)
    (gradient,) = torch.autograd.grad(losses.weighted_mean(values, weight), values)
    shares = losses.shares(values, weight)
    assert torch.equal(shares if weight is not None else torch.full_like(values, shares), gradient)


def test_padding_changes_nothing_in_value_and_gradient_even_where_it_is_nan():
    prediction, target = draw(N, CLASSES), labels(N)
    padded = torch.cat([prediction, torch.full((2, CLASSES), float("nan"), dtype=torch.float64)])
    weight = torch.cat([torch.ones(N), torch.zeros(2)])

    def loss(p, t, w=None):
        return losses.weighted_mean(losses.cross_entropy(p, t), w)

    gradient, value = torch.func.grad_and_value(loss)(prediction, target)
    values = losses.cross_entropy(padded, torch.cat([target, target[:2]])).requires_grad_()
    torch.testing.assert_close(losses.weighted_mean(values, weight), value)
    (cotangent,) = torch.autograd.grad(losses.weighted_mean(values, weight), values)
    torch.testing.assert_close(cotangent, weight.double() / N)
    finite = torch.cat([prediction, prediction[:2] * 9])
    padded_gradient = torch.func.grad(loss)(finite, torch.cat([target, target[:2]]), weight)
    torch.testing.assert_close(padded_gradient, torch.cat([gradient, torch.zeros(2, CLASSES, dtype=torch.float64)]))


def test_a_batch_without_weight_asks_for_no_change():
    values = torch.tensor([1.0, float("nan")], requires_grad=True)
    mean = losses.weighted_mean(values, torch.zeros(2))
    assert mean.item() == 0.0
    assert torch.autograd.grad(mean, values)[0].tolist() == [0.0, 0.0]


def test_reduce_refuses_what_is_reduced_already():
    for weight in (None, torch.ones(3)):
        with pytest.raises(ShapeMismatch, match="got a scalar"):
            losses.weighted_mean(torch.tensor(1.0), weight)


# --- bad input ---


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.nll, partial(losses.cross_entropy, label_smoothing=0.1)])
@pytest.mark.parametrize("bad, found", [(CLASSES, "0 to 4"), (-1, "-1 to 1"), (-100, "-100 to 1")])
@pytest.mark.parametrize("axes", [(), (1,)])
def test_a_label_out_of_range_is_named(loss, bad, found, axes):
    target = torch.tensor([0, bad, 1]).view(3, *axes)
    message = (
        rf"target: labels must be from 0 to 3 for the 4 classes.*got labels from {found}; number the classes from 0"
    )
    with pytest.raises(LabelOutOfRange, match=message) as raised:
        loss(draw(3, *axes, CLASSES), target)
    assert isinstance(raised.value, IndexError)


def test_a_label_out_of_range_is_an_error_under_vmap_too():
    with pytest.raises(LabelOutOfRange, match="labels must be from 0 to 3 for the 4 classes of the prediction; number"):
        torch.func.vmap(losses.cross_entropy)(draw(2, CLASSES), torch.tensor([0, 9]))


def test_another_error_of_the_kernel_is_passed_on():
    with pytest.raises(RuntimeError, match="device") as raised:
        losses.cross_entropy(draw(2, CLASSES), torch.zeros(2, dtype=torch.int64, device="meta"))
    assert not isinstance(raised.value, LabelOutOfRange)


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.nll])
@pytest.mark.parametrize("shape", [(3, 1), (2,), (3, 4), ()])
def test_labels_of_another_shape_are_refused(loss, shape):
    with pytest.raises(ShapeMismatch, match=r"one label per prediction, shape \(3,\) for a prediction float64\(3, 4\)"):
        loss(draw(3, CLASSES), torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("loss, shape", [(losses.cross_entropy, (3,)), (losses.nll, (3,)), (losses.nll, (3, 4))])
def test_float_labels_are_refused(loss, shape):
    with pytest.raises(DtypeMismatch, match=r"target must be integer labels of shape \(3,\), got float32.*target.long"):
        loss(draw(3, CLASSES), torch.zeros(shape))


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shape", [(3, 1), (1,), (3, 3)])
def test_nothing_is_broadcast(name, shape):
    with pytest.raises(ShapeMismatch, match=r"must have one shape, got \(3,\) and .*nothing is broadcast"):
        PAIRS[name][0](draw(3), draw(*shape).sigmoid())


@pytest.mark.parametrize("target", [[0.0, 2.0], [-1.0, 1.0], [0.0, float("nan")]])
def test_a_binary_target_outside_its_range_is_refused(target):
    with pytest.raises(LabelOutOfRange, match=r"must be in \[0, 1\], got values from"):
        losses.binary_cross_entropy(draw(2), torch.tensor(target))


@pytest.mark.parametrize("smoothing", [-0.1, 1.1])
def test_label_smoothing_outside_its_range_is_refused(smoothing):
    with pytest.raises(InvalidArgument, match=r"label_smoothing must be in \[0, 1\], got"):
        losses.cross_entropy(draw(2, CLASSES), labels(2), label_smoothing=smoothing)


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.nll])
def test_class_weights_must_be_one_a_class(loss):
    with pytest.raises(
        ShapeMismatch, match=r"class_weight must have one factor per class, shape \(4,\), got shape \(3,\)"
    ):
        loss(draw(2, CLASSES), labels(2), class_weight=torch.ones(3))


def test_an_empty_batch_gives_no_values():
    assert losses.cross_entropy(draw(0, CLASSES), labels(0)).shape == (0,)
    assert losses.mse(draw(0, 3), draw(0, 3)).shape == (0, 3)
    assert losses.binary_cross_entropy(draw(0), draw(0)).shape == (0,)
