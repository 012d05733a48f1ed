"""One step of a compiled run as plain Python, so that prints and breakpoints in it work."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from torch import Tensor

from functrain import tree
from functrain.engine import Stop
from functrain.errors import InvalidArgument
from functrain.time_travel.pasts import Past, go_on, guest, without_guest
from functrain.time_travel.replaying import replay
from functrain.train import STEP_EVENTS, Learner, Run


def debug(past: Past, step: int, handlers: Mapping[str, Callable[[Any], Any]] | None = None) -> Run:
    """Take one step of a run again, as plain Python, and return the run after it; `run.logs` has the step's values.

    The run comes to the step as it was, compiled if it was. The step itself runs uncompiled, so prints and breakpoints
    in the model, the loss, or a callback work, and may differ from the compiled one in the last bits.

    Args:
        past: the run, see `past`.
        step: the step, from 0.
        handlers: functions that look at the `Step`, by event, such as {"after_loss": lambda step: print(step.loss)} or
            {"after_grads": lambda step: breakpoint()}. What they return is not heeded. For a `Learner` alone.

    Raises:
        InvalidArgument: an event is none of a step, or a loop of one's own has none.

    Otherwise as `replay`.

    >>> import torch
    >>> from functrain import data, losses, nn, optim, random, train
    >>> from functrain.time_travel import past
    >>> rows = data.ArrayDataset((torch.zeros(8, 3), torch.zeros(8, dtype=torch.int64)))
    >>> learner = train.Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> state = train.init(learner, random.key(0), rows[:1])
    >>> before = past(learner, state=state, train=data.loader(rows, data.shuffled(2)), epochs=2)
    >>> run = debug(before, 3, {"after_grads": lambda step: print(step.grads["weight"].shape)})
    torch.Size([2, 3])
    >>> int(run.state.step)
    4
    """
    looking = dict(handlers or {})
    for event in looking:
        if event not in STEP_EVENTS or not isinstance(past.learner, Learner):
            raise InvalidArgument(f"handlers: {event!r} is no event of this step; a Learner's are {STEP_EVENTS}")

    def after_batch(run: Run) -> Stop:
        return Stop(run, scope="fit", reason="one step was taken")

    moment = replay(past, step)
    answering = {**{event: _looks(look) for event, look in looking.items()}, "after_batch": after_batch}
    result = go_on(past, attrs.evolve(moment.run, batch=None), guest(answering), jit=False, chunk=1)
    return without_guest(result.point)


def _looks(look: Callable[[Any], Any]) -> Callable[[Any], None]:
    def handler(step: Any) -> None:
        look(tree.map(_detach, step))  # so that float() of what is differentiated warns of nothing

    return handler


def _detach(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf
