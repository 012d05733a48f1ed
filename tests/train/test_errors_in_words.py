"""What a handler, a step or an argument gets wrong is an error in words, eager and compiled alike."""

import attrs
import pytest
import torch
from training_problems import eager, problem

import functrain as ft
from functrain import data, metrics, tree
from functrain.errors import (
    InvalidArgument,
    InvalidCallbackResult,
    InvalidMemory,
    RunMismatch,
    ShapeMismatch,
    TreeMismatch,
)

BOTH = pytest.mark.parametrize("jit", [False, "aten"])
KEY = ft.random.key(0)


def fitted(event, handler, jit, memory=(), **options):
    learner, state, train, _ = problem(n=16)
    options = {"train": train, "epochs": 1, **options}
    return ft.fit(learner, state, jit=jit, callbacks=[ft.Callback("mine", {event: handler}, memory=memory)], **options)


# A batch that a handler returns


@BOTH
@pytest.mark.parametrize("event", ["begin_step", "begin_batch"])
@pytest.mark.parametrize("kind", ["pair", "list", "triple"])
def test_a_batch_may_be_a_pair_or_a_triple_everywhere(jit, event, kind):
    def handler(record, as_batch):
        batch = record.batch
        parts = {"pair": (batch.input * 2, batch.target), "triple": (batch.input, batch.target, batch.target * 0.5)}
        parts["list"] = list(parts["pair"])
        return attrs.evolve(record, batch=data.Batch(*parts[kind]) if as_batch else parts[kind])

    run, expected = (fitted(event, lambda record, b=b: handler(record, b), jit) for b in (False, True))
    assert tree.equal(run.state, expected.state) and run.history == expected.history


@BOTH
@pytest.mark.parametrize("event", ["begin_step", "begin_batch"])
@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (
            lambda b: 3,
            InvalidArgument,
            "batch that callback 'mine' returned at .* must be an .input, target. pair.* int",
        ),
        (
            lambda b: (b.input,),
            InvalidArgument,
            "batch that callback 'mine' returned at .* must be .* got a tuple of 1",
        ),
        (
            lambda b: (b.input, b.target[:3]),
            ShapeMismatch,
            "returned at .* has 8 rows of input and 3",
        ),
        (lambda b: data.Batch(b.input, b.target, torch.ones(2)), ShapeMismatch, "weight must have shape .8,.*got .2,"),
    ],
)
def test_a_batch_that_is_none(jit, event, batch, error, message):
    with pytest.raises(error, match=message) as caught:
        fitted(event, lambda record: attrs.evolve(record, batch=batch(record.batch)), jit)
    assert f"in callback 'mine', event {event!r}" in caught.value.__notes__
    assert int(caught.value.run.state.step) == 0


def test_wrong_weights_of_a_host_handler():
    def handler(run):
        weight = torch.full((len(run.batch.target),), -1.0)
        return attrs.evolve(run, batch=data.Batch(run.batch.input, run.batch.target, weight))

    for jit in (False, "aten"):
        with pytest.raises(InvalidArgument, match="mine' returned at 'begin_batch': weight must be finite"):
            fitted("begin_batch", handler, jit)


@BOTH
def test_a_loop_takes_what_batches_it_likes(jit):
    def step(total, batch):
        return total + batch.sum(), None

    double = ft.Callback("double", {"begin_batch": lambda run: attrs.evolve(run, batch=run.batch * 2)})
    batches = [torch.ones(2)] * 3
    run = ft.loop(step, torch.tensor(0.0), key=KEY, train=batches, epochs=1, callbacks=[double], jit=jit)
    assert float(run.state) == 12


# Other parts that a handler returns


@BOTH
def test_parts_of_a_step_that_lose_their_structure(jit):
    def without(name):
        return lambda step: attrs.evolve(step, **{name: {}})

    with pytest.raises(TreeMismatch, match="the grads that the handler returned must have the structure of the grads"):
        fitted("after_grads", without("grads"), jit)
    with pytest.raises(InvalidMemory, match=r"callback 'mine' returned memories of \[\].*are \['mine'\]"):
        fitted("after_step", without("memory"), jit, memory=torch.zeros(1))

    def headless(step):
        return attrs.evolve(step, state=attrs.evolve(step.state, params={}))

    for event in ("begin_step", "after_grads", "after_step"):
        with pytest.raises(TreeMismatch, match="the state that the handler returned must have the structure"):
            fitted(event, headless, jit)


@BOTH
@pytest.mark.parametrize("event", ["after_pred", "after_grads", "after_step"])
def test_fields_are_called_as_handlers_call_them(jit, event):
    with pytest.raises(InvalidCallbackResult) as caught:
        fitted(event, lambda step: attrs.evolve(step, halt=1, loss=2), jit)
    assert "_loss" not in str(caught.value) and "halt" in str(caught.value)


@BOTH
@pytest.mark.parametrize("kind", [OSError, RuntimeError, IndexError, ValueError])
@pytest.mark.parametrize("event", ["begin_step", "after_loss", "after_step"])
@pytest.mark.parametrize("chunk", [1, 8])
def test_each_note_comes_once(jit, kind, event, chunk):
    def handler(step):
        raise kind("boom")

    with pytest.raises(kind, match="boom") as caught:
        fitted(event, handler, jit, chunk=chunk)
    notes = caught.value.__notes__
    assert len(set(notes)) == len(notes) == (3 if jit else 2)


