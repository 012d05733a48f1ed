"""Schedules in every dtype of the position against the same formula in float64; what is not finite is passed on."""

import math

import pytest
import torch

import functrain as ft
from functrain import schedule
from functrain.errors import InvalidArgument

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
EXACT = {
    "no": (schedule.constant(0.3), lambda p: 0.3),
    "lin": (schedule.linear(0.1, 0.7), lambda p: 0.1 + 0.6 * p),
    "cos": (schedule.cosine(0.1, 0.7), lambda p: 0.1 + 0.3 * (1 - math.cos(math.pi * p))),
    "exp": (schedule.exponential(0.1, 0.7), lambda p: 0.1 * 7.0**p),
    "poly": (schedule.polynomial(0.1, 0.7, 3), lambda p: 0.1 + 0.6 * (1 - (1 - p) ** 3)),
    "combine": (
        schedule.join([0.25, 0.75], [schedule.linear(0.0, 1.0), schedule.linear(1.0, 0.4)]),
        lambda p: 4 * p if p < 0.25 else 1 - 0.8 * (p - 0.25),
    ),
    "warmup": (schedule.warmup(0.25, schedule.constant(1.0)), lambda p: min(4 * p, 1.0)),
    "sum": (schedule.linear(0.1, 0.7) + schedule.linear(0.2, 0.1), lambda p: 0.3 + 0.5 * p),
    "product": (schedule.linear(0.1, 0.7) * schedule.linear(1.0, 0.5), lambda p: (0.1 + 0.6 * p) * (1 - 0.5 * p)),
    "power": (schedule.linear(0.1, 0.7) ** 2, lambda p: (0.1 + 0.6 * p) ** 2),
    "triangular": (schedule.triangular(0.1, 0.7), lambda p: 0.1 + 0.6 * min(2 * p, 2 - 2 * p)),
    "inverse_sqrt": (schedule.inverse_sqrt(0.7, 0.25), lambda p: 2.8 * p if p < 0.25 else 0.7 * math.sqrt(0.25 / p)),
    "reverse": (schedule.reverse(schedule.linear(0.1, 0.7)), lambda p: 0.7 - 0.6 * p),
    "shift": (schedule.shift(0.25, schedule.linear(0.1, 0.7)), lambda p: 0.1 + 0.6 * max(p - 0.25, 0.0)),
    "clip": (schedule.clip(0.2, 0.6, schedule.linear(0.1, 0.7)), lambda p: min(max(0.1 + 0.6 * p, 0.2), 0.6)),
    "interpolate": (
        schedule.interpolate([0.25], [0.1, 0.7, 0.4]),
        lambda p: 0.1 + 2.4 * p if p < 0.25 else 0.8 - 0.4 * p,
    ),
    "scaled": (2 * schedule.linear(0.1, 0.7), lambda p: 0.2 + 1.2 * p),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EXACT)
def test_values_are_those_of_the_formula(name, dtype):
    made, formula = EXACT[name]
    position = torch.linspace(0, 1, 57, dtype=torch.float64).to(dtype)
    exact = torch.tensor([formula(p) for p in position.double().tolist()], dtype=torch.float64)
    eps = torch.finfo(dtype).eps
    for values in (made(position), ft.vmap(made)(position), ft.jit(made)(position)):
        assert values.dtype == dtype and values.shape == position.shape
        torch.testing.assert_close(values.double(), exact, rtol=8 * eps, atol=8 * eps)
    if name not in ("sum", "product", "power"):  # whose parts are rounded before they are combined
        assert made(position)[-1].item() == torch.tensor(made(1.0), dtype=torch.float64).to(dtype).item()


@pytest.mark.parametrize("name", EXACT)
def test_a_position_that_is_not_finite_is_refused_or_passed_on(name):
    made, _ = EXACT[name]
    for wrong in (math.nan, math.inf):
        with pytest.raises(InvalidArgument, match=r"position must be in \[0, 1\]"):
            made(torch.tensor(wrong))
        with pytest.raises(InvalidArgument, match=r"position must be (in|a number in) \[0, 1\]"):
            made(wrong)
    if name != "no":
        assert ft.jit(made)(torch.tensor(math.nan)).isnan()
