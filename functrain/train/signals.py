"""Stops inside the step: a traced handler cannot leave a compiled function, so its stop is a mask.

The stages after the stop are computed all the same, and `settle` then takes the state from before it. That is why a
result never depends on how many steps are compiled into one call.
"""

from collections.abc import Callable, Iterable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.engine import Stop
from functrain.train.events import Callback, check_answer, scope_of
from functrain.train.tally import Tally


@attrs.frozen
class Said:
    """Who signalled what: the part of a stop that is known while tracing.

    Attributes:
        scope: what the stop ends.
        reason: why.
        callback: the name of the callback.
        event: the event it answered.
    """

    scope: str
    reason: str
    callback: str
    event: str


@attrs.frozen
class Signals:
    """The numbers under which compiled steps report stops: entry i of the table is code i + 1, and 0 is no stop.

    The table grows when a handler is traced, because only then is it known which stops it may signal; the same stop
    always gets the same number.
    """

    table: list[Said] = attrs.field(factory=list)

    def code(self, said: Said) -> int:
        """Return the number of a stop, a new one when it is new.

        >>> signals = Signals()
        >>> signals.code(Said("fit", "loss is nan", "finite", "after_loss"))
        1
        """
        if said not in self.table:
            self.table.append(said)
        return self.table.index(said) + 1

    def end_more_than_a_batch(self) -> bool:
        """Return whether any known stop ends more than its own batch, so that somebody must look for it.

        >>> Signals().end_more_than_a_batch()
        False
        """
        return bool(self.table) and any(said.scope != "batch" for said in self.table)


@tree.node
class Halt:
    """A stop inside a step.

    Attributes:
        when: a boolean scalar: whether it happened.
        code: its number in `Signals`, 0 where it did not happen or ends this batch alone.
        state: the state to go on with where it happened.
        memory: the memories to go on with.
        tally: the tally to go on with.
    """

    when: Tensor
    code: Tensor
    state: Any
    memory: dict[str, Any]
    tally: Tally


def handlers(callbacks: Iterable[Callback], phase: str, signals: Signals | None) -> Callable[[str], Any]:
    """Return a function from a step event to the stage that calls its handlers, or to None when there are none."""
    table = Signals() if signals is None else signals

    def on(event: str) -> Any:
        listening = [c for c in callbacks if c.handles(event) and phase in c.phases]

        def stage(step: Any) -> Any:
            for callback in listening:
                step = _accept(callback.handlers[event](step), step, event, callback.name, table)
            return step

        return stage if listening else None

    return on


def _accept(answer: Any, step: Any, event: str, name: str, signals: Signals) -> Any:
    if answer is None:
        return step
    if not isinstance(answer, Stop):
        return check_answer(answer, step, event, name)
    after = check_answer(answer.carry, step, event, name)
    scope = scope_of(answer, event)
    code = signals.code(Said(scope, answer.reason, name, event))
    return tree.evolve(after, halt=_halt(answer.when, scope, event, code, step, after))


def _halt(when: Any, scope: str, event: str, code: int, step: Any, after: Any) -> Halt:
    device = step.state.step.device
    when = torch.as_tensor(when, device=device)
    # A stop of more than this batch, in the middle of it, leaves the batch undone: a resumed run begins with it.
    done = scope == "batch" or event == "after_step"
    state = tree.evolve(after.state, step=after.state.step + 1) if done else step.state
    number = torch.full_like(step.state.step, 0 if scope == "batch" else code)
    new = Halt(when, torch.where(when, number, 0), state, after.memory, after.tally)
    return new if step.halt is None else _first(step.halt, new)


def _first(old: Halt, new: Halt) -> Halt:
    def pick(a: Any, b: Any) -> Any:
        return tree.map(lambda x, y: torch.where(old.when, x, y), a, b)

    return Halt(
        old.when | new.when,
        pick(old.code, new.code),
        pick(old.state, new.state),
        pick(old.memory, new.memory),
        pick(old.tally, new.tally),
    )


def settle(step: Any) -> Any:
    """Return the step with the batch counted, and everything as it was before a stop where one happened."""
    state = tree.evolve(step.state, step=step.state.step + 1)
    halt = step.halt
    if halt is None:
        return tree.evolve(step, state=state)

    def pick(held: Any, new: Any) -> Any:
        return tree.map(lambda a, b: torch.where(halt.when, a, b), held, new)

    return tree.evolve(
        step,
        state=pick(halt.state, state),
        memory=pick(halt.memory, step.memory),
        tally=pick(halt.tally, step.tally),
    )
