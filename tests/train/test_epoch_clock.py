"""The epoch of a run's progress is the batches consumed over those of an epoch, whatever `steps` is."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_problems import problem

import functrain as ft
from functrain import callbacks, optim, schedule, tree

BOTH = pytest.mark.parametrize("jit", [False, "aten"])


@BOTH
@pytest.mark.parametrize("total", [dict(steps=3), dict(steps=10), dict(steps=14), dict(steps=17), dict(epochs=3)])
def test_a_schedule_of_epochs_does_not_bend_with_the_number_of_steps(jit, total):
    lr = schedule.over_epochs(4, schedule.linear(1.0, 0.0))
    learner, state, train, valid = problem(optimizer=optim.sgd(lr=lr))
    run = ft.fit(learner, state, train=train, valid=valid, callbacks=[callbacks.record()], jit=jit, **total)
    steps = total.get("steps", 21)
    recorded = run.memory["record"]
    assert recorded["epoch"].tolist() == [step / 7 for step in range(steps)]
    assert recorded["lr"].tolist() == pytest.approx([1 - step / 28 for step in range(steps)], abs=1e-12)
    assert run.progress.epoch == steps / 7 and run.progress.position == 1.0


@BOTH
def test_steps_of_a_source_without_a_length_are_one_epoch(jit):
    learner, state, train, _ = problem(optimizer=optim.sgd(lr=schedule.over_epochs(2, schedule.linear(1.0, 0.0))))
    batches = (train.dataset[:8] for _ in range(5))
    run = ft.fit(learner, state, train=batches, steps=5, callbacks=[callbacks.record()], jit=jit)
    assert run.memory["record"]["lr"].tolist() == pytest.approx([1 - k / 10 for k in range(5)])


def test_a_loop_of_ones_own_counts_epochs_alike():
    seen = []
    look = ft.Callback("look", {"begin_batch": lambda run: seen.append(run.progress)})

    def step(total, batch):
        return total + batch.sum(), None

    batches = [torch.ones(2)] * 3
    run = ft.loop(step, torch.tensor(0.0), key=ft.random.key(0), train=batches, steps=5, callbacks=[look], jit=False)
    assert [(p.position, p.epoch) for p in seen] == [(k / 5, k / 3) for k in range(5)]
    assert (run.progress.position, run.progress.epoch) == (1.0, 5 / 3)


@given(length=st.integers(1, 10**6), epochs=st.integers(1, 300), data=st.data())
def test_both_are_the_nearest_floats_and_exact_at_the_boundaries(length, epochs, data):
    zero = torch.tensor(0)
    total = length * epochs - data.draw(st.integers(0, length - 1))
    done = data.draw(st.integers(0, total))
    state = ft.TrainState({}, {}, (), zero, zero + 40 + done, zero, zero + 40, zero + 40 + total, zero + length)
    plain = ft.progress_of(state)
    assert plain.position == float(Fraction(done, total)) and plain.epoch == float(Fraction(done, length))
    traced = ft.jit(lambda state: tree.leaves(ft.progress_of(state)))(state)
    assert [float(traced[0]), float(traced[2])] == [plain.position, plain.epoch]


def test_nothing_planned_and_after_the_end():
    _, state, _, _ = problem()
    assert (ft.progress_of(state).position, ft.progress_of(state).epoch) == (0.0, 0.0)
    state = tree.evolve(ft.plan(state, steps=4, epochs=2), step=torch.tensor(11))
    assert (ft.progress_of(state).position, ft.progress_of(state).epoch) == (1.0, 2.0)
    seen = torch.func.vmap(ft.progress_of)(tree.map(lambda leaf: leaf[None], state))
    assert (float(seen.position), float(seen.epoch)) == (1.0, 2.0)
