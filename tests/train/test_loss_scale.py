"""Loss scales in a fit: what is small in float16 trains, what is not finite is skipped, and nothing else changes."""

import pytest
import torch

import functrain as ft
from functrain import data, losses, nn, optim, schedule, tree

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 3
MODEL = nn.serial(nn.dense(8), nn.tanh, nn.dense(3))
ROWS = data.ArrayDataset((X, LABELS))


def trained(optimizer, model=MODEL, rows=ROWS, loss=losses.cross_entropy, epochs=3, **options):
    learner = ft.Learner(model, loss, optimizer)
    state = ft.init(learner, ft.random.key(0), rows[:1])
    return ft.fit(learner, state, train=data.loader(rows, data.shuffled(4)), epochs=epochs, **options)


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("callback", [None, "after_loss", "after_grads"])
def test_scaled_by_a_power_of_two_in_float32_it_is_the_same_to_the_bit(jit, callback):
    def looking(step):
        return ft.log(step, "length", tree.global_norm(step.grads)) if callback == "after_grads" else None

    callbacks = [] if callback is None else [ft.Callback("looking", {callback: looking})]
    plain = trained(optim.skip_nonfinite(optim.adam(0.01)), jit=jit, callbacks=callbacks)
    scaled = trained(optim.dynamic_loss_scale(optim.adam(0.01), every=4), jit=jit, callbacks=callbacks)
    assert tree.equal(plain.state.params, scaled.state.params)
    assert tree.equal(plain.state.opt_state.inner, scaled.state.opt_state.inner)
    assert str(plain.history) == str(scaled.history)
    assert scaled.state.opt_state.scale == 2.0**19


def test_gradients_that_are_zero_in_float16_train_with_a_scale():
    """A loss so small that its gradients are below what float16 has."""
    rows = data.ArrayDataset((X, torch.randn(16, 1)))
    model = nn.serial(nn.dense(8), nn.tanh, nn.dense(1))

    def loss(prediction, target):
        return 1e-9 * losses.mse(prediction, target)

    begun = ft.init(ft.Learner(model, loss, optim.adam(0.1, eps=1e-16)), ft.random.key(0), rows[:1]).params
    options = dict(model=model, rows=rows, loss=loss, precision="float16", epochs=1)
    lost = trained(optim.adam(0.1, eps=1e-16), **options).state.params
    kept = trained(optim.dynamic_loss_scale(optim.adam(0.1, eps=1e-16)), **options).state.params
    assert tree.equal(lost["0"], begun["0"])
    full = trained(optim.adam(0.1, eps=1e-16), **{**options, "precision": None}).state.params
    assert not tree.equal(kept["0"], begun["0"])
    assert not tree.differences(kept["0"], full["0"], atol=0.06)


@pytest.mark.parametrize("jit", [False, "aten"])
def test_a_scale_that_is_too_large_falls_and_updates_are_counted(jit):
    falling = schedule.over_updates(100, schedule.linear(0.1, 0.0))
    run = trained(optim.dynamic_loss_scale(optim.sgd(falling), initial=2.0**40), precision="float16", jit=jit, epochs=8)
    state = run.state.opt_state
    assert int(run.state.updates) == int(state.updates) == 32 - int(state.skipped)
    assert 5 < int(state.skipped) < 30 and all(leaf.isfinite().all() for leaf in tree.leaves(run.state.params))
    assert run.history[-1]["train/loss"] < run.history[0]["train/loss"]


@pytest.mark.parametrize("optimizer", [optim.sam(optim.sgd(0.1)), optim.dpsgd(0.1, 0.5, 0.0)])
def test_it_stands_with_what_evaluates_and_with_single_examples(optimizer):
    plain, scaled = trained(optimizer), trained(optim.dynamic_loss_scale(optimizer))
    assert not tree.differences(plain.state.params, scaled.state.params, rtol=1e-5, atol=1e-6)