# The step of a loop


def looped(step, carry, jit, **options):
    batches = [torch.ones(2)] * 3
    return ft.loop(step, carry, **{"key": KEY, "train": batches, "epochs": 1, "jit": jit, **options})


RETURNS = {
    "the carry": (lambda c: c, "got float32()"),
    "None": (lambda c: None, "got NoneType"),
    "two carries": (lambda c: (c, c), "got a tuple of (float32(), float32())"),
    "three": (lambda c: (c, {}, 1), "got a tuple of (float32(), dict, int)"),
    "a list": (lambda c: [c, {}], "got a list of (float32(), dict)"),
    "a list of logs": (lambda c: (c, [c]), "got a tuple of (float32(), a list of (float32()))"),
    "a Stop": (lambda c: ft.Stop(c, [c]), "got Stop(float32(), a list of (float32()))"),
}


@BOTH
@pytest.mark.parametrize("kind", RETURNS)
@pytest.mark.parametrize("chunk", [1, 4])
def test_a_step_returns_a_carry_and_logs(jit, kind, chunk):
    returned, message = RETURNS[kind]
    with pytest.raises(InvalidArgument, match=r"the step must return \(carry, logs\), or Stop\(carry") as caught:
        looped(lambda carry, batch: returned(carry), torch.tensor(1.0), jit, chunk=chunk)
    assert message in str(caught.value)


ONE = torch.tensor(1.0)
CARRIES = {
    "the first of two": ((ONE, {"a": ONE}), lambda c: c),
    "another shape": (ONE, lambda c: (torch.stack([c, c]), None)),
    "another dtype": (ONE, lambda c: (c.double(), None)),
    "more": (ONE, lambda c: ((c, c), None)),
    "fewer": ({"a": ONE, "b": ONE}, lambda c: ({"a": c["a"]}, None)),
    "a list": ((ONE, ONE), lambda c: (list(c), None)),
}


@BOTH
@pytest.mark.parametrize("kind", CARRIES)
@pytest.mark.parametrize("chunk", [1, 4])
def test_a_step_keeps_the_structure_of_the_carry(jit, kind, chunk):
    carry, returned = CARRIES[kind]
    with pytest.raises(TreeMismatch, match="the carry that the step returned must have the structure of the"):
        looped(lambda carry, batch: returned(carry), carry, jit, chunk=chunk)


@BOTH
def test_evaluate_returns_logs(jit):
    for returned, message in ((lambda c: (c, {}), "a tuple of"), (lambda c: c, "float32")):
        with pytest.raises(InvalidArgument, match=f"evaluate must return logs, a dict .* got {message}"):
            options = dict(valid=[torch.ones(2)], evaluate=lambda carry, batch, f=returned: f(carry))
            looped(lambda carry, batch: (carry, None), ONE, jit, **options)


@BOTH
@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_a_metric_may_be_made_inside_the_step(jit, chunk):
    def step(carry, batch):
        metric = metrics.mean(lambda values, _: values)
        return carry, {"mean": ft.Measured(metric, metric.add(metric.init(carry.device), batch, None))}

    run = looped(step, ONE, jit, chunk=chunk, train=[torch.arange(k + 1.0) for k in range(7)], epochs=2)
    values = torch.cat([torch.arange(k + 1.0) for k in range(7)])
    assert run.history["train/mean"] == [pytest.approx(float(values.double().mean()))] * 2


@BOTH
def test_the_key_of_a_run_that_goes_on_is_its_own(jit):
    rows = data.ArrayDataset((torch.arange(20.0), torch.arange(20.0)))
    train = data.loader(rows, data.shuffled(2))

    def step(total, batch):
        return total * 0.5 + batch.input.sum(), {"sum": batch.input.sum()}

    def stop(run):
        return ft.Stop(run, scope="fit") if run.step == 4 and run.epoch == 0 else None

    options = dict(train=train, callbacks=[ft.Callback("stop", {"after_batch": stop})])
    whole = looped(step, ONE, jit, **{**options, "callbacks": [ft.Callback("stop", {})], "epochs": 2})
    stopped = looped(step, ONE, jit, **options, epochs=2)
    for key in (None, KEY, KEY.clone()):
        run = looped(step, stopped, jit, **options, key=key, epochs=None)
        assert tree.equal(run.state, whole.state) and run.history == whole.history
    with pytest.raises(RunMismatch, match=r"begun with the key .* and now the key .* is passed; leave key out"):
        looped(step, stopped, jit, **options, key=ft.random.key(1), epochs=None)
    with pytest.raises(InvalidArgument, match="key must be a random key"):
        looped(step, ONE, jit, key=None)


# The device


@pytest.mark.parametrize("device", ["nope", "cuda:99", 3.5, torch.float32, "cpu0"])
def test_a_device_that_is_not_here(device):
    learner, state, train, _ = problem(n=16)
    for call in (eager, ft.evaluate, ft.predict):
        with pytest.raises(
            InvalidArgument, match="device must be the name of a device that this machine has"
        ) as caught:
            call(learner, state, train, device=device)
        assert repr(device) in str(caught.value)
