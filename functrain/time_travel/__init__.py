"""Going back in a run: any step's exact batch, state and key again, from the nearest checkpoint.

    past(learner, "run", train=train, callbacks=callbacks)      a run, by its checkpoints and what `fit` was called with
    replay(past, step)                                          the moment before a step: its state, batch and key
    fork(past, step, edit)                                      a run that goes on from there, changed
    debug(past, step, handlers)                                 that step as plain Python, with prints and breakpoints
    diff(past, other)                                           the first step, and the leaf, in which two runs differ

It works since a run is a pure function of the state that it began with: what comes again is the same, bit for bit.
"""

from functrain.time_travel.debugging import debug
from functrain.time_travel.differing import Difference, diff
from functrain.time_travel.pasts import Past, past
from functrain.time_travel.replaying import Moment, fork, replay

__all__ = ["Difference", "Moment", "Past", "debug", "diff", "fork", "past", "replay"]


def __dir__() -> list[str]:
    return __all__
