"""The laws of a sampler."""

from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor

from functrain import data, random
from functrain.data.sampler import Sampler, weights
from functrain.testing.laws import Laws, break_law, hold, same


def check_sampler(
    sampler: Sampler, n: int = 23, *, key: Tensor | None = None, epochs: int = 3, skip: Collection[str] = ()
) -> tuple[str, ...]:
    """Check the laws of a sampler, and return their names.

    - "pure": the same key, epoch and step give the same indices, whatever was asked for before.
    - "range": indices are int64, from 0 to n - 1, in batches of the size that is promised.
    - "once": each example comes exactly once an epoch; at most once where the remainder is dropped, and the rows that
      fill up a batch have zero weight.
    - "reach": a part of an epoch's order is the same asked for alone and as part of the whole.

    Args:
        sampler: the sampler.
        n: how many examples there are; a number that the batch size does not divide shows most.
        key: a random key; `random.key(0)` by default.
        epochs: how many epochs are looked at.
        skip: the names of laws that it need not obey, such as ["once"] for one that draws with replacement.

    Raises:
        LawBroken: a law does not hold; the message says which, and where.

    >>> check_sampler(data.shuffled(batch_size=4))
    ('pure', 'range', 'once', 'reach')
    """
    return hold(repr(sampler), sampler_laws(sampler, n, random.key(0) if key is None else key, epochs), skip)


def sampler_laws(sampler: Sampler, n: int, key: Tensor, epochs: int) -> Laws:
    """Return the laws of `check_sampler` by name, to be checked one by one.

    >>> sampler_laws(data.sequential(batch_size=4), 10, random.key(0), 1)["once"]()
    """
    laws = {"pure": _pure, "range": _range, "once": _once, "reach": _reach}
    return {name: partial(_each, law, sampler, n, key, epochs) for name, law in laws.items()}


def _each(law: Any, sampler: Sampler, n: int, key: Tensor, epochs: int) -> None:
    for epoch in range(epochs):
        law(sampler, n, key, epoch)


def _batches(sampler: Sampler, n: int, key: Tensor, epoch: int) -> list[Tensor]:
    return [data.indices(sampler, key, n, epoch, step) for step in range(data.steps_per_epoch(sampler, n))]


def _pure(sampler: Sampler, n: int, key: Tensor, epoch: int) -> None:
    forwards = _batches(sampler, n, key, epoch)
    for step in reversed(range(len(forwards))):
        data.indices(sampler, key, n, epoch + 1, 0)
        again = data.indices(sampler, key.clone(), n, epoch, step)
        same(forwards[step], again, f"the indices of epoch {epoch}, step {step} asked for in another order")


def _range(sampler: Sampler, n: int, key: Tensor, epoch: int) -> None:
    batches = _batches(sampler, n, key, epoch)
    for step, batch in enumerate(batches):
        last = step == len(batches) - 1
        size = n - step * sampler.batch_size if last and sampler.remainder == "keep" else sampler.batch_size
        if batch.dtype != torch.int64 or tuple(batch.shape) != (size,):
            kind = f"{batch.dtype} of shape {tuple(batch.shape)}"
            break_law(f"the indices of epoch {epoch}, step {step} must be int64 of shape ({size},), got {kind}")
        if bool(((batch < 0) | (batch >= n)).any()):
            break_law(f"epoch {epoch}, step {step} has an index that is not from 0 to {n - 1}: {batch.tolist()}")


def _once(sampler: Sampler, n: int, key: Tensor, epoch: int) -> None:
    counts = torch.zeros(n)
    for step, batch in enumerate(_batches(sampler, n, key, epoch)):
        weight = weights(sampler, n, step)
        counts.index_add_(0, batch, torch.ones(len(batch)) if weight is None else weight)
    wrong = (counts > 1) if sampler.remainder == "drop" else (counts != 1)
    if bool(wrong.any()):
        example = int(wrong.nonzero()[0])
        break_law(f"example {example} comes {int(counts[example])} times in epoch {epoch}")


def _reach(sampler: Sampler, n: int, key: Tensor, epoch: int) -> None:
    whole = sampler.order(key, n, epoch, 0, n)
    for start in range(0, n, 5):
        stop = min(start + 7, n)
        part = sampler.order(key, n, epoch, start, stop)
        same(whole[start:stop], part, f"the positions {start} to {stop} of epoch {epoch} in the whole and alone")
