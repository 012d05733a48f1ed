"""The probe of padding: where a sampler is asked to pad, code that mixes the rows of a batch is found beforehand."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import data, nn, optim, random, tree
from functrain.data import as_batch
from functrain.errors import PaddingCounts, ShapeMismatch
from functrain.train.events import STEP_EVENTS, Callback
from functrain.train.learner import Learner, metrics_of
from functrain.train.looping.emitting import emit
from functrain.train.looping.sources import Source
from functrain.train.run import Cursor, Run
from functrain.train.state import TrainState
from functrain.train.stepping.record import Step
from functrain.train.stepping.step import eval_stages, train_stages
from functrain.train.stepping.weights import row_weights, without_influence
from functrain.train.tally import Tally, measured_by, sum_up

RTOL, ATOL = 1e-3, 1e-4
"""How far a padded step may be from the one without padding: kernels add in another order for another shape."""

MOST_TRIED = 16
"""How many batches are looked through for one in which several rows have a weight."""


def check_padding(learner: Learner, state: TrainState, source: Source, callbacks: tuple[Callback, ...]) -> None:
    """Raise `PaddingCounts` when the rows that a sampler fills up with have an influence.

    The step runs on a padded batch with two fillings, without the replacement of rows of zero weight that hides them
    from most code, and everything must be equal to the bit. It is compared with the batch without padding as well, for
    code that counts rows. The optimizer is plain descent here: one like Adam makes a whole step of a gradient that is
    zero but for rounding, such as that of a bias before a batch norm. The callbacks of its handlers have the memories
    that their `begin_fit` and `begin_epoch` make.
    Of a fit in mixed precision the learner as it is stands for it, as rounding to a short dtype hides what is compared.
    """
    if not _pads(source):
        return
    callbacks = _with_memories(state, callbacks)
    batches = _probes(state, source, callbacks)
    if batches is None:
        return
    kind = "train" if source.name == "train" else "valid"
    learner = attrs.evolve(learner, optimizer=_descent(learner.optimizer))
    _compare(lambda batch: _outcome(learner, state, batch, kind, callbacks), batches, source.name, _eps(state))


def check_padded_predictions(model: nn.Model, state: TrainState, source: Source) -> None:
    """Raise `PaddingCounts` when the rows that a sampler fills up with change the predictions of the others."""
    batches = _probes(state, source, ())
    if batches is None:
        return
    rows = _rows(batches[-1])

    def predicted(batch: data.Batch) -> dict[str, Any]:
        return {"the predictions": _head(model.apply(state.params, state.buffers, batch.input)[0], rows)}

    _compare(predicted, batches, source.name, _eps(state))


def without_padding(prediction: Any, source: Source) -> Any:
    """Return the predictions of an epoch's last batch without those of the rows with which the sampler filled it up.

    Raises:
        ShapeMismatch: they are not one for each row.
    """
    if not _pads(source):
        return prediction
    size = source.batches.sampler.batch_size
    for path, leaf in tree.leaves_with_path(prediction):
        if leaf.shape[:1] != (size,):
            raise ShapeMismatch(
                f"remainder='pad': the predictions{f' {path}' if path else ''} of a batch of {size} rows have shape "
                f"{tuple(leaf.shape)}, so that those of the padding cannot be told; use remainder='keep'"
            )
    return _head(prediction, len(source.batches.dataset) % size)


def _pads(source: Source) -> bool:
    if not source.is_loader or source.length != len(source.batches):  # its last batch, the one padded, is not taken
        return False
    return data.pads(source.batches.sampler, len(source.batches.dataset))


# The batches


def _probes(state: TrainState, source: Source, callbacks: tuple[Callback, ...]) -> list[data.Batch] | None:
    """Return a batch padded in two ways, and without padding, as they come to the step; None where none is padded."""
    if not _pads(source):
        return None

    def prepared(batch: data.Batch) -> data.Batch:
        batch, transform = tree.clone(batch), source.batches.transform  # user code may write to it
        batch = batch if transform is None else as_batch(transform(random.key(1), batch))
        batch = batch if source.device is None else tree.to(batch, source.device)
        return _with_targets_in_range(_by_begin_batch(state, source.name, batch, callbacks))

    rows = _rows_that_count(source, prepared)
    if rows is None:
        return None
    n, size = _rows(rows), source.batches.sampler.batch_size
    # Half a batch, for code that counts rows: of many, one more or less makes little difference.
    head = min((size + 1) // 2, n - 1)
    padded = [_pad(rows, head, size, shift) for shift in (0, 1)]
    alone = take_rows(rows, torch.arange(head))  # with weights, as every batch of such a sampler
    return [prepared(batch) for batch in (*padded, as_batch(alone, padding=_ones_like(alone)))]


def _ones_like(rows: data.Batch) -> Tensor:
    return torch.ones(_rows(rows), device=data.first_tensor(rows.input).device)


def _rows_that_count(source: Source, prepared: Callable[[data.Batch], data.Batch]) -> data.Batch | None:
    """Return the rows of a batch that have a weight when they come to the step; None where there are too few."""
    loader = source.batches
    size = min(loader.sampler.batch_size, len(loader.dataset))
    plain = attrs.evolve(
        loader, transform=None, sampler=attrs.evolve(loader.sampler, remainder="drop", batch_size=size)
    )
    for batch in islice(data.batches(plain, random.key(0)), MOST_TRIED):
        batch = without_influence(batch)
        counts = torch.ones(_rows(batch), dtype=torch.bool)
        for weight in (row_weights(batch.weight), row_weights(prepared(batch).weight)):
            if weight is not None and weight.shape == counts.shape:
                counts &= weight.cpu() != 0
        if counts.sum() > 1:
            return take_rows(batch, counts.nonzero().squeeze(1))
    return None


def _pad(rows: data.Batch, head: int, size: int, shift: int) -> data.Batch:
    """Return a batch whose first rows count, filled up with others of them in one order or another."""
    n = _rows(rows)
    others = [(head + shift * (k + 1) + k) % n if shift else head - 1 for k in range(size - head)]
    batch = take_rows(rows, torch.tensor([*range(head), *others]))
    weight = (torch.arange(size) < head).float().to(data.first_tensor(batch.input).device)
    return as_batch(batch, padding=weight)


def _with_memories(state: TrainState, callbacks: tuple[Callback, ...]) -> tuple[Callback, ...]:
    """Return the callbacks that look at batches, with the memory that each has when the first batch comes.

    One is left out where that cannot be tried before the run begins.
    """
    looking = (c for c in callbacks if c.handles(*STEP_EVENTS, "begin_batch"))
    return tuple(one for callback in looking if (one := _with_memory(state, callback)) is not None)


def _with_memory(state: TrainState, callback: Callback) -> Callback | None:
    beginning = [event for event in ("begin_fit", "begin_epoch") if callback.handles(event)]
    if beginning and callback.resource is not None:
        return None
    run = Run(state, {callback.name: callback.memory}, key=random.key(0))
    try:
        for event in beginning:
            run = attrs.evolve(emit(event, (callback,), run), state=state, cursor=Cursor(), stopped=None)
    except Exception:  # it needs what only a run has
        return None
    return attrs.evolve(callback, memory=run.memory[callback.name])


def _by_begin_batch(state: TrainState, name: str, batch: data.Batch, callbacks: tuple[Callback, ...]) -> data.Batch:
    """Return the batch as the handlers of `begin_batch` make it, as far as that can be tried before the run begins."""
    trying = tuple(c for c in callbacks if c.handles("begin_batch") and c.resource is None)
    if not trying:
        return batch
    memory = {callback.name: callback.memory for callback in callbacks}
    run = Run(state, memory, batch=batch, key=random.key(0), cursor=Cursor(0, name, 0, "begin_batch"))
    try:
        return emit("begin_batch", trying, run).batch
    except Exception:  # it needs what only a run has
        return batch


def _with_targets_in_range(batch: data.Batch) -> data.Batch:
    """Return the batch with the targets of elements without weight replaced, which no loss ever sees."""
    if batch.weight is None or batch.weight.dim() == 1:
        return batch
    return attrs.evolve(batch, target=without_influence(batch).target)


def _rows(batch: data.Batch) -> int:
    return data.first_tensor(batch.input).shape[0]


def take_rows(batch: data.Batch, index: Tensor) -> data.Batch:
    """Return the batch of these rows; what is no tensor, or has no rows, stays.

    >>> take_rows(data.Batch(torch.tensor([5, 6, 7]), None), torch.tensor([2, 0])).input
    tensor([7, 5])
    """

    def rows(leaf: Any) -> Any:  # by `index_select`, for of a sparse tensor there is no other way
        return leaf.index_select(0, index.to(leaf.device)) if isinstance(leaf, Tensor) and leaf.dim() else leaf

    return tree.map(rows, batch)


def _head(part: Any, rows: int) -> Any:
    return tree.map(lambda leaf: leaf[:rows] if isinstance(leaf, Tensor) else leaf, part)


# What a step makes of them


def _descent(optimizer: optim.Transform) -> optim.Transform:
    """Return plain descent with the state of the optimizer, which stays as it is."""

    def update(updates: Any, state: Any, params: Any, context: Any) -> tuple[Any, Any]:
        return tree.map(lambda update: -update, updates), state

    return optim.Transform(optimizer.init, update)


def _outcome(
    learner: Learner, state: TrainState, batch: data.Batch, kind: str, callbacks: tuple[Callback, ...]
) -> dict[str, Any]:
    """Return what a step makes of a batch as it is, by what it is called."""
    memory = {c.name: c.memory for c in callbacks if c.handles(*STEP_EVENTS)}
    metric = measured_by(metrics_of(learner, kind))
    empty = Tally(metric.init(state.step.device))
    begun = Step(state, batch, memory, empty, (state, memory, empty), kind, metric)
    with torch.no_grad():
        done = (train_stages if kind == "train" else eval_stages)(learner, callbacks)(begun)
    return {
        "the loss and the metrics": metric.compute(sum_up(metric, done.tally).added),
        "the gradients": done.grads,
        "the parameters": done.state.params,
        "the buffers": done.state.buffers,
        "a memory of a callback": done.memory,
        "what was logged": done.logged,
    }


def _eps(state: TrainState) -> float:
    dtypes = [leaf.dtype for leaf in tree.leaves(state.params) if leaf.is_floating_point()]
    return max((torch.finfo(dtype).eps for dtype in dtypes), default=0.0)


def _compare(outcome: Callable[[data.Batch], dict[str, Any]], batches: list[data.Batch], name: str, eps: float) -> None:
    *padded, unpadded = batches
    one, other = (outcome(batch) for batch in padded)
    for what, value in one.items():
        _raise_if(
            tree.differences(value, other[what], rtol=0.0, atol=0.0), name, what, "with other rows in their place"
        )
    try:
        alone = outcome(unpadded)
    except ShapeMismatch:
        if _rows(unpadded) > 1:
            raise
        return  # a batch norm refuses one row
    for what, value in alone.items():
        atol = max(ATOL, 8 * eps) * max(1.0, _largest(value))  # what is zero but for rounding is as small as its terms
        lines = tree.differences(one[what], value, rtol=max(RTOL, 8 * eps), atol=atol)
        _raise_if(lines, name, what, "without them")


def _largest(value: Any) -> float:
    leaves = [leaf for leaf in tree.leaves(value) if isinstance(leaf, Tensor) and leaf.numel()]
    sizes = [float(leaf.detach().abs().nan_to_num(0.0, 0.0, 0.0).max()) for leaf in leaves if leaf.dtype != torch.bool]
    return max(sizes, default=0.0)


def _raise_if(lines: list[str], name: str, what: str, how: str) -> None:
    if not lines:
        return
    shown = "\n".join(f"  {line}" for line in lines[:3])
    raise PaddingCounts(
        f"{name}: remainder='pad' fills a last batch up with rows of zero weight, and {how} a step changes {what}:\n"
        f"{shown}\na layer, the loss, a metric, a transform or a handler mixes or counts the rows without heeding "
        "their weights; use remainder='keep' or 'drop'"
    )
