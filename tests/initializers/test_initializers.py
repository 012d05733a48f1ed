"""Initializers: the lesson's numbers, PyTorch's moments and bounds, orthogonality, keys, messages."""

import math

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from functrain import initializers, random
from functrain.errors import DtypeMismatch, InvalidArgument, ShapeMismatch

KEY = random.key(0)
WEIGHT = (64, 32, 5, 5)

ALL = {
    "zeros": initializers.zeros(),
    "ones": initializers.ones(),
    "constant": initializers.constant(0.3),
    "uniform": initializers.uniform(-0.2, 0.4),
    "normal": initializers.normal(0.02, 1.0),
    "truncated_normal": initializers.truncated_normal(0.02, 1.0),
    "kaiming_uniform": initializers.kaiming_uniform(),
    "kaiming_uniform out": initializers.kaiming_uniform(0.1, mode="fan_out"),
    "kaiming_normal": initializers.kaiming_normal(),
    "kaiming_normal out": initializers.kaiming_normal(0.1, mode="fan_out"),
    "xavier_uniform": initializers.xavier_uniform(),
    "xavier_normal": initializers.xavier_normal(gain=2.0),
    "lecun_uniform": initializers.lecun_uniform(),
    "lecun_normal": initializers.lecun_normal(),
    "torch_default": initializers.torch_default(),
    "torch_default_bias": initializers.torch_default_bias(800),
    "orthogonal": initializers.orthogonal(),
}
every = pytest.mark.parametrize("initializer", ALL.values(), ids=ALL)


# The lesson's numbers.


def test_receptive_field_and_fans_of_the_lessons_convolution():
    assert initializers.receptive_field((32, 1, 5, 5)) == 25
    assert initializers.fans((32, 1, 5, 5)) == (25, 800)
    assert initializers.fans((10, 50)) == (50, 10)
    assert initializers.fans(torch.Size([8, 4, 3])) == (12, 24)


@pytest.mark.parametrize("shape", [(32, 1, 5, 5), (10, 50), (8, 4, 3), (6, 2, 3, 4, 5)])
def test_fans_are_pytorchs(shape):
    assert initializers.fans(shape) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


@pytest.mark.parametrize(
    ("a", "printed"), [(1, 1.0), (0, 1.4142), (0.01, 1.41414), (0.1, 1.40720), (math.sqrt(5), 0.57735)]
)
def test_gain_is_what_the_lesson_printed_and_pytorchs(a, printed):
    assert initializers.gain(a) == pytest.approx(printed, abs=5e-5)
    assert initializers.gain(a) == pytest.approx(torch.nn.init.calculate_gain("leaky_relu", a), rel=1e-12)


# Moments and bounds, against PyTorch's own draws. Of 51,200 draws a standard deviation is off by 0.3 % (one sigma).


init = torch.nn.init
ORACLES = {
    "uniform": lambda w: init.uniform_(w, -0.2, 0.4),
    "normal": lambda w: init.normal_(w, 1.0, 0.02),
    "truncated_normal": lambda w: init.trunc_normal_(w, 1.0, 0.02, 1.0 - 0.04, 1.0 + 0.04),
    "kaiming_uniform": lambda w: init.kaiming_uniform_(w, nonlinearity="relu"),
    "kaiming_uniform out": lambda w: init.kaiming_uniform_(w, 0.1, "fan_out"),
    "kaiming_normal": lambda w: init.kaiming_normal_(w, nonlinearity="relu"),
    "kaiming_normal out": lambda w: init.kaiming_normal_(w, 0.1, "fan_out"),
    "xavier_uniform": init.xavier_uniform_,
    "xavier_normal": lambda w: init.xavier_normal_(w, gain=2.0),
    "torch_default": lambda w: init.kaiming_uniform_(w, math.sqrt(5)),
    "orthogonal": init.orthogonal_,
}


@pytest.mark.parametrize("name", ORACLES)
def test_moments_and_bounds_are_those_of_pytorch(name):
    ours = ALL[name](KEY, WEIGHT)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = ORACLES[name](torch.empty(WEIGHT))
    std = theirs.std().item()
    assert ours.mean().item() == pytest.approx(theirs.mean().item(), abs=6 * std / math.sqrt(ours.numel()))
    assert ours.std().item() == pytest.approx(std, rel=0.02)
    if "uniform" in name or name in ("truncated_normal", "torch_default"):
        assert ours.min().item() == pytest.approx(theirs.min().item(), abs=0.02 * std)
        assert ours.max().item() == pytest.approx(theirs.max().item(), abs=0.02 * std)
    else:  # the tails of normal draws
        assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.25)


@pytest.mark.parametrize(
    ("initializer", "bound"),
    [
        (initializers.kaiming_uniform(), math.sqrt(6 / 800)),
        (initializers.kaiming_uniform(mode="fan_out"), math.sqrt(6 / 1600)),
        (initializers.xavier_uniform(gain=3.0), 3 * math.sqrt(6 / 2400)),
        (initializers.lecun_uniform(), math.sqrt(3 / 800)),
        (initializers.torch_default(), 1 / math.sqrt(800)),
        (initializers.torch_default_bias(800), 1 / math.sqrt(800)),
    ],
)
def test_uniform_draws_fill_their_bounds(initializer, bound):
    draws = initializer(KEY, WEIGHT, torch.float64)
    assert 0.999 * bound < draws.max() <= bound and -0.999 * bound > draws.min() >= -bound


def test_lecun_normal_has_the_variance_of_one_over_fan_in():
    assert initializers.lecun_normal()(KEY, WEIGHT).std().item() == pytest.approx(1 / math.sqrt(800), rel=0.02)


