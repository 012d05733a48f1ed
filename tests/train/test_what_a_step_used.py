"""What a history and a record show for a step is what that step used; and handlers write to nothing in place."""

import attrs
import pytest
import torch
from training_problems import eager, problem, stopping_at

import functrain as ft
from functrain import callbacks, data, nn, optim, schedule, tree
from functrain.errors import InvalidCallbackResult

BOTH = pytest.mark.parametrize("jit", [False, "aten"])
SGD = {
    "position": lambda: optim.sgd(lr=schedule.linear(0.1, 0.01)),
    "updates": lambda: optim.accumulate(3, optim.sgd(lr=schedule.over_updates(5, schedule.linear(0.1, 0.01)))),
    "epochs": lambda: optim.sgd(lr=schedule.over_epochs(4, schedule.cosine(0.1, 0.01))),
    "parts": lambda: optim.sgd(lr=schedule.join([1 / 3, 2 / 3], [schedule.constant(0.1), schedule.constant(0.01)])),
    "momentum too": lambda: optim.sgd(lr=schedule.linear(0.1, 0.01), momentum=schedule.linear(0.9, 0.5)),
}


def firsts(run, name):
    """Return the recorded values of the first step of each epoch."""
    recorded = run.memory["record"]
    return [float(value) for step, value in zip(recorded["step"], recorded[name], strict=True) if step % 7 == 0]


@BOTH
@pytest.mark.parametrize("chunk", [1, 3, 8])
@pytest.mark.parametrize("clock", SGD)
def test_a_row_shows_the_schedules_as_its_first_step_used_them(jit, chunk, clock):
    learner, state, train, valid = problem(optimizer=SGD[clock](), model=nn.dense(3))
    seen = ft.Callback("seen", {"after_step": lambda step: ft.log(step, "at", step.progress.updates)})
    for total in (dict(epochs=3), dict(steps=17)):
        options = dict(train=train, valid=valid, jit=jit, chunk=chunk, callbacks=[callbacks.record(), seen])
        run = ft.fit(learner, state, **options, **total)
        for name in ("lr", "momentum") if clock == "momentum too" else ("lr",):
            assert run.history[name] == firsts(run, name) and len(run.history[name]) == 3
        assert all("/" not in name for name in run.history.columns[-1 - (clock == "momentum too") :])


@BOTH
@pytest.mark.parametrize("step", [0, 6, 7, 8, 14])
def test_a_row_of_an_epoch_that_was_interrupted_shows_the_same(jit, step):
    learner, state, train, valid = problem(optimizer=SGD["updates"](), model=nn.dense(3))
    options = dict(train=train, valid=valid, jit=jit, callbacks=[stopping_at(step), callbacks.record()])
    stopped = ft.fit(learner, state, epochs=3, **options)
    assert stopped.stopped is not None
    run = ft.fit(learner, stopped, **options)
    assert run.history["lr"] == firsts(run, "lr")


def test_an_epoch_without_a_step_shows_none():
    learner, state, train, valid = problem(optimizer=SGD["position"]())
    skip = ft.Callback("skip", {"begin_epoch": lambda run: ft.Stop(run) if run.epoch == 1 else None})
    run = eager(learner, state, train, valid, epochs=3, callbacks=[skip])
    assert run.history["lr"] == [pytest.approx(0.1), None, pytest.approx(0.1 - 0.09 * 2 / 3)]


# Nothing is written to in place


def writing(part):
    def handler(run):
        if part == "state":
            run.state.params["bias"].add_(1)
        elif part == "memory":
            run.memory["mine"]["n"].add_(1)
        else:
            run.batch.input.mul_(2)

    return handler


@BOTH
@pytest.mark.parametrize("event", ft.train.HOST_EVENTS)
@pytest.mark.parametrize(("part", "path"), [("state", "state.params.bias"), ("memory", "memory.mine.n")])
def test_a_host_handler_that_writes_in_place_is_refused(jit, event, part, path):
    learner, state, train, valid = problem(n=16, model=nn.dense(3))
    memory = {"n": torch.zeros(())}
    mine = ft.Callback("mine", {event: writing(part)}, memory=memory)
    with pytest.raises(InvalidCallbackResult) as caught:
        ft.fit(learner, state, train=train, valid=valid, epochs=1, jit=jit, callbacks=[mine])
    assert f"callback 'mine', event {event!r}: the handler wrote to {path} of the run in place" in str(caught.value)


@BOTH
def test_a_batch_that_is_written_to_is_refused(jit):
    learner, state, train, _ = problem(n=16, model=nn.dense(3))
    batches = list(data.batches(train, ft.random.key(0)))
    mine = ft.Callback("mine", {"begin_batch": writing("batch")})
    with pytest.raises(InvalidCallbackResult, match=r"wrote to batch\.input of the run in place"):
        ft.fit(learner, state, train=batches, epochs=1, jit=jit, callbacks=[mine])


@BOTH
def test_writing_to_a_copy_is_what_a_handler_may_do(jit):
    learner, state, train, _ = problem(n=16, model=nn.dense(3))

    def shifted(run):
        params = {name: leaf.clone().add_(1) for name, leaf in run.state.params.items()}
        return attrs.evolve(run, state=attrs.evolve(run.state, params=params))

    frozen = attrs.evolve(learner, optimizer=optim.sgd(lr=0.0))
    state = ft.init(frozen, ft.random.key(0), train.dataset[:1])
    mine = ft.Callback("mine", {"after_batch": shifted})
    run = ft.fit(frozen, state, train=train, epochs=1, jit=jit, callbacks=[mine])
    assert tree.equal(run.state.params, tree.map(lambda leaf: leaf + 1 + 1, state.params))


def test_with_inference_tensors_nobody_can_tell():
    with torch.inference_mode():
        carry = torch.zeros(2)
    look = ft.Callback("look", {"after_batch": lambda run: None})
    batches = [torch.ones(2)] * 2
    run = ft.loop(
        lambda c, b: (c + b, None), carry, key=ft.random.key(0), train=batches, epochs=1, jit=False, callbacks=[look]
    )
    assert run.state.tolist() == [2, 2]
