"""How batches reach the step: one by one or a chunk at a time, eager or compiled, from a loader or from arrays.

A `Drive` yields blocks of batches and carries the training through a block. Its ways differ in speed alone.
"""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, cast

import attrs
import torch
from torch import Tensor

from functrain import data, engine, tree
from functrain.engine import Stop, fold, scan
from functrain.errors import InvalidArgument
from functrain.train.events import Callback
from functrain.train.learner import Learner
from functrain.train.signals import Signals
from functrain.train.state import TrainState
from functrain.train.step import batch_logs, begin, eval_stages, train_stages
from functrain.train.tally import Tally


@tree.node
class Carry:
    """What is carried from batch to batch: all of it tensors, so that a chunk of steps can be one compiled call.

    Attributes:
        state: the training state.
        memory: the memories of the callbacks with step handlers.
        tally: what this phase has measured so far.
        signal: 0, or the number in `Signals` of the stop that ended more than its batch.
        batches: batches done in this block before such a stop; not counted where there can be none.
    """

    state: TrainState
    memory: dict[str, Any]
    tally: Tally
    signal: Tensor
    batches: Tensor


@attrs.frozen
class Block:
    """Some batches in a row: what `Drive.execute` takes at once.

    Attributes:
        inputs: the trees that the compiled function takes after the carry.
        steps: how many batches it holds.
        batch: the batch itself where the block is one batch that host callbacks may look at; else None.
    """

    inputs: tuple
    steps: int
    batch: Any = None


@attrs.frozen
class Drive:
    """A way to run one phase over one loader.

    Attributes:
        blocks: (key, epoch, start) -> an iterator of blocks, from batch `start` of the epoch on.
        execute: (carry, *block.inputs) -> (carry, logs), the logs with one row a batch, or None when nobody looks.
        signals: the table of the stops that step handlers may signal.
        steps: batches an epoch.
        donates: whether `execute` reuses the buffers of the carry.
    """

    blocks: Callable[[Tensor, int, int], Iterator[Block]]
    execute: Callable[..., tuple[Carry, Any]]
    signals: Signals
    steps: int
    donates: bool


BACKENDS = ("aten", "inductor", "cudagraph", False)


def drive(
    learner: Learner,
    loader: data.Loader,
    callbacks: tuple[Callback, ...],
    phase: str,
    jit: str | bool = "aten",
    chunk: int = 1,
) -> Drive:
    """Return the quickest way to run a phase that shows the callbacks all that they look at.

    Batches come from the arrays by index inside the compiled call where the dataset is an `ArrayDataset` and no
    callback looks at single batches; there, `chunk` batches are one call. Plain Python takes `chunk` batches from any
    dataset.
    """
    if jit not in BACKENDS or jit is True:
        raise InvalidArgument(f"jit must be one of 'aten', 'inductor', 'cudagraph' or False, got {jit!r}")
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise InvalidArgument(f"chunk must be a whole number of at least 1, got {chunk!r}")
    listening = [c for c in callbacks if phase in c.phases]
    signals = Signals()
    wants_logs = any(c.reads_logs and c.handles("after_batch", "after_chunk") for c in listening)
    advance = advancer(learner, callbacks, phase, signals, wants_logs)
    looked_at = any(c.handles("begin_batch", "after_batch") for c in listening)
    if not jit and looked_at:
        return Drive(_batches(loader), advance_one(advance), signals, len(loader), donates=False)
    if not jit:
        return Drive(_runs_of_batches(loader, chunk), partial(fold, advance), signals, len(loader), donates=False)
    mixing = any(c.handles("begin_step", "after_pred", "after_loss") and not c.padding_safe for c in listening)
    loader = loader if mixing else padded_where_safe(learner, loader)
    donate = 0 if phase == "train" else ()
    if looked_at or not data.is_resident(loader):
        compiled = engine.jit(advance_one(advance), donate=donate, backend=jit)
        return Drive(_batches(loader), compiled, signals, len(loader), donates=phase == "train")
    execute, blocks = _resident(loader, advance, min(chunk, len(loader)), one_form=jit == "inductor")
    return Drive(blocks, engine.jit(execute, donate=donate, backend=jit), signals, len(loader), phase == "train")


def advancer(
    learner: Learner, callbacks: tuple[Callback, ...], phase: str, signals: Signals, wants_logs: bool
) -> Callable[[Carry, data.Batch], Any]:
    """Return the pure function (carry, batch) -> (carry, logs), or `Stop(carry, logs, when=...)`, for a fold."""
    stages = (train_stages if phase == "train" else eval_stages)(learner, callbacks, signals)

    def advance(carry: Carry, batch: data.Batch) -> Any:
        done = stages(begin(learner, carry.state, batch, phase, carry.memory, carry.tally))
        state = done.state if phase == "train" else carry.state
        signal = carry.signal if done.halt is None else done.halt.code
        logs = batch_logs(learner, done) if wants_logs else None
        if not signals.end_more_than_a_batch():
            return Carry(state, done.memory, done.tally, signal, carry.batches), logs
        after = Carry(state, done.memory, done.tally, signal, carry.batches + (signal == 0))
        return Stop(after, logs, when=signal > 0)

    return advance


def advance_one(advance: Callable[[Carry, data.Batch], Any]) -> Callable[[Carry, data.Batch], tuple[Carry, Any]]:
    """Return the function that advances by one batch, with logs of one row."""

    def step(carry: Carry, batch: data.Batch) -> tuple[Carry, Any]:
        return _one_row(advance(carry, batch))

    return step


