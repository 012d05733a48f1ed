"""A handler that puts a thing of another kind in the place of one that it was passed gets words, not a fault later."""

import attrs
import pytest
import torch
from training_problems import problem

import functrain as ft
from functrain import tree
from functrain.errors import InvalidCallbackResult

OF_RUN = {"history": "History", "memory": "Mapping", "logs": "Mapping", "row": "Mapping", "logged": "Mapping"}
OF_STEP = {"memory": "Mapping", "tally": "Tally", "logged": "Mapping"}
WRONG = ([1], 3, None)


def fit(event, replace, jit=False):
    learner, state, train, _ = problem()
    callback = ft.Callback("careless", {event: replace}, memory=torch.tensor(0))
    return ft.fit(learner, state, train=train, epochs=1, jit=jit, callbacks=[callback])


def said(event, field, kind):
    return f"callback 'careless', event '{event}': {field} must be a {kind}, as it was, and the handler put "


@pytest.mark.parametrize("event", ["begin_fit", "after_batch", "after_epoch"])
@pytest.mark.parametrize("field", OF_RUN)
def test_of_a_run(field, event):
    for wrong in WRONG:
        with pytest.raises(InvalidCallbackResult, match=said(event, field, OF_RUN[field])):
            fit(event, lambda run, wrong=wrong: attrs.evolve(run, **{field: wrong}))


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("field", OF_STEP)
def test_of_a_step(field, jit):
    with pytest.raises(InvalidCallbackResult, match=said("after_loss", field, OF_STEP[field])):
        fit("after_loss", lambda step: tree.evolve(step, **{field: [1]}), jit)
