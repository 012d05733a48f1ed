"""What a handler, a step or a resource may not answer is refused in words, whatever runs it, and its run goes on."""

import attrs
import numpy
import pytest
import torch
from training_problems import problem

import functrain as ft
from functrain import tree
from functrain.errors import InvalidArgument, InvalidCallbackResult

BOTH = pytest.mark.parametrize("jit", [False, "aten"])
NO_CONDITIONS = {
    "text": "no",
    "None": None,
    "a number": 0,
    "NaN": float("nan"),
    "a function": lambda: False,
    "numbers": torch.tensor(0.0),
    "an axis": torch.tensor([False]),
    "several": torch.tensor([True, False]),
    "an array": numpy.array([False]),
}


@pytest.mark.parametrize("kind", NO_CONDITIONS)
def test_a_condition_is_a_truth_value_wherever_a_stop_is_made(kind):
    when = NO_CONDITIONS[kind]
    with pytest.raises(
        InvalidArgument, match=r"when must be a bool, or a boolean tensor without axes, got .*; make it"
    ):
        ft.Stop(None, when=when)


@pytest.mark.parametrize("when", [False, torch.tensor(False), numpy.bool_(False)])
@BOTH
def test_conditions_that_are_truth_values_are_heeded(when, jit):
    learner, state, train, _ = problem()
    stop = ft.Callback("stop", {"after_epoch": lambda run: ft.Stop(run, when=when)})
    run = ft.fit(learner, state, train=train, epochs=2, callbacks=[stop], jit=jit)
    assert run.stopped is None and run.finished


@BOTH
@pytest.mark.parametrize("event", ["after_epoch", "after_batch", "after_step", "after_pred"])
def test_a_handler_with_a_condition_of_one_element_is_named(event, jit):
    """In plain Python it gave all of the state an axis more."""
    learner, state, train, _ = problem()
    stop = ft.Callback("mine", {event: lambda record: ft.Stop(record, when=torch.tensor([False]))})
    with pytest.raises(InvalidArgument, match="when must be a bool") as caught:
        ft.fit(learner, state, train=train, epochs=1, callbacks=[stop], jit=jit)
    assert f"in callback 'mine', event '{event}'" in caught.value.__notes__


@pytest.mark.parametrize("reason", [3, None, ValueError("x")])
def test_a_reason_is_words(reason):
    with pytest.raises(InvalidArgument, match="reason must be a string, in words for a person, got"):
        ft.Stop(None, reason=reason)


@BOTH
@pytest.mark.parametrize("log", [None, "x", 1j, torch.tensor(1j), torch.ones(1)])
def test_a_log_is_a_real_number(log, jit):
    with pytest.raises(InvalidArgument, match="the log 'z' of the step must be a real scalar or Measured"):
        ft.loop(
            lambda total, batch: (total, {"z": log}),
            torch.tensor(0.0),
            key=ft.random.key(0),
            train=[torch.ones(2)],
            epochs=1,
            jit=jit,
        )


@pytest.mark.parametrize(("name", "value"), [(3, 1.0), ("f", print), ("list", [1.0])])
def test_a_row_of_the_history_holds_what_can_be_shown_and_saved(name, value):
    learner, state, train, _ = problem()
    odd = ft.Callback("odd", {"after_epoch": lambda run: attrs.evolve(run, logs={**run.logs, name: value})})
    with pytest.raises(InvalidCallbackResult, match=r"callback 'odd', event 'after_epoch': logs are the epoch's row"):
        ft.fit(learner, state, train=train, epochs=1, callbacks=[odd], jit=False)


@pytest.mark.parametrize("made", [None, 3, [], iter(())])
def test_a_resource_is_a_context_manager(made):
    learner, state, train, _ = problem()
    live = ft.Callback("live", {"after_epoch": lambda run, live: None}, resource=lambda run: made)
    with pytest.raises(InvalidCallbackResult, match="callback 'live': its resource must return a context manager") as e:
        ft.fit(learner, state, train=train, epochs=1, callbacks=[live], jit=False)
    assert "in callback 'live', event 'resource'" in e.value.__notes__


def test_an_error_of_a_resource_names_its_callback():
    learner, state, train, _ = problem()
    live = ft.Callback("live", {"after_epoch": lambda run, live: None}, resource=lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        ft.fit(learner, state, train=train, epochs=1, callbacks=[live], jit=False)
    assert "in callback 'live', event 'resource'" in caught.value.__notes__


def as_parameters(params):
    return tree.map(lambda leaf: torch.nn.Parameter(leaf.clone()), params)


@BOTH
@pytest.mark.parametrize("where", ["the first state", "a handler", "a memory"])
def test_no_run_has_an_autograd_history(where, jit):
    learner, state, train, _ = problem()

    def put(run):
        if where == "a memory":
            return ft.train.remember(run, "put", as_parameters(run.state.params))
        params = as_parameters(run.state.params) if where == "a handler" else run.state.params
        return attrs.evolve(run, state=attrs.evolve(run.state, params=params))

    put = ft.Callback("put", {"begin_epoch": put}, memory=0)
    begun = attrs.evolve(state, params=as_parameters(state.params)) if where == "the first state" else state
    options = dict(train=train, epochs=2, jit=jit)
    run = ft.fit(learner, begun, callbacks=[put], **options)
    assert not any(leaf.requires_grad for leaf in tree.leaves((run.state, dict(run.memory))) if torch.is_tensor(leaf))
    assert tree.equal(run.state, ft.fit(learner, state, **options).state)


def test_a_warning_that_is_an_error_carries_the_run():
    learner, state, train, _ = problem()
    learner = attrs.evolve(learner, optimizer=ft.optim.accumulate(1000, learner.optimizer))
    state = ft.init(learner, ft.random.key(0), train.dataset[:1])
    with pytest.raises(UserWarning, match="no update of the parameters was made") as caught:  # warnings are errors here
        ft.fit(learner, state, train=train, epochs=1, jit=False)
    assert caught.value.run.finished and len(caught.value.run.history) == 1
