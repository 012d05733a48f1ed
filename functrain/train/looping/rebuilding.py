"""What a call that failed has overwritten is made again: from a copy of the run some calls before, by the calls since.

A compiled call puts its result into the memory of what it is passed. Where it raises in the middle, neither is whole.
So a copy is kept, a new one after `MOST_CALLS` calls, which takes about a hundredth of their time; and the calls since
then are made again where one fails, which gives the same bits.
"""

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import data, tree
from functrain.train.events import STEP_EVENTS, Callback
from functrain.train.looping.chunks import enter
from functrain.train.looping.interruption import is_lost
from functrain.train.looping.planning import own
from functrain.train.run import Run

MOST_CALLS = 32
"""How many calls are made again at most; so many batches are kept, where a source yields them one by one."""


@attrs.frozen
class Call:
    """A call that overwrites what it is passed.

    Attributes:
        function: the function of a carry and inputs.
        inputs: the inputs.
        begin: () -> the tally that the run had instead of what the call before had left; None where it had that.
    """

    function: Callable[..., Any]
    inputs: tuple
    begin: Callable[[], Any] | None = None


class Past:
    """The way to the run as it was before a call: a copy, and the calls since. It changes in place.

    Attributes:
        start: the copy; None before the first call.
    """

    def __init__(self, callbacks: tuple[Callback, ...]) -> None:
        self.start: Run | None = None
        self._calls: list[Call] = []
        self._callbacks, self._traced = callbacks, traced_names(callbacks)
        self._last: Run | None = None
        self._begun: tuple[Any, Any] = (None, None)
        self._buffers: list[Tensor] = []
        self._marks: list[Any] | None = None

    def begins(self, tally: Any, begin: Callable[[], Any]) -> None:
        """Note that a phase begins with a tally, and how another such is made."""
        self._begun = (tally, begin)

    def before(self, run: Run, function: Callable[..., Any], inputs: tuple) -> None:
        """Note a call that is about to be made; begin with a new copy where a handler has replaced what it carries."""
        last, (tally, begin) = self._last, self._begun
        if last is None or len(self._calls) >= MOST_CALLS or not self._carries_on(last, run):
            self._copy(run)
            self._calls = [Call(function, inputs)]
        elif run.tally is last.tally:
            self._calls.append(Call(function, inputs))
        elif run.tally is tally:
            self._calls.append(Call(function, inputs, begin))
        else:
            self._copy(run)
            self._calls = [Call(function, inputs)]

    def after(self, run: Run) -> None:
        """Note what the call has left."""
        self._last = run

    def forget(self) -> None:
        """Begin with a new copy at the next call, as nobody can copy the batches that are taken now."""
        self._last = None

    def _carries_on(self, last: Run, run: Run) -> bool:
        if run.state is not last.state:
            return False
        return run.memory is last.memory or all(run.memory[name] is last.memory[name] for name in self._traced)

    def _copy(self, run: Run) -> None:
        """Copy the run, into the memory of the copy before where that is alike: in a tenth of the time."""
        memory = {name: run.memory[name] for name in self._traced}
        tensors: list[Tensor] = []
        marks: list[Any] = []
        plain = _collect((run.state, memory, run.tally), tensors, marks)
        marks += [(t.shape, t.stride(), t.dtype) for t in tensors]
        if plain and marks == self._marks and self.start is not None:
            torch._foreach_copy_(self._buffers, tensors)  # pyright: ignore[reportPrivateImportUsage]
            kept = {**run.memory, **{name: self.start.memory[name] for name in self._traced}}
            self.start = tree.evolve(run, state=self.start.state, memory=kept, tally=self.start.tally)
            return
        self.start, self._buffers, self._marks = own(run, self._callbacks), [], marks if plain else None
        kept = {name: self.start.memory[name] for name in self._traced}
        _collect((self.start.state, kept, self.start.tally), self._buffers, [])

    def rebuild(self, run: Run, settled: Callable[[Any], Any], device: torch.device) -> Run:
        """Return the run as it was before its last call, which has failed: itself, where that overwrote nothing.

        What a call since the copy raises the second time is no reason to lose the run: then it is the copy.
        """
        if self.start is None or not is_lost(run):
            return run
        begun, names = own(self.start, self._callbacks), self._traced
        state, memory, tally = begun.state, begun.memory, begun.tally
        try:
            for call in self._calls[:-1]:
                tally = settled(tally if call.begin is None else call.begin())
                carry, _ = call.function(enter(state, {n: memory[n] for n in names}, tally, device), *call.inputs)
                state, memory, tally = carry.state, carry.memory, carry.tally
        except Exception:
            return self.start
        tally = tally if self._calls[-1].begin is None else self._calls[-1].begin()
        return tree.evolve(run, state=state, memory={**run.memory, **{n: memory[n] for n in names}}, tally=tally)


def traced_names(callbacks: tuple[Callback, ...]) -> list[str]:
    """Return the names of the callbacks whose memories the step carries.

    >>> traced_names((Callback("a", {"begin_step": print}), Callback("b", {"after_fit": print})))
    ['a']
    """
    return [callback.name for callback in callbacks if callback.handles(*STEP_EVENTS)]


def _collect(value: Any, tensors: list[Tensor], marks: list[Any]) -> bool:
    """Add the tensors of a tree in an order of its own, and what else it is made of; return whether that is plain data.

    In a third of the time of `tree.flatten`.
    """
    kind = type(value)
    if isinstance(value, Tensor):
        tensors.append(value)
        return kind is Tensor
    if kind is dict:
        names = sorted(value, key=str)
        marks.append(names)
        return all([_collect(value[name], tensors, marks) for name in names])
    marks.append(kind)
    if kind is tuple or kind is list:
        marks.append(len(value))
        return all([_collect(part, tensors, marks) for part in value])
    if attrs.has(kind) and hasattr(value, "__dict__"):
        return all([_collect(part, tensors, marks) for part in vars(value).values()])
    marks.append(value)
    return value is None or kind in (int, float, str, bool)


def copy_batch(batch: Any) -> Any:
    """Return a copy of a batch, quickly where it is one of tensors.

    >>> copy_batch(data.Batch(torch.ones(1), None)).input
    tensor([1.])
    """
    if type(batch) is not data.Batch or not isinstance(batch.input, Tensor):
        return tree.clone(batch)
    others = (part.clone() if isinstance(part, Tensor) else tree.clone(part) for part in (batch.target, batch.weight))
    return data.Batch(batch.input.clone(), *others)
