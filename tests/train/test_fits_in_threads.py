"""Threads that fit one learner at once get what they would get one after another, and trace nothing twice."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from training_problems import problem

import functrain as ft
from functrain import data, tree
from functrain.engine.calling import jitting
from functrain.train.looping.compiling import DONATED_FROM, MOST, keep

THREADS = 6


def at_once(f, count=THREADS):
    """Return what a function of a number returns in as many threads, which begin together."""
    barrier = threading.Barrier(count)

    def begin(number):
        barrier.wait(60)
        return f(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(begin, range(count)))


class Owner:
    pass


def test_threads_that_make_at_once_share_what_the_first_has_made():
    owner, made = Owner(), threading.Barrier(THREADS)

    def make():
        made.wait(60)  # until each of them has found nothing
        return object()

    assert len(set(at_once(lambda number: keep(owner, "key", make)))) == 1


def test_threads_that_push_each_other_out_get_what_they_asked_for():
    owner = Owner()

    def many(number):
        keys = [(number * k) % (2 * MOST) for k in range(300)]
        return [keep(owner, key, lambda key=key: [key]) == [key] for key in keys]

    assert all(all(right) for right in at_once(many))
    assert len(vars(vars(owner)["_compiled"])["functions"]) == MOST


def stopping():
    def stop(step):
        return ft.Stop(step, when=step.state.step >= 5, scope="fit", reason="five")

    return ft.Callback("stopping", {"after_step": stop})


def ways():
    learner, state, train, valid = problem()
    stop = stopping()
    return [
        lambda: ft.fit(learner, state, train=train, valid=valid, epochs=2),
        lambda: ft.fit(learner, state, train=train, epochs=2, callbacks=[stop]),
        lambda: ft.fit(learner, state, train=train, epochs=2, callbacks=[stop], jit=False),
        lambda: ft.fit(learner, state, train=list(data.batches(valid)), epochs=2, callbacks=[stop]),
        lambda: ft.evaluate(learner, state, valid),
        lambda: ft.predict(learner, state, valid),
    ]


def alike(one, other):
    if not isinstance(one, ft.train.Run):
        return tree.equal(one, other)
    return tree.equal(one.state, other.state) and one.history == other.history and one.stopped == other.stopped


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_threads_that_fit_one_learner_get_the_bits_of_one_after_another(mixed, large, monkeypatch):
    traces, trace = [], jitting.trace

    def noting(f, *args, **options):
        traces.append(1)
        return trace(f, *args, **options)

    def run(number, ways):
        before = DONATED_FROM.set(0 if large else 1 << 20)
        count = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return ways[number % len(ways)]()
        finally:
            torch.set_num_threads(count)
            DONATED_FROM.reset(before)

    monkeypatch.setattr(jitting, "trace", noting)
    alone = [run(k, ways()[k : k + 1]) for k in range(len(ways()))]
    for first in range(1 if mixed else len(alone)):
        together, expected = ways(), alone
        if not mixed:
            together, expected = together[first : first + 1], alone[first : first + 1]
        traces.clear()
        run_alone = at_once(lambda number, together=together: run(number, together))
        assert all(alike(one, expected[k % len(expected)]) for k, one in enumerate(run_alone))
        count = len(traces)
        at_once(lambda number, together=together: run(number, together))
        assert len(traces) == count
