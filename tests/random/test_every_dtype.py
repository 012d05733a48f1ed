"""Draws of numbers and initializers have the right distribution in every dtype, the two of 16 bits included."""

import math

import pytest
import torch

from functrain import initializers, nn, random
from tests.random.bands import normal_cdf, rounded_kolmogorov_smirnov

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
MILLION = 10**6


def uniform(low, high):
    return (low + high) / 2, (high - low) ** 2 / 12, 1.8, lambda x: ((x - low) / (high - low)).clamp(0, 1)


def normal(mean, std):
    return mean, std**2, 3.0, lambda x: normal_cdf((x - mean) / std)


def truncated(mean, std):
    """Of a normal distribution cut at two standard deviations; its kurtosis is 2.37."""
    density, inside = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(math.sqrt(2))
    cdf = lambda x: ((normal_cdf(((x - mean) / std).clamp(-2, 2)) - (1 - inside) / 2) / inside).clamp(0, 1)  # noqa: E731
    return mean, std**2 * (1 - 4 * density / inside), 2.37, cdf


BOUND = math.sqrt(6 / 1000)
DRAWS = {
    "uniform": (lambda key, n, dtype: random.uniform(key, n, dtype=dtype), uniform(0, 1)),
    "uniform around 0": (lambda key, n, dtype: random.uniform(key, n, -0.1, 0.1, dtype), uniform(-0.1, 0.1)),
    "uniform aside": (lambda key, n, dtype: random.uniform(key, n, -3.0, 5.0, dtype), uniform(-3, 5)),
    "uniform by tensors": (
        lambda key, n, dtype: random.uniform(key, n, torch.tensor(-1.0), torch.tensor(2.0), dtype),
        uniform(-1, 2),
    ),
    "normal": (lambda key, n, dtype: random.normal(key, n, dtype), normal(0, 1)),
    "truncated_normal": (lambda key, n, dtype: random.truncated_normal(key, n, dtype=dtype), truncated(0, 1)),
    "initializers.uniform": (initializers.uniform(-0.2, 0.4), uniform(-0.2, 0.4)),
    "initializers.normal": (initializers.normal(0.3, 0.1), normal(0.1, 0.3)),
    "initializers.truncated_normal": (initializers.truncated_normal(0.3, 0.1), truncated(0.1, 0.3)),
    "torch_default_bias": (initializers.torch_default_bias(800), uniform(-1 / math.sqrt(800), 1 / math.sqrt(800))),
    "kaiming_uniform": (initializers.kaiming_uniform(), uniform(-BOUND, BOUND)),
    "kaiming_normal": (initializers.kaiming_normal(), normal(0, math.sqrt(2 / 1000))),
    "xavier_uniform": (initializers.xavier_uniform(), uniform(-math.sqrt(6 / 2000), math.sqrt(6 / 2000))),
    "xavier_normal": (initializers.xavier_normal(), normal(0, math.sqrt(2 / 2000))),
    "lecun_uniform": (initializers.lecun_uniform(), uniform(-math.sqrt(3 / 1000), math.sqrt(3 / 1000))),
    "lecun_normal": (initializers.lecun_normal(), normal(0, math.sqrt(1 / 1000))),
    "torch_default": (initializers.torch_default(), uniform(-math.sqrt(1 / 1000), math.sqrt(1 / 1000))),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_has_its_distribution_in_every_dtype(name, dtype):
    draw, (mean, variance, kurtosis, cdf) = DRAWS[name]
    values = draw(random.key(31), (1000, 1000), dtype)
    assert values.dtype is dtype
    found = values.double()
    assert abs(found.mean().item() - mean) < 4.5 * math.sqrt(variance / MILLION)
    assert abs(found.var().item() / variance - 1) < 4.5 * math.sqrt((kurtosis - 1) / MILLION)
    assert rounded_kolmogorov_smirnov(values.flatten(), cdf) < 1.95  # above once in a thousand keys


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["kaiming_uniform", "kaiming_normal", "torch_default", "xavier_uniform"])
def test_outputs_of_an_initialised_layer_are_centred(name, dtype):
    # Outputs for an input of ones are sums of rows, in which a shift of each weight adds up.
    outputs = DRAWS[name][0](random.key(32), (2048, 4096), dtype).double().sum(1)
    assert abs(outputs.mean().item()) < 4.5 * outputs.std().item() / math.sqrt(2048)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_orthogonal_weights_are_centred_and_orthogonal_in_every_dtype(dtype):
    weight = initializers.orthogonal()(random.key(33), (256, 1024), dtype)
    assert weight.dtype is dtype
    exact = weight.double()
    assert abs(exact.mean().item()) < 4.5 / 1024 / math.sqrt(256 * 1024) * 32  # the standard deviation is 1 / 32
    torch.testing.assert_close(exact @ exact.T, torch.eye(256, dtype=torch.float64), rtol=0, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_dropout_keeps_the_mean_in_every_dtype(dtype, rate):
    x = torch.full((MILLION,), 1.7, dtype=dtype)
    y, _ = nn.dropout(rate).apply({}, {}, x, nn.training(random.key(34)))
    assert y.dtype is dtype
    kept = (y != 0).double().mean().item()
    assert abs(kept - (1 - rate)) < 4.5 * math.sqrt(rate * (1 - rate) / MILLION)
    # A kept value is the quotient: rounded once, or in float32, where the factor is rounded too, off by one digit.
    exact = x[0].double() / (round((1 - rate) * 2**16) / 2**16)
    dropped, value = y.unique()
    assert dropped == 0
    torch.testing.assert_close(value, exact.to(dtype), rtol=2**-23 if dtype is torch.float32 else 0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_the_mask_of_the_highest_rate_is_finite(dtype, as_tensor):
    rate = torch.tensor(0.999999, dtype=torch.float64) if as_tensor else 0.999999
    assert bool(random.dropout_mask(random.key(0), rate, (400_000,), dtype).isfinite().all())
