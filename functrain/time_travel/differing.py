"""Where two runs part: the first step of which the batch, the key or the state are not the same, and the leaf."""

import hashlib
import os
from typing import Any

import attrs
from torch import Tensor

from functrain import checkpoint, tree
from functrain.checkpoint.format.elements import as_bytes, as_stored
from functrain.engine import Stop
from functrain.time_travel.pasts import GUEST, Past, gone_through, guest, steps_in
from functrain.time_travel.replaying import replay
from functrain.train import Run
from functrain.train.run import batches_done


@attrs.frozen(repr=False)
class Difference:
    """Where two runs part.

    Attributes:
        step: the first step before which something differs.
        what: "batch" or "state", what differs first; "end" where one ended and the other went on.
        path: the dotted path of the first leaf that differs, "" for "end".
        lines: where they differ, a line each with both values, at most ten.
    """

    step: int
    what: str
    path: str
    lines: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n  ".join([f"the runs differ before step {self.step}, first in the {self.what}:", *self.lines])


def diff(a: Past, b: Past, start: int | None = None) -> Difference | None:
    """Return the first step and leaf in which two runs differ, None where they are the same to their ends.

    Before each step the batch and the state are compared, bit for bit; a state that differs before step s while all was
    the same before step s - 1 was made different by that step. Both runs are gone through, from the last checkpoints
    that are the same.

    Args:
        a: a run, see `past`.
        b: another one.
        start: the step from which on they are compared; None for the latest at which both have the same checkpoint,
            and the first where there is none.

    Raises: as `replay`.

    >>> import torch
    >>> from functrain import data, losses, nn, optim, random, train
    >>> from functrain.time_travel import past
    >>> rows = data.ArrayDataset((torch.ones(8, 3), torch.zeros(8, dtype=torch.int64)))
    >>> learner, other = (train.Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=lr)) for lr in (0.1, 0.2))
    >>> state = train.init(learner, random.key(0), rows[:1])
    >>> options = dict(state=state, train=data.loader(rows, data.shuffled(2)), epochs=2)
    >>> found = diff(past(learner, **options), past(other, **options))
    >>> found.step, found.what, found.path
    (1, 'state', 'params.weight')
    """
    begin = _same_until(a, b) if start is None else start
    first: dict[int, dict[str, bytes]] = {}
    ended_a = gone_through(a, begin, guest({"begin_batch": lambda run: _note(first, run)}))
    _note(first, ended_a)
    parted: list[int] = []

    def begin_batch(run: Run) -> Stop | None:
        at = batches_done(run)
        if at < begin or first.get(at) == _digests(run):
            return None
        parted.append(at)
        return Stop(run, scope="fit", reason="it differs here")

    ended_b = gone_through(b, begin, guest({"begin_batch": begin_batch}))
    if not parted and first.get(batches_done(ended_b)) == _digests(ended_b):
        return None
    at = parted[0] if parted else batches_done(ended_b)
    return _difference(a, b, at, ended_a, ended_b)


def _same_until(a: Past, b: Past) -> int:
    """Return the last step at which both have a checkpoint of the same state, with none before that differs."""
    if not all(isinstance(one.source, (str, os.PathLike)) for one in (a, b)):
        return 0 if None not in (a.state, b.state) else max(_earliest(one) for one in (a, b))
    left, right = (dict(steps_in(one.source)) for one in (a, b))
    last = None
    for step in sorted(left.keys() & right.keys()):
        if _state_digests(left[step]) != _state_digests(right[step]):
            break
        last = step
    if last is not None:
        return last
    return 0 if None not in (a.state, b.state) else max(_earliest(one) for one in (a, b))


def _earliest(past: Past) -> int:
    if past.state is not None:
        return 0
    if isinstance(past.source, (str, os.PathLike)):
        return min((step for step, _ in steps_in(past.source)), default=0)
    return batches_done(past.source.point or past.source) if isinstance(past.source, Run) else 0


def _state_digests(path: str) -> dict[str, bytes]:
    state = checkpoint.part(checkpoint.restore(path), "state")
    return {name: _digest(leaf) for name, leaf in state.leaves.items()}


def _note(notes: dict[int, dict[str, bytes]], run: Run) -> None:
    notes[batches_done(run)] = _digests(run)


def _digests(run: Run) -> dict[str, bytes]:
    run = run.point or run
    return _leaf_digests((run.batch, run.state))


def _leaf_digests(value: Any) -> dict[str, bytes]:
    return {path: _digest(leaf) for path, leaf in tree.leaves_with_path(value)}


def _digest(leaf: Any) -> bytes:
    if not isinstance(leaf, Tensor):
        return repr(leaf).encode()
    stored = as_stored(leaf.detach())
    return hashlib.blake2b(as_bytes(stored), digest_size=16, person=tree.describe(leaf).encode()[:16]).digest()


def _difference(a: Past, b: Past, at: int, ended_a: Run, ended_b: Run) -> Difference:
    ends = [None if _still_at(ended, at) else ended for ended in (ended_a, ended_b)]
    if ends[0] is not None and ends[1] is not None:  # both ended here
        moments = [(None, (one.point or one).state) for one in (ended_a, ended_b)]
    elif ends[0] is not None or ends[1] is not None:
        return Difference(at, "end", "", tuple(_end(name, one) for name, one in zip("ab", ends, strict=True)))
    else:
        moments = [(moment.batch, moment.state) for moment in (replay(a, at), replay(b, at))]
    what, left, right = "state", moments[0][1], moments[1][1]
    if _leaf_digests(moments[0][0]) != _leaf_digests(moments[1][0]):
        what, left, right = "batch", moments[0][0], moments[1][0]
    lines = tuple(tree.differences(left, right))
    path = _first_path(left, right)
    return Difference(at, what, path, lines or (f"{path}: equal values of other bits",))


def _first_path(left: Any, right: Any) -> str:
    here, there = _leaf_digests(left), _leaf_digests(right)
    return next(path for path in {**here, **there} if here.get(path) != there.get(path))


def _still_at(ended: Run, at: int) -> bool:
    return batches_done(ended) > at or (ended.stopped is not None and ended.stopped.callback == GUEST)


def _end(name: str, run: Run | None) -> str:
    return f"{name} goes on" if run is None else f"{name} ends: {run.stopped or 'its plan is carried out'}"
