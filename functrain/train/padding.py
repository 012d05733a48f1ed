"""The probe of padding: where a sampler is asked to pad, code that mixes the rows of a batch is found beforehand."""

from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import data, random, tree
from functrain.errors import PaddingCounts
from functrain.train.events import STEP_EVENTS, Callback
from functrain.train.learner import Learner, metrics_of
from functrain.train.sources import Source
from functrain.train.state import TrainState
from functrain.train.step import Step, eval_stages, train_stages
from functrain.train.tally import Tally, measured_by, summed

RTOL, ATOL = 1e-3, 1e-4
"""How far a padded step may be from the one without padding: kernels add in another order for another shape."""


def check_padding(learner: Learner, state: TrainState, source: Source, callbacks: tuple[Callback, ...]) -> None:
    """Raise `PaddingCounts` when the rows that a sampler fills up with have an influence.

    The step runs on a padded batch with two fillings, without the replacement of rows of zero weight that hides them
    from most code, and everything must be equal to the bit. It is compared with the batch without padding as well, for
    code that counts rows.
    """
    if not _pads(source):
        return
    loader = source.batches
    kind = "train" if source.name == "train" else "valid"
    full = data.one_batch(attrs.evolve(loader, transform=None, sampler=_of_whole_batches(loader)), random.key(0))
    rows = len(loader.dataset) % loader.sampler.batch_size
    fillings = [_filled(full, rows, shift) for shift in (0, 1)] + [tree.map(lambda leaf: _head(leaf, rows), full)]
    if loader.transform is not None:
        fillings = [loader.transform(random.key(1), batch) for batch in fillings]
    if source.device is not None:
        fillings = [tree.to(batch, source.device) for batch in fillings]
    one, other, unpadded = (_outcome(learner, state, batch, kind, callbacks) for batch in fillings)
    _compare(one, other, source.name, "with other rows in their place", 0.0, 0.0)
    _compare(one, unpadded, source.name, "without them", RTOL, ATOL)


def _pads(source: Source) -> bool:
    if not source.is_loader or source.batches.sampler.remainder != "pad":
        return False
    return len(source.batches.dataset) % source.batches.sampler.batch_size != 0


def _of_whole_batches(loader: data.Loader) -> data.Sampler:
    size = min(loader.sampler.batch_size, len(loader.dataset))
    return attrs.evolve(loader.sampler, remainder="drop", batch_size=size)


def _filled(batch: data.Batch, rows: int, shift: int) -> data.Batch:
    """Return a batch whose first rows count, filled up with rows of its own in one order or another."""
    n = tree.leaves(batch.input)[0].shape[0]
    size = max(n, rows + 1)
    others = [(rows + shift * (k + 1) + k) % n if shift else rows - 1 for k in range(size - rows)]
    index = torch.tensor([*range(rows), *others])
    weight = (torch.arange(size) < rows).float()

    def taken(leaf: Any) -> Any:
        return leaf[index.to(leaf.device)] if isinstance(leaf, Tensor) else leaf

    weight = weight.to(tree.leaves(batch.input)[0].device)
    own = None if batch.weight is None else taken(batch.weight)
    weight = weight if own is None else own * weight.reshape(-1, *[1] * (own.dim() - 1))
    return data.Batch(tree.map(taken, batch.input), tree.map(taken, batch.target), weight)


def _head(leaf: Any, rows: int) -> Any:
    return leaf[:rows] if isinstance(leaf, Tensor) else leaf


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
    values = metric.compute(summed(metric, done.tally).added)
    return {
        "the parameters": done.state.params,
        "the buffers": done.state.buffers,
        "the state of the optimizer": done.state.opt_state,
        "the metrics": values,
        "a memory of a callback": done.memory,
        "what was logged": done.logged,
    }


def _compare(one: dict[str, Any], other: dict[str, Any], name: str, how: str, rtol: float, atol: float) -> None:
    for what, value in one.items():
        lines = tree.differences(value, other[what], rtol=rtol, atol=atol)
        if lines:
            shown = "\n".join(f"  {line}" for line in lines[:3])
            raise PaddingCounts(
                f"{name}: remainder='pad' fills a last batch up with rows of zero weight, and {how} a step changes "
                f"{what}:\n{shown}\na layer, the loss, a metric, a transform or a handler mixes or counts the rows "
                "without heeding their weights; use remainder='keep' or 'drop'"
            )
