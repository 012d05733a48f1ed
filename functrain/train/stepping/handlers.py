"""The step handlers of callbacks, as stages between the stages of a step."""

from collections.abc import Callable, Iterable
from typing import Any

from functrain import tree
from functrain.engine import Stop
from functrain.train.events import Callback, check_answer, check_changes, naming, with_whole_parts
from functrain.train.stepping.weights import without_influence
from functrain.train.stop import Stops, halt

MAY_REPLACE = {
    "begin_step": frozenset(("state", "batch", "memory", "tally", "logged")),
    "after_pred": frozenset(("batch", "memory", "tally", "logged", "prediction", "buffers")),
    "after_loss": frozenset(("batch", "memory", "tally", "logged", "prediction", "buffers", "losses", "_loss")),
    "after_grads": frozenset(
        ("state", "batch", "memory", "tally", "logged", "prediction", "buffers", "losses", "_loss", "grads")
    ),
    "after_step": frozenset(("state", "memory", "tally", "logged", "measured")),
}
"""What a handler of each step event may replace: what a later stage reads, or the step gives back."""

_AFTER_EVALUATING = MAY_REPLACE["after_step"] - {"state"}
"""The same at the end of a step of a validation, which gives no state back."""


def handlers(callbacks: Iterable[Callback], phase: str, stops: Stops | None) -> Callable[[str], Any]:
    """Return a function from a step event to the stage that calls its handlers, or to None when there are none."""
    table = Stops() if stops is None else stops

    def on(event: str) -> Any:
        listening = [c for c in callbacks if c.handles(event) and phase in c.phases]

        def stage(step: Any) -> Any:
            for callback in listening:
                with naming(callback.name, event):
                    step = _answer(callback.handlers[event](step), step, event, callback.name, table)
            return step

        return stage if listening else None

    return on


def _answer(answer: Any, step: Any, event: str, name: str, stops: Stops) -> Any:
    if answer is None:
        return step
    if not isinstance(answer, Stop):
        return _check(answer, step, event, name)
    after = _check(answer.carry, step, event, name)
    return halt(step, after, answer, event, name, stops)


def _check(answer: Any, step: Any, event: str, name: str) -> Any:
    """Return the step that a handler answered with; rows to which it gave no weight are replaced before the next one.

    So they have no influence whoever gave the weights, as long as it is before the forward.
    """
    after = check_answer(answer, step, event, name)
    evaluated = event == "after_step" and step.phase != "train"
    check_changes(after, step, _AFTER_EVALUATING if evaluated else MAY_REPLACE[event], event, name)
    after = with_whole_parts(after, step, event, name)
    return after if after.batch is step.batch else tree.evolve(after, batch=without_influence(after.batch))