def _one_row(result: Any) -> tuple[Carry, Any]:
    carry, logs = (result.carry, result.y) if isinstance(result, Stop) else result
    return carry, logs if logs is None else tree.map(lambda value: value[None], logs)


def padded_where_safe(learner: Learner, loader: data.Loader) -> data.Loader:
    """Return the loader with a short last batch filled up by rows of zero weight, where the model allows it.

    Then all batches have one shape and one compiled function serves them, with the same results.
    """
    if loader.sampler.remainder != "keep" or len(loader.dataset) % loader.sampler.batch_size == 0:
        return loader
    if len(loader.dataset) < loader.sampler.batch_size:
        return loader  # the one batch there is has one shape
    if not learner.model.padding_safe:
        warnings.warn(
            "the model mixes the rows of a batch (padding_safe is False), so the short last batch is not padded and "
            "is traced separately; remainder='drop' avoids it",
            stacklevel=4,
        )
        return loader
    return attrs.evolve(loader, sampler=attrs.evolve(loader.sampler, remainder="pad"))


def _batches(loader: data.Loader) -> Callable[[Tensor, int, int], Iterator[Block]]:
    def blocks(key: Tensor, epoch: int, start: int) -> Iterator[Block]:
        for batch in data.batches(loader, key, epoch, start):
            yield Block((batch,), 1, batch)

    return blocks


def _runs_of_batches(loader: data.Loader, chunk: int) -> Callable[[Tensor, int, int], Iterator[Block]]:
    """Return the blocks of up to `chunk` batches, each an iterator that makes a batch when its step is there."""

    def blocks(key: Tensor, epoch: int, start: int) -> Iterator[Block]:
        found = data.batches(loader, key, epoch, start)
        for first in range(start, len(loader), chunk):
            steps = min(chunk, len(loader) - first)
            yield Block((islice(found, steps),), steps)

    return blocks


def _resident(loader: data.Loader, advance: Callable, chunk: int, one_form: bool) -> tuple[Callable, Callable]:
    """Return (execute, blocks) that gather batches from arrays inside the compiled call, `chunk` batches a call.

    `one_form` gives all batches one form, so that the function is compiled once: they then all have weights where the
    last is short.
    """
    arrays: Any = cast(data.ArrayDataset, loader.dataset).arrays
    device = next(leaf.device for leaf in tree.leaves(arrays) if leaf is not None)

    def gathered(carry: Carry, arrays: Any, row: dict[str, Tensor]) -> Any:
        return advance(carry, data.as_batch(data.gather(arrays, row["index"]), padding=row.get("weight")))

    def step(carry: Carry, arrays: Any, row: dict[str, Tensor]) -> tuple[Carry, Any]:
        return _one_row(gathered(carry, arrays, row))

    def steps(carry: Carry, arrays: Any, rows: dict[str, Tensor]) -> tuple[Carry, Any]:
        return scan(lambda carry, row: _until_last(gathered(carry, arrays, row), row), carry, rows)

    def blocks(key: Tensor, epoch: int, start: int) -> Iterator[Block]:
        index, weight = data.index_block(loader, key, epoch, start, len(loader))
        rows = tree.to({"index": index} if weight is None else {"index": index, "weight": weight}, device)
        parts = [rows] if one_form or weight is None else _without_full_weights(rows)
        for part in parts:
            if chunk == 1:
                columns = (column.unbind(0) for column in part.values())
                yield from (Block((arrays, dict(zip(part, row, strict=True))), 1) for row in zip(*columns, strict=True))
            else:
                yield from (Block((arrays, some), steps) for some, steps in _chunks(part, chunk))

    return (step if chunk == 1 else steps), blocks


def _without_full_weights(rows: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return the batches that are full, without their weights, and the short last one with them.

    These are two forms and cost two traces, but weights slow every step of a small model, and a trace takes
    milliseconds where nothing is compiled.
    """
    full = {"index": rows["index"][:-1]}
    last = tree.map(lambda column: column[-1:], rows)
    return [full, last] if len(full["index"]) else [last]


def _chunks(rows: dict[str, Tensor], chunk: int) -> Iterator[tuple[dict[str, Tensor], int]]:
    """Yield the rows in chunks of one length, with the number of rows that count: a short last one is filled up.

    So that it needs no compiled function of its own, all chunks are then told which of their rows is the last to count.
    """
    steps = len(rows["index"])
    chunk = min(chunk, steps)
    if missing := -steps % chunk:
        rows = tree.map(lambda column: torch.cat([column, column[-1:].expand(missing, *column.shape[1:])]), rows)
        last = torch.zeros(steps + missing, dtype=torch.bool, device=rows["index"].device)
        last[steps - 1] = True
        rows = {**rows, "last": last}
    for first in range(0, steps, chunk):
        yield tree.map(lambda column, at=first: column[at : at + chunk], rows), min(chunk, steps - first)


def _until_last(result: Any, row: dict[str, Tensor]) -> Any:
    if "last" not in row:
        return result
    if isinstance(result, Stop):
        return attrs.evolve(result, when=result.when | row["last"])
    return Stop(*result, when=row["last"])


def carried(state: TrainState, memory: dict[str, Any], tally: Tally) -> Carry:
    """Return the carry at the beginning of a block: no stop is under way."""
    return Carry(state, memory, tally, torch.zeros_like(state.step), torch.zeros_like(state.step))
