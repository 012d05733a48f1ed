"""The memory of a batch belongs to who made it: nothing that a loop keeps, or gives back, is in it.

So a source may fill one tensor with one batch after the other, and a list is the same in each epoch.
"""

import math
from functools import partial
from itertools import count

import attrs
import pytest
import torch

import functrain as ft
from functrain import data, losses, metrics, nn, optim, tree
from functrain.errors import UnhashableStatic

X = torch.randn(11, 4, 3, generator=torch.Generator().manual_seed(0))
BATCHES = [(x, (x.sum(1) > 0).long()) for x in X]
WAYS = pytest.mark.parametrize(("jit", "chunk"), [(False, 1), (False, 4), (False, 100), ("aten", 1), ("aten", 4)])
WORST = metrics.Metric(
    init=lambda device=None: torch.full((), -math.inf),
    measure=lambda prediction, target: prediction,
    add=lambda acc, values, weight=None: torch.maximum(acc, values.max()),
    merge=torch.maximum,
    compute=lambda acc: acc.double(),
)


class Refilled:
    """The batches one after the other in the same tensors, with as many buffers, and with a length or without."""

    def __init__(self, buffers=1):
        self.buffers = [tuple(map(torch.empty_like, BATCHES[0])) for _ in range(buffers)]

    def __iter__(self):
        for k, batch in enumerate(BATCHES):
            filled = self.buffers[k % len(self.buffers)]
            for buffer, tensor in zip(filled, batch, strict=True):
                buffer.copy_(tensor)
            yield filled


class WithLength(Refilled):
    def __len__(self):
        return len(BATCHES)


def refill(_key, batch, filled):
    for buffer, tensor in zip(filled, (batch.input, batch.target), strict=True):
        buffer.copy_(tensor)
    return filled


def collating(buffers=1):
    """A loader whose collate function fills as many buffers."""
    filled = [tuple(map(torch.empty_like, BATCHES[0])) for _ in range(buffers)]
    calls = count()

    def collate(examples):
        return refill(None, data.Batch(*examples[0]), filled[next(calls) % buffers])

    return data.loader(fresh(), data.sequential(1), collate=collate)


def transforming(order=data.sequential):
    """A loader over arrays whose transform fills one buffer."""
    arrays = tuple(map(torch.cat, zip(*BATCHES, strict=True)))
    filled = tuple(map(torch.empty_like, BATCHES[0]))
    return data.loader(data.ArrayDataset(arrays), order(4), transform=partial(refill, filled=filled))


SOURCES = [
    Refilled,
    lambda: Refilled(2),
    WithLength,
    lambda: iter(Refilled()),
    collating,
    lambda: collating(2),
    transforming,
]


def fresh():
    return [tuple(part.clone() for part in batch) for batch in BATCHES]


def keeping(run):
    return ft.train.remember(run, "keep", {"input": run.batch.input, "seen": run.memory["keep"]["seen"] + 1})


def fitted(source, jit, chunk, callbacks):
    seen = {"label": metrics.mean(lambda p, t: t), "output": metrics.mean(lambda p, t: p[:, 0])}
    learner = ft.Learner(nn.dense(2), losses.cross_entropy, optim.sgd(0.1), seen)
    state = ft.init(learner, ft.random.key(0), BATCHES[0])
    options = dict(jit=jit, chunk=chunk, callbacks=callbacks, valid_steps=len(BATCHES))
    return ft.fit(learner, state, train=source(), steps=len(BATCHES), valid=source(), **options)


def remembering(step):
    return ft.train.remember(step, "inside", step.batch.input)


CALLBACKS = {
    "none": lambda: [],
    "shown": lambda: [ft.Callback("keep", {"after_batch": keeping}, memory={"input": torch.zeros(4, 3), "seen": 0})],
    "inside": lambda: [ft.Callback("inside", {"after_step": remembering}, memory=torch.zeros(4, 3))],
    "record": lambda: [ft.callbacks.record()],
}


@WAYS
@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("callbacks", CALLBACKS)
def test_a_fit_is_the_same_whatever_becomes_of_its_batches(jit, chunk, callbacks):
    expected = fitted(fresh, jit, chunk, CALLBACKS[callbacks]())
    for make in SOURCES:
        run = fitted(make, jit, chunk, CALLBACKS[callbacks]())
        assert list(run.history) == list(expected.history)
        assert tree.equal((run.state, dict(run.memory)), (expected.state, dict(expected.memory)))


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("source", SOURCES)
def test_predictions_that_are_views_of_the_inputs_are_each_of_their_batch(source, jit):
    def halves(x):
        return {"left": x[:, :1], "right": [x[:, 1:]]}

    learner = ft.Learner(nn.serial(halves), lambda p, t: p["left"], optim.sgd(0.1))
    state = ft.init(learner, ft.random.key(0), BATCHES[0])
    predicted = ft.predict(learner, state, source(), jit=jit, steps=len(BATCHES))
    assert torch.equal(torch.cat([predicted["left"], *predicted["right"]], 1), X.flatten(0, 1))


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("source", [collating, transforming, WithLength])
@pytest.mark.parametrize("event", ["begin_batch", "after_batch"])
def test_a_run_that_stopped_at_a_batch_has_that_batch_whatever_its_source_makes_then(source, event, jit):
    def stop(run):
        return ft.Stop(run, scope="fit", when=run.step == (3 if event == "begin_batch" else 4))

    learner = ft.Learner(nn.dense(2), losses.cross_entropy, optim.sgd(0.1))
    state = ft.init(learner, ft.random.key(0), BATCHES[0])
    stopping = [ft.Callback("stop", {event: stop}, keeps_state=False)]
    batches = source()
    run = ft.fit(learner, state, train=batches, steps=len(BATCHES), jit=jit, callbacks=stopping)
    expected = (X[3], BATCHES[3][1])
    ft.predict(learner, state, batches)
    assert all(map(torch.equal, (run.point.batch.input, run.point.batch.target), expected))


