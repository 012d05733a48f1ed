"""Whole runs of our schedules against torch's schedulers, optax's values, and fastai's formulas."""

import json
import math

import golden_schedules
import pytest
import torch

import functrain as ft
from functrain import schedule
from functrain.schedule import Progress, cosine, exponential, linear, over_updates, value

lr_scheduler = torch.optim.lr_scheduler
N = 40


def run_of_torch(make, lr=0.5, steps=N):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr, momentum=0.9)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def run_of_ours(made, steps=N, length=N):
    counted = made if made.clock == "progress" else over_updates(length, made)
    rates = [value(counted, Progress(updates=i)) for i in range(steps)]
    traced = ft.jit(lambda i: value(counted, Progress(updates=i)))
    for i in range(0, steps, 3):  # as a compiled step sees it
        assert traced(torch.tensor(i)).item() == pytest.approx(rates[i], rel=1e-9, abs=1e-12)
    return rates


def cyclic(**options):
    return lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.5, step_size_up=5, cycle_momentum=False, **options)


def one_cycle_of_torch(**options):
    return lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.6, total_steps=N + 1, cycle_momentum=False, **options)


LOW, END = 0.6 / 25, 0.6 / 25 / 1e4
TORCH = {
    "StepLR": (schedule.step(0.5, 7 / N, 0.3), lambda o: lr_scheduler.StepLR(o, 7, 0.3)),
    "StepLR that divides": (schedule.step(0.5, 10 / N, 0.1), lambda o: lr_scheduler.StepLR(o, 10)),
    "MultiStepLR": (
        schedule.multistep(0.5, [3 / N, 7 / N, 29 / N], 0.3),
        lambda o: lr_scheduler.MultiStepLR(o, [3, 7, 29], 0.3),
    ),
    "MultiStepLR twice at one": (
        schedule.multistep(0.5, [7 / N, 7 / N], 0.3),
        lambda o: lr_scheduler.MultiStepLR(o, [7, 7], 0.3),
    ),
    "ConstantLR": (
        schedule.piecewise_constant([11 / N], [0.5 / 3, 0.5]),
        lambda o: lr_scheduler.ConstantLR(o, 1 / 3, 11),
    ),
    "LinearLR": (schedule.warmup(11 / N, schedule.constant(0.5), 0.1), lambda o: lr_scheduler.LinearLR(o, 0.2, 1, 11)),
    "PolynomialLR": (schedule.polynomial(0.5, 0.0, 2), lambda o: lr_scheduler.PolynomialLR(o, N, 2)),
    "CosineAnnealingLR": (cosine(0.5, 0.1), lambda o: lr_scheduler.CosineAnnealingLR(o, N, 0.1)),
    "ExponentialLR": (exponential(0.5, 0.5 * 0.9**N), lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
    "LambdaLR": (
        schedule.Schedule(lambda position: 0.5 * 0.3**position),
        lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.3 ** (step / N)),
    ),
    "SequentialLR": (
        schedule.join([10 / N, 30 / N], [schedule.constant(0.05), exponential(0.5, 0.5 * 0.9**30)]),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.ConstantLR(o, 0.1, 100), lr_scheduler.ExponentialLR(o, 0.9)], [10]
        ),
    ),
    "ChainedScheduler": (
        schedule.piecewise_constant([11 / N], [0.1, 1.0]) * exponential(0.5, 0.5 * 0.9**N),
        lambda o: lr_scheduler.ChainedScheduler(
            [lr_scheduler.ConstantLR(o, 0.1, 11), lr_scheduler.ExponentialLR(o, 0.9)]
        ),
    ),
    "CosineAnnealingWarmRestarts": (
        schedule.cosine_restarts(0.5, 0.1, cycles=4),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10, 1, 0.1),
    ),
    "CyclicLR": (schedule.triangular(0.1, 0.5, 4), cyclic()),
    "CyclicLR uneven, cut off": (schedule.triangular(0.1, 0.5, N / 12, part=5 / 12), cyclic(step_size_down=7)),
    "CyclicLR triangular2": (schedule.triangular2(0.1, 0.5, 4), cyclic(mode="triangular2")),
    "CyclicLR triangular2, cut off": (
        schedule.triangular2(0.1, 0.5, N / 12, part=5 / 12),
        cyclic(mode="triangular2", step_size_down=7),
    ),
    "CyclicLR exp_range": (
        schedule.exp_range(0.1, 0.5, 4, decay=0.95**N),
        cyclic(mode="exp_range", gamma=0.95),
    ),
    "OneCycleLR": (schedule.one_cycle(LOW, 0.6, END, 11 / N), one_cycle_of_torch(pct_start=12 / 41)),
    "OneCycleLR linear": (
        schedule.one_cycle(LOW, 0.6, END, 11 / N, shape=linear),
        one_cycle_of_torch(pct_start=12 / 41, anneal_strategy="linear"),
    ),
    "OneCycleLR three phases": (
        schedule.one_cycle(LOW, 0.6, END, 11 / N, back=22 / N),
        one_cycle_of_torch(pct_start=12 / 41, three_phase=True),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_a_run_has_the_rates_of_torchs_scheduler(name):
    ours, theirs = TORCH[name]
    assert run_of_ours(ours) == pytest.approx(run_of_torch(theirs), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("growth", [2, 3])
def test_restarts_that_grow(growth):
    length = 5 * (1 + growth + growth**2)
    ours = run_of_ours(schedule.cosine_restarts(0.5, 0.1, 3, growth=growth), length, length)
    wanted = run_of_torch(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, growth, 0.1), steps=length)
    assert ours == pytest.approx(wanted, rel=1e-9)


def test_hundreds_of_drops_are_torchs():
    steps = 3000
    ours = run_of_ours(schedule.step(0.5, 3 / steps, 0.4), steps, steps)
    assert ours == pytest.approx(run_of_torch(lambda o: lr_scheduler.StepLR(o, 3, 0.4), steps=steps), rel=1e-9)
    waves = schedule.triangular2(0.1, 0.5, cycles=2000)
    assert waves(0.5 / 2000) == pytest.approx(0.5) and waves(0.9) == pytest.approx(0.1)


def test_multistep_by_epochs_equals_torchs_that_steps_once_an_epoch():
    counted = schedule.over_epochs(9, schedule.multistep(0.5, [3 / 9, 7 / 9]))
    ours = [value(counted, Progress(epoch=epoch + batch / 5)) for epoch in range(9) for batch in range(5)]
    wanted = run_of_torch(lambda o: lr_scheduler.MultiStepLR(o, [3, 7]), steps=9)
    assert ours == pytest.approx([rate for rate in wanted for _ in range(5)], rel=1e-12)


STORED = json.loads((golden_schedules.HERE / "golden_schedules.json").read_text())
OPTAX = {
    "warmup_cosine": schedule.warmup(0.25, cosine(1.0, 0.2), 0.1),
    "cosine_exponent": 0.05 + 0.45 * cosine(1.0, 0.0) ** 2,
    "exponential_staircase": schedule.staircase(4, exponential(0.5, 0.5 / 16)),
    "exponential_begin_clipped": schedule.clip(0.2, None, schedule.shift(8 / N, exponential(0.5, 0.5 / 16))),
    "polynomial_begin": schedule.join([8 / N, 32 / N], [schedule.constant(1.0), schedule.polynomial(1.0, 0.1, 2)]),
    "piecewise_constant": schedule.piecewise_constant([11 / N, 30 / N], [1.0, 0.5, 0.05]),
    "piecewise_linear": schedule.interpolate([11 / N, 30 / N], [1.0, 0.5, 2.0, 0.2]),
    "piecewise_cosine": schedule.interpolate([11 / N, 30 / N], [1.0, 0.5, 2.0, 0.2], cosine),
    "linear_onecycle": schedule.one_cycle(0.025, 0.5, 0.025e-3, 0.3, linear, back=0.85),
    "cosine_onecycle": schedule.one_cycle(0.025, 0.5, 0.025e-3, 0.3),
    "sgdr": schedule.join(
        [0.5, 0.5], [schedule.warmup(0.2, cosine(1.0, 0.0), 0.1), schedule.warmup(0.2, cosine(0.5, 0.0), 0.1)]
    ),
    "warmup_exponential": schedule.warmup(8 / N, exponential(1.0, 0.5**3.2)),
}


@pytest.mark.parametrize("name", STORED["values"])
def test_a_run_has_the_values_of_optax(name):
    assert run_of_ours(OPTAX[name], N + 1) == pytest.approx(STORED["values"][name], rel=1e-9, abs=1e-12)


def test_the_stored_values_are_those_of_the_recipe():
    assert STORED["recipe"] == golden_schedules.digest()
    assert len(STORED["values"]["sgdr"]) == golden_schedules.STEPS + 1 == N + 1


def fastai_poly(start, end, power, position):
    return start + (end - start) * position**power


def fastai_cos(start, end, position):
    return start + (1 + math.cos(math.pi * (1 - position))) * (end - start) / 2


def transformers_inverse_sqrt(peak, warmup, step):
    return peak * (step / warmup if step < warmup else 1 / math.sqrt(step / warmup))


FORMULAS = {
    "fastai SchedPoly": (schedule.reverse(schedule.polynomial(0.2, 0.9, 3)), lambda i: fastai_poly(0.9, 0.2, 3, i / N)),
    "fastai flat_cos": (
        schedule.flat_cosine(0.9, 0.1, 0.75),
        lambda i: 0.9 if i < 30 else fastai_cos(0.9, 0.1, (i - 30) / 10),
    ),
    "fastai combined_cos": (
        schedule.one_cycle(0.1, 0.9, 0.2, 0.25),
        lambda i: fastai_cos(0.1, 0.9, i / 10) if i < 10 else fastai_cos(0.9, 0.2, (i - 10) / 30),
    ),
    "inverse square root": (schedule.inverse_sqrt(0.3, 10 / N), lambda i: transformers_inverse_sqrt(0.3, 10, i)),
    "noam": (schedule.noam(64, 10, 2.0), lambda i: 2 * 64**-0.5 * min((i + 1) ** -0.5, (i + 1) * 10**-1.5)),
    "wsd": (
        schedule.warmup_stable_decay(0.9, 0.1, 4 / N, 10 / N),
        lambda i: 0.9 * i / 4 if i < 4 else 0.9 if i < 30 else 0.9 - 0.8 * (i - 30) / 10,
    ),
    "wsd that falls as 1 - sqrt": (
        schedule.warmup_stable_decay(
            1.0, 0.0, 0.0, 10 / N, shape=lambda a, b: schedule.reverse(schedule.polynomial(b, a, 0.5))
        ),
        lambda i: 1.0 if i < 30 else 1 - math.sqrt((i - 30) / 10),
    ),
    "restarts that get lower": (
        schedule.cosine_restarts(0.8, 0.0, cycles=4, decay=0.5),
        lambda i: 0.8 * 0.5 ** (i // 10) * (1 + math.cos(math.pi * (i % 10) / 10)) / 2,
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_run_has_the_values_of_the_formula(name):
    ours, formula = FORMULAS[name]
    assert run_of_ours(ours) == pytest.approx([formula(i) for i in range(N)], rel=1e-9, abs=1e-12)