def test_normal_and_uniform_form_have_one_standard_deviation():
    normal, uniform = (f()(KEY, WEIGHT) for f in (initializers.kaiming_normal, initializers.kaiming_uniform))
    assert normal.std().item() == pytest.approx(uniform.std().item(), rel=0.02)
    # Of normal draws the fourth moment is 3 standard deviations to the fourth, of uniform ones 1.8.
    assert (normal**4).mean() / normal.var() ** 2 == pytest.approx(3.0, rel=0.1)
    assert (uniform**4).mean() / uniform.var() ** 2 == pytest.approx(1.8, rel=0.05)


def test_kaiming_keeps_the_mean_square_through_relu_layers():
    x = random.normal(random.fold_in(KEY, 0), (256, 512))
    for i in range(1, 21):
        x = torch.relu(x @ initializers.kaiming_uniform()(random.fold_in(KEY, i), (512, 512)).T)
    assert 0.5 < (x**2).mean().item() < 2.0


def test_pytorchs_layers_still_have_the_default_that_torch_default_copies():
    layer = torch.nn.Linear(10_000, 20)
    weight = initializers.torch_default()(KEY, (20, 10_000))
    assert weight.abs().max().item() == pytest.approx(layer.weight.abs().max().item(), rel=1e-3)
    bias = initializers.torch_default_bias()(KEY, (20_000,), fan_in=10_000)
    assert layer.bias.abs().max().item() <= 0.01 and bias.abs().max().item() == pytest.approx(0.01, rel=1e-3)


# Orthogonal.


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 2, 3, 3), (30, 2, 3, 3)])
def test_orthogonal_rows_or_columns(shape):
    matrix = initializers.orthogonal(gain=2.0)(KEY, shape, torch.float64).flatten(1)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    torch.testing.assert_close(gram, 4.0 * torch.eye(len(gram), dtype=torch.float64))


def test_orthogonal_matrices_are_uniformly_distributed():
    # Uniform on the circle: the first element has mean 0 and mean square 1/2, and the determinant has both signs.
    keys = random.split(KEY, 2000)
    draws = torch.func.vmap(lambda key: initializers.orthogonal()(key, (2, 2)))(keys)
    assert abs(draws[:, 0, 0].mean().item()) < 0.08
    assert draws[:, 0, 0].square().mean().item() == pytest.approx(0.5, abs=0.04)
    assert (torch.linalg.det(draws) > 0).float().mean().item() == pytest.approx(0.5, abs=0.06)


# Functions of the key.


@every
def test_the_same_key_gives_the_same_values_in_the_shape_and_dtype_asked_for(initializer):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        first, again = (initializer(KEY, (4, 3, 2), dtype) for _ in range(2))
        assert (first.shape, first.dtype) == ((4, 3, 2), dtype)
        assert torch.equal(first, again)
    assert initializer(KEY, (4, 3)).dtype == torch.float32


@every
def test_another_key_gives_other_values(initializer):
    varied = initializer(KEY, (4, 3))
    if varied.unique().numel() > 1:
        assert not torch.equal(varied, initializer(random.key(1), (4, 3)))


@every
def test_traced_and_mapped_is_what_runs_eagerly(initializer):
    draw = lambda key: initializer(key, (4, 3))  # noqa: E731
    keys = random.split(KEY, 3)
    wanted = torch.stack([draw(key) for key in keys])
    assert torch.equal(torch.func.vmap(draw)(keys), wanted)
    traced = make_fx(draw, tracing_mode="fake")(KEY)
    assert torch.equal(torch.stack([traced(key) for key in keys]), wanted)


def test_constants():
    assert torch.equal(initializers.zeros()(KEY, (2, 3)), torch.zeros(2, 3))
    assert torch.equal(initializers.ones()(KEY, (3,)), torch.ones(3))
    assert torch.equal(initializers.constant(0.3)(KEY, ()), torch.tensor(0.3))


# Messages.


@pytest.mark.parametrize("shape", [(), (5,), (0, 3), (3, 2, 0)])
@pytest.mark.parametrize("of", [initializers.fans, initializers.receptive_field])
def test_a_shape_without_fans_is_an_error(of, shape):
    with pytest.raises(ShapeMismatch, match=r"axes \(out, in, \*kernel\).*got shape.*zeros, ones"):
        of(shape)


def test_an_initializer_that_needs_fans_refuses_a_bias():
    for name in ("kaiming_uniform", "xavier_normal", "lecun_normal", "orthogonal"):
        with pytest.raises(ShapeMismatch, match="got shape"):
            ALL[name](KEY, (5,))


@every
def test_a_dtype_that_is_not_floating_is_an_error(initializer):
    with pytest.raises(DtypeMismatch, match=r"must be a floating-point dtype.*got torch.int64"):
        initializer(KEY, (4, 3), torch.int64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: initializers.kaiming_uniform(mode="fan_on"), "mode must be 'fan_in' or 'fan_out', got 'fan_on'"),
        (lambda: initializers.kaiming_normal(mode="in"), "mode must be"),
        (lambda: initializers.uniform(1.0, 1.0), "low must be below high, got low=1.0 and high=1.0"),
        (lambda: initializers.truncated_normal(low=2.0, high=-2.0), "low must be below high"),
        (lambda: initializers.normal(std=-1.0), "std must be at least 0, got -1.0"),
        (lambda: initializers.truncated_normal(std=math.nan), "std must be at least 0, got nan"),
        (lambda: initializers.torch_default_bias(0), "fan_in must be at least 1, got 0"),
        (lambda: initializers.torch_default_bias()(KEY, (3,)), "needs the weight's fan_in, at least 1, got None"),
        (lambda: initializers.torch_default_bias()(KEY, (3,), fan_in=0), "needs the weight's fan_in"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()
