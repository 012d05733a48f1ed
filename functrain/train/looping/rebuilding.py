"""What a call that failed has overwritten is made again: from a copy of the run some calls before, by the calls since.

A compiled call puts its result into the memory of what it is passed. Where it raises in the middle, neither is whole.
So a copy is kept, a new one after `MOST_CALLS` calls, which takes about a hundredth of their time; and the calls since
then are made again where one fails, which gives the same bits.
"""

from collections.abc import Callable
from typing import Any

import attrs

from functrain import tree
from functrain.train.events import STEP_EVENTS, Callback
from functrain.train.looping.chunks import enter
from functrain.train.looping.interruption import is_lost
from functrain.train.looping.planning import own
from functrain.train.run import Run

MOST_CALLS = 16
"""How many calls are made again at most; so many batches are kept, where a source yields them one by one."""


@attrs.frozen
class Past:
    """The way to the run as it was before a call.

    Attributes:
        start: a copy of the run, from before the first of the calls.
        calls: what was called since with a carry and these inputs; the last call is the one under way.
    """

    start: Run
    calls: tuple[tuple[Callable[..., Any], tuple], ...]


def followed(
    past: Past | None,
    last: Run | None,
    run: Run,
    call: tuple[Callable[..., Any], tuple],
    callbacks: tuple[Callback, ...],
) -> Past:
    """Return the past of the run that a call is about to take; a new one where a handler has replaced what it carries.

    Args:
        past: the past of the call before; None for the first.
        last: what that call left.
        run: the run as it is now.
        call: what is called, and its inputs.
        callbacks: the callbacks.

    >>> followed(None, None, Run(state=0), (print, ()), ()).start.state
    0
    """
    if past is None or last is None or len(past.calls) >= MOST_CALLS or not _carries_on(last, run, callbacks):
        return Past(own(run, callbacks), (call,))
    return Past(past.start, (*past.calls, call))


def _carries_on(last: Run, run: Run, callbacks: tuple[Callback, ...]) -> bool:
    if run.state is not last.state or run.tally is not last.tally:
        return False
    if run.memory is last.memory:
        return True
    return all(run.memory[name] is last.memory[name] for name in traced_names(callbacks))


def traced_names(callbacks: tuple[Callback, ...]) -> list[str]:
    """Return the names of the callbacks whose memories the step carries.

    >>> traced_names((Callback("a", {"begin_step": print}), Callback("b", {"after_fit": print})))
    ['a']
    """
    return [callback.name for callback in callbacks if callback.handles(*STEP_EVENTS)]


def rebuilt(past: Past | None, run: Run, callbacks: tuple[Callback, ...], settled: Callable, device: Any) -> Run:
    """Return the run as it was before its last call, which has failed: itself, where that overwrote nothing.

    What a call since the copy raises the second time is no reason to lose the run: then it is the copy.

    Args:
        past: the way to it; None for none.
        run: the run that the call was passed.
        callbacks: the callbacks.
        settled: the tally with nothing waiting.
        device: where the state is.

    >>> rebuilt(None, Run(state=0), (), None, "cpu").state
    0
    """
    if past is None or not is_lost(run):
        return run
    begun = own(past.start, callbacks)
    state, memory, tally = begun.state, begun.memory, begun.tally
    names = traced_names(callbacks)
    try:
        for function, inputs in past.calls[:-1]:
            carry, _ = function(enter(state, {name: memory[name] for name in names}, settled(tally), device), *inputs)
            state, memory, tally = carry.state, carry.memory, carry.tally
    except Exception:
        return past.start
    return tree.evolve(run, state=state, memory={**run.memory, **{n: memory[n] for n in names}}, tally=tally)
