"""A row without weight has no influence, whoever gave the weights, at whatever event before the forward."""

import attrs
import pytest
import torch
from training_problems import problem

import functrain as ft
from functrain import data, nn, optim, tree
from functrain.errors import ShapeMismatch

OUT = [1, 2, 5, 9, 17]
"""The rows that have no weight."""


def weigh(batch):
    """Return the batch in which rows of a label below 0 have no weight."""
    return attrs.evolve(batch, weight=(batch.target >= 0).float())


def centre(batch):
    return attrs.evolve(batch, input=batch.input - batch.input.mean(0))


def on(event, f, name="weigher", **options):
    def handler(record):
        return attrs.evolve(record, batch=f(record.batch))

    return ft.Callback(name, {event: handler}, phases=("train", "valid"), **options)


def on_stop(event, f):
    def handler(step):
        return ft.Stop(attrs.evolve(step, batch=f(step.batch)), when=step.state.step < 0)

    return ft.Callback("weigher", {event: handler}, phases=("train", "valid"))


def of(arrays, transform=None):
    return data.loader(data.ArrayDataset(arrays), data.sequential(8), transform=transform)


WHO = {
    "dataset": lambda x, y: (of((x, y, (y >= 0).float())), []),
    "transform": lambda x, y: (of((x, y), lambda key, batch: weigh(batch)), []),
    "begin_batch": lambda x, y: (of((x, y)), [on("begin_batch", weigh)]),
    "begin_step": lambda x, y: (of((x, y)), [on("begin_step", weigh)]),
    "begin_step, with a stop": lambda x, y: (of((x, y)), [on_stop("begin_step", weigh)]),
}


def spoiled(train, filling):
    inputs, targets = (array.clone() for array in train.dataset.arrays)
    inputs[OUT], targets[OUT] = filling, -100
    return inputs, targets


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("who", WHO)
def test_they_are_as_if_they_were_not_there(who, jit):
    model = nn.serial(nn.dense(6), nn.batch_norm(), nn.relu, nn.dense(3))
    learner, state, train, _ = problem(n=24, model=model, optimizer=optim.sgd(0.1))
    x, y = spoiled(train, float("nan"))
    rows, callbacks = WHO[who](x, y)
    run = ft.fit(learner, state, train=rows, valid=rows, epochs=2, jit=jit, callbacks=callbacks)
    kept = [(x[k : k + 8][y[k : k + 8] >= 0], y[k : k + 8][y[k : k + 8] >= 0]) for k in (0, 8, 16)]
    expected = ft.fit(learner, state, train=kept, valid=kept, epochs=2, jit=jit)
    assert not tree.differences(run.state, expected.state, rtol=1e-4, atol=1e-5)
    for name in ("train/loss", "valid/loss", "valid/accuracy"):
        assert run.history[name] == pytest.approx(expected.history[name], rel=1e-4)


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("who", WHO)
def test_a_later_handler_of_the_same_event_does_not_see_them_either(who, jit):
    learner, state, train, _ = problem(n=24, model=nn.dense(3), optimizer=optim.sgd(0.1))
    states = []
    for filling in (float("nan"), float("inf"), 7.0):
        rows, callbacks = WHO[who](*spoiled(train, filling))
        mixer = on("begin_step", centre, "mixer", order=1)
        states.append(ft.fit(learner, state, train=rows, epochs=1, jit=jit, callbacks=[*callbacks, mixer]).state)
    assert all(tree.equal(states[0], other) for other in states[1:])
    assert bool(states[0].params["weight"].isfinite().all())


@pytest.mark.parametrize("jit", [False, "aten"])
def test_after_the_forward_weights_weigh_the_losses_and_take_no_target_in(jit):
    learner, state, train, _ = problem(n=8, model=nn.dense(3), optimizer=optim.sgd(0.1))
    inputs, targets = train.dataset.arrays
    bad = targets.clone()
    bad[2] = -100
    runs = [
        ft.fit(learner, state, train=rows, epochs=1, jit=jit, callbacks=callbacks)
        for rows, callbacks in (
            (of((inputs, bad, (bad >= 0).float())), []),
            ([(inputs, bad)], [on("after_pred", weigh)]),
        )
    ]
    assert not tree.differences(runs[0].state, runs[1].state, rtol=1e-5, atol=1e-6)


def test_a_batch_of_a_handler_that_does_not_fit_is_named():
    learner, state, train, _ = problem(n=16)
    short = on("begin_step", lambda batch: attrs.evolve(batch, weight=torch.ones(3)), "short")
    with pytest.raises(ShapeMismatch, match=r"batch that callback 'short' returned at 'begin_step': weight must have"):
        ft.fit(learner, state, train=train, epochs=1, callbacks=[short])
