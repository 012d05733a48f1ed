"""How batches reach the step: a chunk is some batches in a row, which one call of the step's function takes.

A `Feed` yields the chunks of a phase and carries the training through one. Its ways differ in speed alone: batches from
any source one by one, eager or compiled; in plain Python several in a row; and from arrays by index inside the compiled
call, many batches a call.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import data, tree
from functrain.engine import Stop, fold, scan
from functrain.train.looping.compiling import compile_step, identity, keep
from functrain.train.looping.sources import Source, open_source
from functrain.train.stepping.lending import check_unwritten, give_back, lend
from functrain.train.stop import Stops
from functrain.train.tally import Measured


@tree.node
class Carry:
    """What is carried from batch to batch: all of it tensors, so that a chunk of steps can be one compiled call.

    Attributes:
        state: the training state, or what a step of one's own carries.
        memory: the memories of the callbacks with step handlers.
        tally: what this phase has measured so far.
        stop: 0, or the number in `Stops` of the stop that ended more than its batch.
        done: batches done in this chunk before such a stop; not counted where there can be none.
    """

    state: Any
    memory: dict[str, Any]
    tally: Any
    stop: Tensor
    done: Tensor


@attrs.frozen
class Chunk:
    """Some batches in a row: what `Feed.execute` takes at once.

    Attributes:
        inputs: the trees that the function takes after the carry.
        size: how many batches it holds.
        batch: the batch itself where the chunk is one batch that host callbacks may look at; else None.
        short: whether its batch has fewer rows than the others.
    """

    inputs: tuple
    size: int
    batch: Any = None
    short: bool = False


@attrs.frozen
class Advance:
    """A pure step for a fold, and what is needed to read its stops.

    Attributes:
        owner: the object that the function was made of, with which what is compiled lives and dies.
        key: what else it was made of.
        f: (carry, batch) -> (carry, logs), or `Stop(carry, logs, when=...)`.
        stops: the table of the stops that it may report, which fills while it is traced.
    """

    owner: Any
    key: Any
    f: Callable[[Carry, Any], Any]
    stops: Stops


@attrs.frozen
class Feed:
    """A way to run one phase over one source of batches.

    Attributes:
        chunks: (key, epoch, start, stop) -> an iterator of the chunks of an epoch's batches from `start` to `stop`.
        execute: (carry, chunk inputs...) -> (carry, logs), the logs with one row a batch, or None when nobody looks.
        short: the same for a chunk that is `short`.
        again: the same for a chunk that has failed: batch by batch, and the carry stays as it is.
        exact: whether `again` gives the bits of `execute`.
        stops: the table of the stops that steps may report.
        donates: whether `execute` reuses the memory of the carry.
        shown: whether single batches are shown to host callbacks.
        plain: whether it runs as plain Python.
        source: where the batches come from.
        note: what to say when a short chunk is run, or "".
    """

    chunks: Callable[[Tensor, int, int, int | None], Iterator[Chunk]]
    execute: Callable[..., tuple[Carry, Any]]
    short: Callable[..., tuple[Carry, Any]]
    again: Callable[..., tuple[Carry, Any]]
    exact: bool
    stops: Stops
    donates: bool
    shown: bool
    plain: bool
    source: Source
    note: str = ""

    def chunk_of(self, batch: Any) -> Chunk:
        """Return the chunk of one batch."""
        return _of_one(self.source, batch) if self.shown or not self.plain else Chunk(([batch],), 1)


def feed(
    advance: Advance,
    source: Source,
    donate: bool,
    shown: bool,
    jit: str | bool = "aten",
    chunk: int = 1,
    compile_shapes: str = "first",
) -> Feed:
    """Return the quickest way to run a phase that shows the callbacks all that they look at.

    Args:
        advance: the step.
        source: where the batches come from.
        donate: whether the carry's memory may be reused.
        shown: whether a callback looks at single batches.
        jit: the backend, or False.
        chunk: batches in one call, where no callback looks at single ones.
        compile_shapes: "first" or "all": what the backend "inductor" compiles; the rest runs by "aten".
    """
    if not jit:
        pure = _without_writing(advance.f, source)
        step = _one_row(pure) if shown else _in_turn(pure)
        chunks = partial(_single, source) if shown else partial(_in_a_row, source, chunk)
        return Feed(chunks, step, step, step, True, advance.stops, False, shown, True, source)
    resident = not shown and source.resident
    if resident:  # here alone, for the function and its chunks must agree on whether there is one batch in a call
        chunk = min(chunk, max(len(source.batches), 1))
    kind = "batch" if not resident else "rows" if chunk == 1 else "chunk"
    short_kind = "rows" if resident else "batch"

    def make(kind: str, backend: str, donate: bool = donate) -> Callable:
        # With the sizes, so that a sweep over them makes several functions of few traces, not one of many.
        key = (identity(advance), kind, backend, donate, source.batch_size, chunk if kind == "chunk" else 1)
        return keep(advance.owner, key, lambda: compile_step(WAYS[kind](advance.f), donate, backend))

    def again(carry: Carry, *inputs: Any) -> tuple[Carry, Any]:
        one = make(short_kind, "aten", donate=False)
        return _one_by_one(one, carry, *inputs) if kind == "chunk" else one(carry, *inputs)

    others = "aten" if jit == "inductor" and compile_shapes == "first" else str(jit)
    note = f"batches of another shape than the first ran by {others!r}; compile_shapes='all' compiles each"
    chunks = partial(_resident if resident else _single, source, *([chunk] if resident else []))
    return Feed(
        chunks,
        make(kind, str(jit)),
        make(short_kind, others),
        again,
        jit == "aten",
        advance.stops,
        donate,
        shown,
        False,
        source,
        note=note if others != jit else "",
    )


def enter(state: Any, memory: dict[str, Any], tally: Any, device: torch.device) -> Carry:
    """Return the carry at the beginning of a chunk: no stop is under way."""
    zero = torch.zeros((), dtype=torch.int64, device=device)
    return Carry(state, memory, tally, zero, zero.clone())


def run_chunk(feed: Feed, carry: Carry, chunk: Chunk) -> tuple[Carry, Any]:
    """Return the carry after a chunk, and its logs; what a batch raises is raised, whatever came before it."""
    try:
        return (feed.short if chunk.short else feed.execute)(carry, *chunk.inputs)
    except Partly as partly:
        failed = partly.error
    raise failed


# The functions that are called with a chunk


def _by_batch(f: Callable) -> Callable[[Carry, Any], tuple[Carry, Any]]:
    return _one_row(lambda carry, batch: give_back(f(carry, batch), batch))


def _one_row(f: Callable) -> Callable[[Carry, Any], tuple[Carry, Any]]:
    """Return the function that advances by one batch, with logs of one row."""

    def step(carry: Carry, batch: Any) -> tuple[Carry, Any]:
        return _as_row(f(carry, batch))

    return step


def _without_writing(f: Callable, source: Source) -> Callable[[Carry, Any], Any]:
    """Return the function, in plain Python, as one that changes nothing that others hold, as compiled ones do.

    A write to a batch of views goes to a copy, one to a batch of the user's own is refused.
    """
    if source.yields_views:
        return lambda carry, batch: f(carry, tree.clone(batch))
    if source.is_loader:
        return f if not source.may_refill else lambda carry, batch: give_back(f(carry, batch), batch, carry)

    def checked(carry: Carry, batch: Any) -> Any:
        lent = lend(batch)
        result = f(carry, batch)
        check_unwritten(lent, f"its batch of {source.name}")
        return give_back(result, batch, carry)

    return checked


def _as_row(result: Any) -> tuple[Carry, Any]:
    carry, logs = (result.carry, result.y) if isinstance(result, Stop) else result
    return carry, logs if logs is None else tree.map(lambda value: value[None], logs)


def _in_turn(f: Callable) -> Callable[[Carry, Any], tuple[Carry, Any]]:
    """Return the function that advances by some batches in plain Python.

    A log's metric that each step makes anew is that of the first step, as in a function that is traced once. Where a
    batch fails after others, `Partly` is raised, with what those gave.
    """

    def steps(carry: Carry, batches: Any) -> tuple[Carry, Any]:
        first: dict[str, Any] = {}
        so_far, all_logs = carry, []

        def step(carry: Carry, batch: Any) -> Any:
            nonlocal so_far
            result = f(carry, batch)
            for name, log in (_logs_of(result) or {}).get("merged", {}).items():
                if isinstance(log, Measured) and first.setdefault(name, log).metric is not log.metric:
                    _logs_of(result)["merged"][name] = Measured(first[name].metric, log.accumulator)
            so_far = result.carry if isinstance(result, Stop) else result[0]
            all_logs.append(_logs_of(result))
            return result

        try:
            return fold(step, carry, batches)
        except Exception as error:
            if not all_logs:
                raise
            logs = None if all(one is None for one in all_logs) else tree.stack(all_logs)
            raise Partly(so_far, logs, len(all_logs), error) from error

    return steps


class Partly(Exception):
    """What the batches of a chunk have given before one of them failed; whoever runs a chunk catches it.

    Attributes:
        carry: the carry after them.
        logs: their logs, with one row a batch, or None.
        done: how many they are.
        error: what the next one raised.
    """

    def __init__(self, carry: Carry, logs: Any, done: int, error: Exception) -> None:
        super().__init__()
        self.carry, self.logs, self.done, self.error = carry, logs, done, error


def _one_by_one(f: Callable, carry: Carry, arrays: Any, rows: dict[str, Tensor]) -> tuple[Carry, Any]:
    """Advance by a chunk of rows as by a chunk of each of them: `f` has logs of one row."""

    def step(carry: Carry, row: dict[str, Tensor]) -> Stop:
        last = row.get("last", False)
        carry, logs = f(carry, arrays, {name: part for name, part in row.items() if name != "last"})
        logs = logs if logs is None else tree.map(lambda column: column[0], logs)
        return Stop(carry, logs, when=(carry.stop > 0) | last)

    each = [tree.map(lambda column, k=k: column[k], rows) for k in range(len(rows["index"]))]
    return _in_turn(step)(carry, each)


def _logs_of(result: Any) -> Any:
    return result.y if isinstance(result, Stop) else result[1]


def _gathering(f: Callable) -> Callable[..., Any]:
    def gathered(carry: Carry, arrays: Any, row: dict[str, Tensor]) -> Any:
        return f(carry, data.as_batch(data.gather(arrays, row["index"]), padding=row.get("weight")))

    return gathered


def _by_rows(f: Callable) -> Callable:
    gathered = _gathering(f)

    def step(carry: Carry, arrays: Any, row: dict[str, Tensor]) -> tuple[Carry, Any]:
        return _as_row(gathered(carry, arrays, row))

    return step


def _by_chunk(f: Callable) -> Callable:
    gathered = _gathering(f)

    def step(carry: Carry, arrays: Any, rows: dict[str, Tensor]) -> tuple[Carry, Any]:
        return scan(lambda carry, row: _until_last(gathered(carry, arrays, row), row), carry, rows)

    return step  # by one name, as errors in kernels name it, whatever the chunk


def _until_last(result: Any, row: dict[str, Tensor]) -> Any:
    if "last" not in row:
        return result
    if isinstance(result, Stop):
        return attrs.evolve(result, when=result.when | row["last"])
    return Stop(*result, when=row["last"])


WAYS: dict[str, Callable[[Callable], Callable]] = {"batch": _by_batch, "rows": _by_rows, "chunk": _by_chunk}


# The chunks of an epoch


def _single(source: Source, key: Tensor, epoch: int, start: int, stop: int | None) -> Iterator[Chunk]:
    yield from (_of_one(source, batch) for batch in open_source(source, key, epoch, start, stop))


def _of_one(source: Source, batch: Any) -> Chunk:
    return Chunk((batch,), 1, batch, source.batch_size is not None and _rows(batch) != source.batch_size)


def _rows(batch: Any) -> int | None:
    return next((leaf.shape[0] for leaf in tree.leaves(batch) if isinstance(leaf, Tensor) and leaf.dim()), None)


def _in_a_row(source: Source, chunk: int, key: Tensor, epoch: int, start: int, stop: int | None) -> Iterator[Chunk]:
    """Yield the chunks of up to `chunk` batches, each an iterator that makes a batch when its step is there."""
    batches = open_source(source, key, epoch, start, stop)
    if stop is None:  # nobody knows how many there are
        yield from (Chunk(([batch],), 1) for batch in batches)
        return
    for first in range(start, stop, chunk):
        size = min(chunk, stop - first)
        yield Chunk((islice(batches, size),), size)


def _resident(source: Source, chunk: int, key: Tensor, epoch: int, start: int, stop: int | None) -> Iterator[Chunk]:
    """Yield chunks of the rows' indices; the compiled call gathers them from the arrays."""
    loader: Any = source.batches
    arrays, n, size = loader.dataset.arrays, len(loader.dataset), loader.sampler.batch_size
    device = next(leaf.device for leaf in tree.leaves(arrays) if leaf is not None)
    end = len(loader) if stop is None else stop
    if start >= end:
        return
    index, weight = data.index_block(loader, key, epoch, start, end)
    padded = loader.sampler.remainder == "pad" and n % size != 0
    if padded and weight is None:
        weight = torch.ones(index.shape)
    rows = tree.to({"index": index, "weight": weight} if padded else {"index": index}, device)
    ragged = loader.sampler.remainder == "keep" and n > size and n % size != 0 and end == len(loader)
    full = {name: column[: len(index) - ragged] for name, column in rows.items()}
    yield from _of_full_batches(arrays, full, chunk)
    if ragged:  # a short last batch has a shape of its own, and is a call of its own
        yield Chunk((arrays, {"index": rows["index"][-1, : n % size]}), 1, short=True)


def _of_full_batches(arrays: Any, rows: dict[str, Tensor], chunk: int) -> Iterator[Chunk]:
    """Yield the rows in chunks of one length; a short last chunk is filled up with steps that are never run.

    So that it needs no compiled function of its own, all chunks then say which of their rows is the last to count.
    """
    if chunk == 1:
        for row in zip(*(column.unbind(0) for column in rows.values()), strict=True):
            yield Chunk((arrays, dict(zip(rows, row, strict=True))), 1)
        return
    steps = len(rows["index"])
    if missing := -steps % chunk:
        rows = tree.map(lambda column: torch.cat([column, column[-1:].expand(missing, *column.shape[1:])]), rows)
        last = torch.zeros(steps + missing, dtype=torch.bool, device=rows["index"].device)
        last[steps - 1] = True
        rows = {**rows, "last": last}
    for first in range(0, steps, chunk):
        part = tree.map(lambda column, at=first: column[at : at + chunk], rows)
        yield Chunk((arrays, part), min(chunk, steps - first))
