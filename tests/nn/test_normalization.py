"""Batch norm with weights, as values; layer norm's errors. Values without weights are in the table of oracles."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from functrain import nn, random, tree
from functrain.engine import value_and_grad, vmap
from functrain.errors import DtypeMismatch, InvalidArgument, ShapeMismatch, TreeMismatch

KEY = random.key(5)
LAYER = nn.batch_norm()
PARAMS = {"weight": torch.tensor([0.5, 1.0, 2.0]), "bias": torch.tensor([0.1, 0.2, -0.3])}
SHAPES = [(3,), (3, 4), (3, 4, 2)]


def rows(n, shape, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def fresh(x):
    return LAYER.init(KEY, x)[1]


def step(x, weight=None, buffers=None, layer=LAYER):
    """Value, new buffers and gradients by parameters and input of a loss that counts rows by their weight."""

    def loss(params, x):
        y, after = layer.apply(params, fresh(x) if buffers is None else buffers, x, nn.training(KEY, weight=weight))
        counted = (y**3).flatten(1).sum(1)
        return (counted if weight is None else counted.where(weight != 0, 0) * weight).sum(), (y, after)

    (_, (y, after)), by_params = value_and_grad(loss, has_aux=True)(PARAMS, x)
    _, by_x = value_and_grad(loss, argnum=1, has_aux=True)(PARAMS, x)
    return y, after, by_params, by_x


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_of_one_count_as_none(shape):
    x = rows(6, shape)
    torch.testing.assert_close(step(x, torch.ones(6)), step(x), rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 6), pads=st.integers(0, 4), common=st.sampled_from([1.0, 0.25, 3.0]), shape=st.sampled_from(SHAPES)
)
def test_padded_is_unpadded(n, pads, common, shape):
    x = rows(n, shape)
    padded = torch.cat([x, torch.full((pads, *shape), torch.nan)])
    weight = torch.cat([torch.full((n,), common), torch.zeros(pads)])
    y, after, by_params, by_x = step(padded, weight)
    want_y, want_after, want_params, want_x = step(x)
    torch.testing.assert_close(y[:n], want_y, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after, want_after, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(by_params, tree.map(lambda g: g * common, want_params), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(by_x[:n], want_x * common, rtol=1e-3, atol=1e-3)
    assert bool((by_x[n:] == 0).all())


def test_weights_that_differ_count_as_repeated_rows():
    x, times = rows(4, (3, 2)), torch.tensor([1, 3, 2, 1])
    y, after, _, _ = step(x, times.float())
    repeated, _, _, _ = step(x.repeat_interleave(times, 0))
    torch.testing.assert_close(y.repeat_interleave(times, 0), repeated, rtol=1e-4, atol=1e-5)
    # The running variance is unbiased for weights that say how much a row counts, not how often it was seen.
    share = times / times.sum()
    mean = (x.mean(2) * share[:, None]).sum(0)
    biased = ((x - mean[:, None]).square().mean(2) * share[:, None]).sum(0)
    torch.testing.assert_close(after["running_mean"], 0.1 * mean)
    torch.testing.assert_close(after["running_var"], 0.9 + 0.1 * biased / (1 - share.square().sum() / 2))


@pytest.mark.parametrize("weight", [[0.0, 0.0, 0.0], [0.0, 0.3, 0.0]])
def test_a_batch_without_variance_to_estimate_leaves_the_statistics(weight):
    x = rows(3, (3,))
    buffers = {**fresh(x), "running_mean": torch.arange(3.0), "num_batches_tracked": torch.tensor(4)}
    y, after, by_params, by_x = step(x, torch.tensor(weight), buffers)
    assert tree.equal(after, buffers)
    assert all(bool(leaf.isfinite().all()) for leaf in tree.leaves((y, by_params, by_x)))


def test_float64_is_exact():
    layer, x = nn.batch_norm(momentum=0.1, affine=False), rows(4, (3,)).double()
    buffers = layer.init(KEY, x)[1]
    plain = layer.apply({}, buffers, x, nn.training(KEY))
    weighted = layer.apply({}, buffers, x, nn.training(KEY, weight=torch.ones(4)))
    torch.testing.assert_close(weighted, plain, rtol=1e-12, atol=1e-12)


def test_one_row_with_space_has_a_variance():
    x = rows(1, (3, 4))
    padded = torch.cat([x, x * 0])
    _, after, _, _ = step(padded, torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(after, step(x)[1])


@pytest.mark.parametrize("momentum", [0.0, 0.3, 1.0, None])
def test_momentum_with_weights_is_that_without(momentum):
    layer, buffers = nn.batch_norm(momentum), fresh(rows(2, (3,)))
    weighted = buffers
    for seed in range(3):
        x = rows(4, (3,), seed)
        buffers = step(x, None, buffers, layer)[1]
        weighted = step(x, torch.ones(4), weighted, layer)[1]
    torch.testing.assert_close(weighted, buffers)
    assert int(buffers["num_batches_tracked"]) == 3


def test_evaluation_does_not_look_at_weights():
    x = rows(4, (3,))
    buffers = fresh(x)
    y, after = LAYER.apply(PARAMS, buffers, x, nn.evaluation(torch.tensor([1.0, 0, 0, 0])))
    assert after is buffers
    assert tree.equal(y, LAYER.apply(PARAMS, buffers, x)[0])


def test_new_buffers_carry_no_gradient():
    x = rows(4, (3,)).requires_grad_()
    for weight in (None, torch.ones(4)):
        y, after = LAYER.apply(PARAMS, fresh(x), x, nn.training(KEY, weight=weight))
        assert y.requires_grad
        assert not any(leaf.requires_grad for leaf in tree.leaves(after))


def test_a_channel_without_variance_gives_zero_and_not_nan():
    x = torch.full((4, 3), 7.0)
    for weight in (None, torch.ones(4)):
        y, after, _, _ = step(x, weight)
        torch.testing.assert_close(y, PARAMS["bias"].expand(4, 3), rtol=0, atol=1e-3)  # 7 / sqrt(eps) is rounded
        torch.testing.assert_close(after["running_var"], torch.full((3,), 0.9))
        assert bool((LAYER.apply(PARAMS, after, x, nn.training(KEY, weight=weight))[1]["running_var"] >= 0).all())


def test_weighted_is_the_same_traced_and_vmapped():
    x, weight = rows(4, (3, 2)), torch.tensor([1.0, 2.0, 0.0, 1.0])
    graph = make_fx(lambda x, w, b: step(x, w, b), tracing_mode="real")(x, weight, fresh(x))
    assert tree.equal(graph(x, weight, fresh(x)), step(x, weight, fresh(x)))
    many = torch.stack([x, x * 2])
    found = vmap(lambda x: step(x, weight))(many)
    torch.testing.assert_close(found, tree.stack([step(row, weight) for row in many]))


def test_half_precision_keeps_its_dtype():
    x = rows(8, (3,)).bfloat16()
    params, buffers = LAYER.init(KEY, x)
    y, after = LAYER.apply(params, buffers, x, nn.training(KEY, weight=torch.ones(8)))
    assert (y.dtype, after["running_var"].dtype) == (torch.bfloat16, torch.bfloat16)
    want, _ = LAYER.apply(params, buffers, x, nn.training(KEY))
    torch.testing.assert_close(y, want, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.batch_norm(momentum=1.5), r"momentum must be a number in \[0, 1\] or None, got 1.5"),
        (lambda: nn.batch_norm(momentum="0.1"), r"momentum must be a number in \[0, 1\] or None, got '0.1'"),
        (lambda: nn.batch_norm(eps=0), r"eps must be a positive number, got 0"),
        (lambda: nn.layer_norm(eps=-1e-5), r"eps must be a positive number, got -1e-05"),
        (lambda: nn.layer_norm(axes=0), r"axes must be a whole number of at least 1, got 0"),
    ],
)
def test_options_that_are_none_are_errors(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()


X = rows(4, (3,))


@pytest.mark.parametrize(
    ("layer", "x", "weight", "error", "message"),
    [
        (LAYER, X[:, :2], None, ShapeMismatch, r"batch_norm: .* the C = 3 channels \(axis 1\) .* got shape \(4, 2\)"),
        (LAYER, X[0], None, ShapeMismatch, r"batch_norm: .* N x C or N x C x space .* got shape \(3,\)"),
        (LAYER, X[:1], None, ShapeMismatch, r"more than one value per channel .* got shape \(1, 3\); let the loader"),
        (LAYER, X, torch.ones(3), ShapeMismatch, r"one for each of the 4 rows of the input, got shape \(3,\)"),
        (LAYER, X.double(), None, DtypeMismatch, r"batch_norm: .* float32, got float64"),
        (LAYER, X.long(), None, DtypeMismatch, r"batch_norm: .* floating-point dtype, got int64"),
        (
            nn.layer_norm(),
            X[:, :2],
            None,
            ShapeMismatch,
            r"layer_norm: the input must be \(\.\.\., 3\), .* shape \(4, 2\)",
        ),
        (nn.layer_norm(), X.double(), None, DtypeMismatch, r"layer_norm: .* float32, got float64"),
        (nn.layer_norm(), X.long(), None, DtypeMismatch, r"layer_norm: .* floating-point"),
    ],
)
def test_an_input_that_does_not_fit_is_an_error(layer, x, weight, error, message):
    params, buffers = layer.init(KEY, X)
    with pytest.raises(error, match=message):
        layer.apply(params, buffers, x, nn.training(KEY, weight=weight))


@pytest.mark.parametrize(
    ("layer", "example", "message"),
    [
        (LAYER, X[0], r"batch_norm: the input must be N x C or N x C x space, got shape \(3,\)"),
        (nn.layer_norm(axes=3), X, r"layer_norm: the input must have at least 3 axes, got shape \(4, 3\)"),
    ],
)
def test_an_example_that_does_not_fit_is_an_error(layer, example, message):
    with pytest.raises(ShapeMismatch, match=message):
        layer.init(KEY, example)


def test_parameters_and_buffers_of_another_model_are_an_error():
    with pytest.raises(TreeMismatch, match=r"batch_norm: params must hold weight and bias, got nothing"):
        LAYER.apply({}, fresh(X), X)
    message = r"batch_norm: buffers must hold running_mean and running_var and num_batches_tracked, got nothing"
    with pytest.raises(TreeMismatch, match=message):
        LAYER.apply(PARAMS, {}, X)