def own_step(carry, batch):
    inputs, _ = batch
    logs = {
        "first": inputs[0, 0],
        "moved": (inputs - carry["last"]).abs().sum(),
        "worst": ft.Measured(WORST, inputs[1, 1]),
    }
    return {"last": inputs, "rows": carry["rows"] + len(inputs), "first": inputs[0]}, logs


@WAYS
@pytest.mark.usefixtures("large")
def test_a_loop_is_the_same_too_and_a_list_stays_as_it_is(jit, chunk):
    carry = {"last": torch.zeros(4, 3), "rows": torch.tensor(0), "first": torch.zeros(3)}
    options = dict(key=ft.random.key(0), jit=jit, chunk=chunk)
    mine = fresh()
    expected = ft.loop(own_step, carry, train=mine, epochs=3, callbacks=[ft.callbacks.record()], **options)
    assert tree.equal(mine, fresh()), "the list is the user's"
    steps = [(X[k] - X[k - 1]).abs().sum() for k in range(len(X))]
    first = float(torch.stack([X[0].abs().sum(), *steps[1:]]).double().mean())
    assert expected.history["train/moved"] == pytest.approx([first, *[float(torch.stack(steps).double().mean())] * 2])
    assert expected.history["train/worst"] == pytest.approx([float(X[:, 1, 1].max())] * 3)
    run = ft.loop(own_step, carry, train=WithLength(), epochs=3, callbacks=[ft.callbacks.record()], **options)
    assert list(run.history) == list(expected.history)
    assert tree.equal((run.state, dict(run.memory)), (expected.state, dict(expected.memory)))
    mine[-1][0].zero_()
    assert float(expected.state["last"].abs().sum()) > 0, "the run is a value"


@attrs.frozen(eq=False)
class Record:
    """A user's own batch, which is no node of a tree."""

    inputs: torch.Tensor


class Box:
    def __init__(self, inputs):
        self.inputs = inputs


OPAQUE = {
    "record": (Record, lambda batch: batch.inputs),
    "object": (Box, lambda batch: batch.inputs),
    "array": (lambda x: x.numpy(), torch.as_tensor),
    "record in a dict": (lambda x: {"one": Record(x), "count": 3}, lambda batch: batch["one"].inputs),
}


@WAYS
@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("kind", OPAQUE)
def test_batches_that_hide_their_tensors_are_no_others(kind, jit, chunk):
    put, read = OPAQUE[kind]

    class Hiding:
        def __iter__(self):
            buffer = torch.empty_like(X[0])
            one = put(buffer)
            for x in X:
                buffer.copy_(x)
                yield one

    def step(carry, batch):
        inputs = read(batch)
        return {"last": inputs[:2], "kept": carry["kept"]}, {"moved": (inputs[:2] - carry["last"]).abs().sum()}

    carry = {"last": torch.zeros(2, 3), "kept": torch.ones(2)}
    keep = ft.Callback(
        "keep", {"after_batch": lambda run: ft.train.remember(run, "keep", read(run.batch)) if run.step == 3 else None}
    )
    for callbacks in ([], [keep]):
        options = dict(key=ft.random.key(0), steps=len(X), jit=jit, chunk=chunk, callbacks=callbacks)
        if kind == "array" and jit:
            with pytest.raises(UnhashableStatic, match=r"convert an array with torch\.as_tensor"):
                ft.loop(step, carry, train=Hiding(), **options)
            continue
        run = ft.loop(step, carry, train=Hiding(), **options)
        moved = [X[0, :2].abs().sum(), *[(X[k, :2] - X[k - 1, :2]).abs().sum() for k in range(1, len(X))]]
        assert run.history["train/moved"] == [pytest.approx(float(torch.stack(moved).double().mean()))]
        assert torch.equal(run.state["last"], X[-1, :2])
        assert not callbacks or torch.equal(run.memory["keep"], X[2])


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.usefixtures("large")
def test_rows_of_a_dataset_that_are_whole_batches_stay_as_they_are(jit):
    rows = [data.Batch(x.clone(), torch.zeros(4)) for x in X]
    loader = data.loader(rows, data.sequential(1), collate=lambda batches: batches[0])

    def step(carry, batch):
        return {"last": batch.input}, {"moved": (batch.input - carry["last"]).abs().sum()}

    run = ft.loop(step, {"last": torch.zeros(4, 3)}, key=ft.random.key(0), train=loader, epochs=2, jit=jit)
    assert all(torch.equal(row.input, x) for row, x in zip(rows, X, strict=True))
    assert run.history["train/moved"][1] == pytest.approx(
        float(torch.stack([(X[k] - X[k - 1]).abs().sum() for k in range(len(X))]).double().mean())
    )


def test_a_sparse_batch_has_no_memory_to_look_at():
    batch = torch.eye(3).to_sparse()
    run = ft.loop(
        lambda total, b: (total + b.sum(), None),
        torch.tensor(0.0),
        key=ft.random.key(0),
        train=[batch],
        epochs=2,
        jit=False,
    )
    assert float(run.state) == 6
