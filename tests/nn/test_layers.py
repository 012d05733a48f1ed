"""Dense, convolution, embedding, dropout and pooling: options, initial values, and input that does not fit."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain import initializers, nn, random, schedule, tree
from functrain.engine import grad
from functrain.errors import (
    DeviceMismatch,
    DtypeMismatch,
    InvalidArgument,
    InvalidKey,
    LabelOutOfRange,
    NotATensor,
    ShapeMismatch,
    TreeMismatch,
)

KEY = random.key(11)
IMAGES = torch.linspace(-1, 1, 2 * 3 * 6 * 5).reshape(2, 3, 6, 5)


def applied(layer, x, other):
    """The layer, initialised for one input, applied to another."""
    return layer.apply(*layer.init(KEY, x), other)


# Values that are not in the table of oracles.


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
)
def test_conv_takes_any_height_and_width_that_the_kernel_fits(size, kernel, stride, padding, dilation):
    layer = nn.conv(2, kernel, stride, padding, dilation=dilation)
    x = torch.arange(2.0 * 3 * math.prod(size)).reshape(2, 3, *size)
    params, buffers = layer.init(KEY, torch.zeros(1, 3, 1, 1))  # any H and W, whatever the example's were
    if any(n + 2 * padding < dilation * (k - 1) + 1 for n, k in zip(size, kernel, strict=True)):
        with pytest.raises(ShapeMismatch, match=r"the kernel covers \d+ along [HW]"):
            layer.apply(params, buffers, x)
        return
    y, _ = layer.apply(params, buffers, x)
    out = [(n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(size, kernel, strict=True)]
    assert y.shape == (2, 2, *out)
    torch.testing.assert_close(y, F.conv2d(x, params["weight"], params["bias"], stride, padding, dilation))


def test_one_output_of_conv_by_hand():
    params, _ = nn.conv(4, 5).init(KEY, IMAGES)
    y, _ = nn.conv(4, 5).apply(params, {}, IMAGES)
    wanted = (IMAGES[1, :, 1:6, 0:5] * params["weight"][2]).sum() + params["bias"][2]
    torch.testing.assert_close(y[1, 2, 1, 0], wanted)


@pytest.mark.parametrize(
    ("layer", "x", "shape"),
    [
        (nn.dense(50), torch.zeros(1, 784), (50, 784)),
        (nn.conv(32, 5), torch.zeros(1, 1, 28, 28), (32, 1, 5, 5)),
        (nn.conv(32, (3, 5), groups=2), torch.zeros(1, 4, 28, 28), (32, 2, 3, 5)),
        (nn.conv(32, 5, dims=1), torch.zeros(1, 4, 9), (32, 4, 5)),
    ],
)
def test_weights_are_kaiming_and_biases_zero(layer, x, shape):
    params, buffers = layer.init(KEY, x)
    weight = params["weight"]
    assert weight.shape == shape
    bound = math.sqrt(6 / math.prod(shape[1:]))
    assert 0.9 * bound < weight.abs().max() <= bound
    assert tree.equal(params["bias"], torch.zeros(shape[0]))
    assert tree.equal(weight, initializers.kaiming_uniform()(random.fold_in(KEY, "weight"), shape))
    assert buffers == {}


@pytest.mark.parametrize(("layer", "fan_in"), [(nn.dense, 4), (lambda out, **o: nn.conv(out, 1, **o), 4)])
def test_initializers_are_taken_and_a_bias_is_told_the_fan_in(layer, fan_in):
    x = torch.zeros(1, 4) if layer is nn.dense else torch.zeros(1, 4, 1, 1)
    layer = layer(1000, weight=initializers.torch_default(), bias=initializers.torch_default_bias())
    params, _ = layer.init(KEY, x)
    for values in params.values():
        assert 0.99 / math.sqrt(fan_in) < values.abs().max() <= 1 / math.sqrt(fan_in)
    params, _ = nn.dense(3, weight=initializers.ones(), bias=initializers.constant(2.0)).init(KEY, torch.zeros(1, 4))
    assert tree.equal(params, {"weight": torch.ones(3, 4), "bias": torch.full((3,), 2.0)})


def test_embedding_begins_standard_normal_or_as_told():
    params, _ = nn.embedding(500, 40).init(KEY, torch.tensor([0]))
    assert abs(float(params["weight"].std()) - 1) < 0.02
    params, _ = nn.embedding(5, 4, weight=initializers.zeros()).init(KEY, torch.tensor([0], dtype=torch.int32))
    assert tree.equal(params, {"weight": torch.zeros(5, 4)})


def test_global_avg_pool_takes_any_space():
    for shape in ((2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 2)):
        x = torch.rand(shape)
        wanted = x.mean(tuple(range(2, x.dim())))
        torch.testing.assert_close(nn.global_avg_pool(x), wanted)


# Dropout.


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate):
    n = 200_000
    y, _ = nn.dropout(rate).apply({}, {}, torch.ones(n), nn.training(KEY))
    dropped = float((y == 0).double().mean())
    assert abs(dropped - rate) < 5 * math.sqrt(rate * (1 - rate) / n)  # five standard errors
    kept = round((1 - rate) * 2**16) / 2**16  # what is kept is divided by the very probability of keeping
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 1 / kept))


def test_dropout_does_nothing_in_evaluation_or_at_rate_zero():
    x = torch.ones(4)
    assert nn.dropout(0.5).apply({}, {}, x)[0] is x
    assert nn.dropout(0.0).apply({}, {}, x, nn.training(KEY))[0] is x
    assert tree.equal(nn.dropout(torch.tensor(0.0)).apply({}, {}, x, nn.training(KEY))[0], x)


def test_dropout_is_the_same_for_the_same_key_alone():
    x, layer = torch.ones(100), nn.dropout(0.5)
    first, again = (layer.apply({}, {}, x, nn.training(KEY))[0] for _ in range(2))
    assert tree.equal(first, again)
    assert not torch.equal(first, layer.apply({}, {}, x, nn.training(random.key(12)))[0])


def test_dropout_passes_gradients_where_it_passes_values():
    x, layer = torch.ones(100), nn.dropout(0.5)
    y, _ = layer.apply({}, {}, x, nn.training(KEY))
    assert tree.equal(grad(lambda x: layer.apply({}, {}, x, nn.training(KEY))[0].sum())(x), y)


@pytest.mark.parametrize("position", [0.5, torch.tensor(0.5, dtype=torch.float64)])
def test_the_rate_of_dropout_can_be_scheduled(position):
    x, mode = torch.ones(100), nn.training(KEY, position)
    y, _ = nn.dropout(schedule.linear(0.2, 0.6)).apply({}, {}, x, mode)
    torch.testing.assert_close(y, nn.dropout(0.4).apply({}, {}, x, mode)[0])


def test_rows_that_are_added_leave_the_draws_of_the_others():
    layer, mode = nn.dropout(0.5), nn.training(KEY)
    few, many = (layer.apply({}, {}, torch.ones(n, 7), mode)[0] for n in (5, 9))
    assert tree.equal(few, many[:5])


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, math.nan, "half", True])
def test_a_rate_outside_is_an_error(rate):
    with pytest.raises(InvalidArgument, match=r"rate must be a number of at least 0 and below 1, or a Schedule; got"):
        nn.dropout(rate)


def test_a_scheduled_rate_outside_is_an_error_when_it_comes():
    layer = nn.dropout(schedule.linear(0.0, 1.0))
    layer.apply({}, {}, torch.ones(2), nn.training(KEY, 0.9))
    with pytest.raises(
        InvalidArgument, match=r"dropout: rate must be at least 0 and below 1, got 1.0 from its schedule"
    ):
        layer.apply({}, {}, torch.ones(2), nn.training(KEY, 1.0))


def test_dropout_without_a_key_is_an_error():
    with pytest.raises(InvalidKey, match=r"the mode has no key"):
        nn.dropout(0.5).apply({}, {}, torch.ones(2), nn.Mode(train=True))


# Options that are none.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.dense(0), r"out must be a whole number of at least 1, got 0"),
        (lambda: nn.dense(10.0), r"out must be a whole number of at least 1, got 10.0"),
        (lambda: nn.dense(True), r"out must be a whole number of at least 1, got True"),
        (
            lambda: nn.dense(3, bias=0.0),
            r"bias must be a function of .* an initializer .* got 0.0",
        ),
        (lambda: nn.dense(3, weight="kaiming"), r"weight must be a function of .* an initializer .* got 'kaiming'"),
        (lambda: nn.embedding(0, 4), r"num_embeddings must be a whole number of at least 1, got 0"),
        (lambda: nn.embedding(4, 0), r"embedding_dim must be a whole number of at least 1, got 0"),
        (lambda: nn.embedding(4, 4, weight=1.0), r"weight must be a function of"),
        (lambda: nn.conv(0, 3), r"out must be a whole number of at least 1, got 0"),
        (lambda: nn.conv(4, 0), r"kernel_size must be a whole number of at least 1, got 0"),
        (
            lambda: nn.conv(4, (3, 3, 3)),
            r"kernel_size must be .* one for each of 2 axes, got \(3, 3, 3\)",
        ),
        (lambda: nn.conv(4, 3, stride=0), r"stride must be a whole number of at least 1, got 0"),
        (lambda: nn.conv(4, 3, dilation=-1), r"dilation must be a whole number of at least 1, got -1"),
        (lambda: nn.conv(4, 3, padding=-1), r"padding must be a whole number of at least 0, got -1"),
        (lambda: nn.conv(4, 3, padding="full"), r"padding must be numbers, 'same' or 'valid', got 'full'"),
        (lambda: nn.conv(4, 3, stride=2, padding="same"), r"padding='same' needs stride 1, got stride=\(2, 2\)"),
        (lambda: nn.conv(4, 3, groups=3), r"groups must divide out, got groups=3 and out=4"),
        (lambda: nn.conv(4, 3, dims=4), r"dims must be one of 1, 2, 3, got 4"),
        (lambda: nn.max_pool(0), r"kernel_size must be a whole number of at least 1, got 0"),
        (lambda: nn.max_pool(2, padding=2), r"padding must be at most half of the kernel, got padding=\(2, 2\)"),
        (lambda: nn.avg_pool(2, stride=0), r"stride must be a whole number of at least 1, got 0"),
        (lambda: nn.avg_pool(2, dims=0), r"dims must be one of 1, 2, 3, got 0"),
    ],
)
def test_options_that_are_none_are_errors(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()


def test_an_initializer_that_returns_another_shape_is_an_error():
    with pytest.raises(ShapeMismatch, match=r"weight: the initializer must return shape \(3, 4\), got \(4, 3\)"):
        nn.dense(3, weight=lambda key, shape, dtype: torch.zeros(shape[::-1])).init(KEY, torch.zeros(1, 4))


# Input that does not fit, at init and at apply.


@pytest.mark.parametrize(
    ("layer", "example", "error", "message"),
    [
        (nn.dense(3), [[1.0]], NotATensor, r"dense\(3\): the input must be a tensor, got list; use torch.as_tensor"),
        (nn.dense(3), torch.zeros(2, 4).long(), DtypeMismatch, r"floating-point dtype, got int64\(2, 4\)"),
        (nn.dense(3), torch.tensor(1.0), ShapeMismatch, r"dense\(3\): the input must be \(\.\.\., features\)"),
        (nn.dense(3), torch.zeros(2, 0), ShapeMismatch, r"dense\(3\): the input must be .* got shape \(2, 0\)"),
        (nn.conv(3, 2), [[1.0]], NotATensor, r"conv\(3, kernel 2 x 2\): the input must be a tensor, got list"),
        (nn.conv(3, 2), IMAGES[0], ShapeMismatch, r"axes N x C x H x W .* got shape \(3, 6, 5\); .*unsqueeze\(1\)"),
        (nn.conv(3, 2), torch.zeros(2, 9), ShapeMismatch, r"axes N x C x H x W .* got shape \(2, 9\); reshape it"),
        (nn.conv(3, 2, dims=1), IMAGES, ShapeMismatch, r"axes N x C x L .* got shape \(2, 3, 6, 5\)"),
        (nn.conv(3, 2, dims=3), IMAGES, ShapeMismatch, r"axes N x C x D x H x W"),
        (nn.conv(3, 2), IMAGES.byte(), DtypeMismatch, r"floating-point dtype, got uint8"),
        (nn.conv(4, 2, groups=2), IMAGES, ShapeMismatch, r"groups=2 must divide the channels C .* with C = 3"),
        (nn.embedding(5, 2), torch.zeros(2), DtypeMismatch, r"embedding\(5, 2\): the input must be int64 or int32"),
        (nn.embedding(5, 2), [1], NotATensor, r"embedding\(5, 2\): the input must be a tensor, got list"),
        (
            nn.dropout(0.5),
            torch.zeros(2).long(),
            DtypeMismatch,
            r"dropout\(0.5\): the input must be of a floating",
        ),
    ],
)
def test_an_example_that_does_not_fit_is_an_error(layer, example, error, message):
    with pytest.raises(error, match=message):
        layer.init(KEY, example)


@pytest.mark.parametrize(
    ("layer", "example", "x", "error", "message"),
    [
        (
            nn.dense(3),
            torch.zeros(1, 4),
            torch.zeros(2, 5),
            ShapeMismatch,
            r"must be \(\.\.\., 4\), .* shape \(2, 5\)$",
        ),
        (nn.dense(3), torch.zeros(1, 4), torch.zeros(2, 2, 2), ShapeMismatch, r"shape \(2, 2, 2\); put nn.flatten"),
        (nn.dense(3), torch.zeros(1, 4), torch.tensor(1.0), ShapeMismatch, r"must be \(\.\.\., 4\), .* shape \(\)"),
        (nn.dense(3), torch.zeros(1, 4), torch.zeros(2, 4).long(), DtypeMismatch, r"floating-point dtype, got int64"),
        (nn.dense(3), torch.zeros(1, 4), torch.zeros(2, 4).double(), DtypeMismatch, r"float32, got float64"),
        (nn.dense(3), torch.zeros(1, 4), torch.zeros(2, 4, device="meta"), DeviceMismatch, r"on meta and .* on cpu"),
        (nn.dense(3), torch.zeros(1, 4), [[1.0] * 4], NotATensor, r"the input must be a tensor, got list"),
        (nn.conv(3, 2), IMAGES, IMAGES[0], ShapeMismatch, r"axes N x C x H x W .* got shape \(3, 6, 5\)"),
        (nn.conv(3, 2), IMAGES, IMAGES[:, :1], ShapeMismatch, r"C = 3 channels .* N x C x H x W = 2 x 1 x 6 x 5"),
        (
            nn.conv(3, 2, groups=3),
            IMAGES,
            IMAGES[:, :2],
            ShapeMismatch,
            r"C = 3 channels",
        ),
        (nn.conv(3, 7), torch.zeros(1, 3, 9, 9), IMAGES, ShapeMismatch, r"covers 7 along H, .* H = 6: N x C x H x W"),
        (nn.conv(3, 3, padding=1, dilation=4), IMAGES, IMAGES, ShapeMismatch, r"covers 9 along H.* and 1 of padding"),
        (nn.conv(3, 2), IMAGES, IMAGES.double(), DtypeMismatch, r"float32, got float64"),
        (nn.conv(3, 2), IMAGES, IMAGES.long(), DtypeMismatch, r"floating-point dtype, got int64"),
        (nn.max_pool(2), IMAGES, IMAGES[0], ShapeMismatch, r"max_pool\(2 x 2\): .* axes N x C x H x W"),
        (nn.max_pool(7), IMAGES, IMAGES, ShapeMismatch, r"max_pool\(7 x 7\): the kernel covers 7 along H"),
        (nn.avg_pool(7), IMAGES, IMAGES, ShapeMismatch, r"avg_pool\(7 x 7\): the kernel covers 7 along H"),
        (nn.avg_pool(2), IMAGES, IMAGES.bool(), DtypeMismatch, r"avg_pool\(2 x 2\): .* floating-point"),
        (
            nn.serial(nn.global_avg_pool),
            IMAGES,
            IMAGES[0, 0],
            ShapeMismatch,
            r"must have axes of space, as N x C",
        ),
        (nn.embedding(5, 2), torch.tensor([0]), torch.tensor([0, 5]), LabelOutOfRange, r"from 0 to 4, .* from 0 to 5"),
        (nn.embedding(5, 2), torch.tensor([0]), torch.tensor([-1]), LabelOutOfRange, r"0 to 4, .* from -1 to -1"),
        (nn.embedding(5, 2), torch.tensor([0]), torch.zeros(1), DtypeMismatch, r"got float32\(1,\); use x.long"),
    ],
)
def test_an_input_that_does_not_fit_is_an_error(layer, example, x, error, message):
    with pytest.raises(error, match=message):
        applied(layer, example, x)


@pytest.mark.parametrize(
    ("layer", "x", "params", "message"),
    [
        (
            nn.dense(3),
            torch.zeros(1, 4),
            {"weight": torch.zeros(3, 4)},
            r"dense\(3\): params must hold bias, got weight",
        ),
        (nn.conv(3, 2), IMAGES, {}, r"conv\(3, kernel 2 x 2\): params must hold weight and bias, got nothing"),
        (nn.embedding(3, 2), torch.tensor([0]), {"w": 1}, r"embedding\(3, 2\): params must hold weight, got w"),
        (nn.layer_norm(), torch.zeros(1, 4), {}, r"layer_norm: params must hold weight and bias, got nothing"),
        (nn.dense(3), torch.zeros(1, 4), None, r"dense\(3\): params must be a dict, got NoneType"),
    ],
)
def test_parameters_of_another_model_are_an_error(layer, x, params, message):
    with pytest.raises(TreeMismatch, match=message):
        layer.apply(params, {}, x)


def test_parameters_on_another_device_are_an_error():
    layer, x = nn.dense(3), torch.zeros(1, 4)
    params, _ = layer.init(KEY, x)
    with pytest.raises(DeviceMismatch, match=r"the input is on cpu and the parameters on meta; move one with tree.to"):
        layer.apply(tree.to(params, "meta"), {}, x)


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a second device whose kernels refuse the first's tensors"
)
@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.dense(3), torch.zeros(1, 4)),
        (nn.conv(3, 2), IMAGES),
        (nn.embedding(3, 2), torch.tensor([0])),
        (nn.batch_norm(), torch.zeros(2, 4)),
        (nn.layer_norm(), torch.zeros(1, 4)),
    ],
)
def test_parameters_on_an_accelerator_and_input_beside_it_are_an_error(layer, x):
    params, buffers = tree.to(layer.init(KEY, x), "cuda")
    with pytest.raises(DeviceMismatch, match=r"the input is on cpu and the parameters on cuda"):
        layer.apply(params, buffers, x, nn.training(KEY))
