"""The law of fits: chunks, stops and resumes change no bit; eager and compiled give the same numbers."""

import os
import random

import attrs
import pytest
import torch
from random_fits import draw, run, stopper
from torch.utils.data import DataLoader

import functrain as ft
from functrain import tree

SEEDS = range(int(os.environ.get("FUNCTRAIN_FITS", "12")))
STOPS = int(os.environ.get("FUNCTRAIN_STOPS", "6"))
"""How many fits are drawn, and from how many random stops each is resumed."""
INDUCTOR = (12, 28)
"""Few, as compiling takes its time: an accumulation over resident arrays with a batch norm; a transform with parts."""


def same(one, other, words):
    for name in ("state", "history", "memory"):
        a, b = getattr(one, name), getattr(other, name)
        if name == "memory":
            a, b = ({k: v for k, v in m.items() if k != "stopper"} for m in (a, b))
        if name == "history":
            assert repr(list(a)) == repr(list(b)), words  # NaN, where all was skipped, is NaN
        else:
            assert tree.equal(a, b), (words, name, tree.differences(a, b))
    assert one.stopped == other.stopped, words


RTOL, ATOL = 2e-3, 2e-4
"""How near eager and compiled fits are, those of bfloat16 too. Measured: of 400 seeds 74 draw a model in bfloat16; with
one thread and with two, 33 of these fits are the same to the bit, and no number of the others differs by more than
2.4e-7, an ulp of float32. One rounding that falls to the other side, 2^-9 of a number, is still within the bound."""


def near(one, other, words):
    assert not tree.differences(one.state, other.state, rtol=RTOL, atol=ATOL), words
    assert len(one.history) == len(other.history), words
    for a, b in zip(one.history, other.history, strict=True):
        assert a == pytest.approx(b, rel=RTOL, abs=ATOL, nan_ok=True), words


def from_anywhere(fit):
    """Return the fit with lists in place of DataLoaders, which begin where they begin when a run goes on."""
    valid = {name: list(one) if isinstance(one, DataLoader) else one for name, one in fit.valid.items()}
    return attrs.evolve(fit, valid=valid, source="list" if fit.source == "DataLoader" else fit.source)


@pytest.fixture
def threads(seed, request):
    """Every other fit runs with two threads, and some as if its state were large."""
    if seed % 3:
        request.getfixturevalue("large")
    before = torch.get_num_threads()
    torch.set_num_threads(1 + seed % 2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("seed", SEEDS)
def test_chunks_change_no_bit_and_compiling_no_number(seed):
    fit = draw(seed)
    eager = [run(fit, jit=False, chunk=chunk) for chunk in (1, 3, 1000)]
    compiled = [run(fit, jit="aten", chunk=chunk) for chunk in (1, 3, 8, 1000)]
    for other in eager[1:]:
        same(eager[0], other, fit.words)
    for other in compiled[1:]:
        same(compiled[0], other, fit.words)
    near(eager[0], compiled[0], fit.words)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_resumed_from_any_stop_is_the_uninterrupted_run(seed, jit):
    fit, rng = from_anywhere(draw(seed)), random.Random(seed)
    for _ in range(STOPS):
        event = rng.choice([e for e in ft.train.EVENTS if e != "after_fit"])
        number = rng.choice([1, 2, 3, 7, 12])
        whole = run(fit, jit=jit, chunk=3, more=[stopper(event, 10**6)])
        callback = [stopper(event, number)]
        stopped = run(fit, jit=jit, chunk=3, more=callback)
        if stopped.stopped is None or stopped.stopped.callback != "stopper":  # the event did not come so often
            same(stopped, whole, (fit.words, event, number))
            continue
        assert stopped.stopped.event == event
        on = run(fit, stopped, jit=jit, chunk=rng.choice([1, 3, 8]), more=callback)
        same(on, whole, (fit.words, event, number))


def test_the_number_of_threads_changes_no_number():
    fit = draw(1, rare=False)
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            runs.append([run(fit, jit=jit, chunk=chunk) for jit, chunk in ((False, 3), ("aten", 3), ("aten", 8))])
        for one, two in zip(*runs, strict=True):
            near(one, two, fit.words)
        same(runs[1][1], runs[1][2], fit.words)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("seed", INDUCTOR)
def test_inductor_gives_the_same_numbers_and_a_resumed_run_the_same_bits(seed):
    fit = draw(seed, rare=False)
    options = dict(jit="inductor", chunk=8)  # the same compiled functions each time
    whole = run(fit, more=[stopper("after_epoch", 10**6)], **options)
    near(run(fit, jit=False), whole, fit.words)
    callback = [stopper("after_epoch", 1)]
    stopped = run(fit, more=callback, **options)
    assert stopped.stopped.event == "after_epoch"
    same(run(fit, stopped, more=callback, **options), whole, fit.words)
