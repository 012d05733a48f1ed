"""Boundaries are exact: a milestone at step m of n is in force in step m, and not in step m - 1."""

import itertools
import math
from fractions import Fraction

import pytest
import torch

import functrain as ft
from functrain import schedule
from functrain.schedule import Progress, constant, join, value

MOST = 80
DTYPES = [torch.float32, torch.float64]


def two(m, n):
    return join([m / n, 1 - m / n], [constant(1.0), constant(2.0)])


def expected(m, n):
    return [1.0] * m + [2.0] * (n - m + 1)


def test_of_all_steps_of_all_runs_in_floats():
    for n in range(2, MOST + 1):
        for m in range(1, n):
            phases = two(m, n)
            assert [phases(k / n) for k in range(n + 1)] == expected(m, n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_of_all_steps_of_all_runs_in_tensors(dtype):
    for n in range(2, MOST + 1):
        positions = torch.arange(n + 1, dtype=dtype) / n
        for m in range(1, n):
            assert two(m, n)(positions).tolist() == expected(m, n)


@pytest.mark.parametrize("n", [997, 10_000, 999_983])
@pytest.mark.parametrize("dtype", DTYPES)
def test_of_long_runs(n, dtype):
    for m in (1, 7, n // 3, n // 2, n - 1):
        near = torch.tensor([m - 1, m, m + 1], dtype=dtype) / n
        assert two(m, n)(near).tolist() == [1.0, 2.0, 2.0]
        assert [two(m, n)(k / n) for k in (m - 1, m, m + 1)] == [1.0, 2.0, 2.0]


@pytest.mark.parametrize("parts", [[0.1, 0.2, 0.7], [0.1] * 10, [1 / 7] * 7, [0.05] * 20, [0.3, 0.3, 0.4], [1 / 3] * 3])
def test_parts_that_floats_cannot_add_up(parts):
    # As the parts are written: decimals, or shares of n.
    exact = [Fraction(part).limit_denominator(1000) for part in parts]
    edges = list(itertools.accumulate(exact))
    phases = join(parts, [constant(float(i)) for i in range(len(parts))])
    for n in (edge.denominator * k for edge in edges for k in (1, 3, 10)):
        wanted = [float(min(sum(Fraction(k, n) >= edge for edge in edges), len(parts) - 1)) for k in range(n + 1)]
        assert [phases(k / n) for k in range(n + 1)] == wanted
        for dtype in DTYPES:
            assert phases(torch.arange(n + 1, dtype=dtype) / n).tolist() == wanted


@pytest.mark.parametrize("n", [10, 30, 70, 90, 110])
def test_where_values_cannot_be_read(n):
    phases = join([0.1, 0.2, 0.7], [constant(1.0), constant(0.1), constant(0.01)])
    wanted = [phases(k / n) for k in range(n + 1)]
    assert wanted[3 * n // 10] == 0.01 and wanted[3 * n // 10 - 1] == 0.1
    at = torch.arange(n + 1, dtype=torch.float64) / n
    assert ft.vmap(phases)(at).tolist() == wanted
    assert [ft.jit(phases)(one).item() for one in at] == wanted


def test_the_clocks_of_updates_and_epochs_have_the_same_boundaries():
    for n in range(2, 60):
        for m in range(1, n):
            by_updates, by_epochs = schedule.over_updates(n, two(m, n)), schedule.over_epochs(7, two(m, n))
            for k in (m - 1, m):
                wanted = 1.0 if k < m else 2.0
                assert value(by_updates, Progress(updates=k)) == wanted
                assert value(by_updates, Progress(updates=torch.tensor(k))) == wanted
                assert value(by_epochs, Progress(epoch=k / n * 7)) == wanted


def test_phases_inside_of_phases():
    inner = join([0.1, 0.2, 0.7], [constant(1.0), constant(2.0), constant(3.0)])
    outer = join([0.3, 0.1, 0.6], [constant(0.0), inner, constant(4.0)])
    for n in (100, 300, 700):
        edges = [3 * n // 10, 31 * n // 100, 33 * n // 100, 4 * n // 10]
        wanted = [float(sum(k >= edge for edge in edges)) for k in range(n + 1)]
        assert [outer(k / n) for k in range(n + 1)] == wanted
        assert outer(torch.arange(n + 1, dtype=torch.float64) / n).tolist() == wanted


def test_a_phase_begins_where_its_schedule_begins():
    phases = join([0.1, 0.2, 0.7], [schedule.linear(0.0, 1.0), schedule.linear(5.0, 6.0), schedule.linear(8.0, 9.0)])
    for n in (10, 20, 70, 130):
        for dtype in DTYPES:
            at = torch.tensor([n // 10, 3 * n // 10], dtype=dtype) / n
            assert phases(at).tolist() == pytest.approx([5.0, 8.0], abs=1e-5 if dtype == torch.float32 else 1e-12)
        assert phases(3 / 10) == 8.0 and phases(1.0) == 9.0 and phases(0.0) == 0.0


def _constant_between(every):
    edges = _multiples(every)
    return schedule.piecewise_constant(edges, range(len(edges) + 1))


def _doubling(every):
    made = schedule.step(1.0, every, 2.0)
    return schedule.Schedule(lambda position: _log2(made.f(position)))


STAIRS = {"piecewise_constant": _constant_between, "step": _doubling}


def _multiples(every):
    return [k * every for k in range(1, 1000) if k * every < 1 - 1e-9]


def _log2(number):
    return torch.log2(number).round() if isinstance(number, torch.Tensor) else float(round(math.log2(number)))


@pytest.mark.parametrize("name", STAIRS)
@pytest.mark.parametrize("dtype", [None, *DTYPES])
def test_stairs_in_equal_times_begin_in_the_step_that_they_name(name, dtype):
    for n in (10, 30, 70, 97):
        for m in (1, 3, 7, 9):
            made = STAIRS[name](m / n)
            wanted = [float(k // m) for k in range(n)]
            if dtype is None:
                assert [made(k / n) for k in range(n)] == wanted
            else:
                assert made(torch.arange(n, dtype=dtype) / n).tolist() == wanted


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_triangle_begins_again_where_it_ended(dtype):
    for n, m in ((30, 3), (70, 7), (90, 9), (99, 11)):
        waves, at = schedule.triangular(0.0, 1.0, n / m), torch.arange(n + 1, dtype=dtype) / n
        wanted = [1 - abs(2 * (k % m) / m - 1) for k in range(n + 1)]
        slack = 1e-9 if dtype == torch.float64 else 1e-4
        assert waves(at).tolist() == pytest.approx(wanted, abs=slack)
        assert [waves(k / n) for k in range(n + 1)] == pytest.approx(wanted, abs=1e-9)
