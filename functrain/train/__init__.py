"""Training as a fold of a pure step: the state, the step and its stages, events and signals, and the loop.

To read it, take `learner`, `state`, `step`, `run`, `events` and `loop`, in this order; `execute`, `signals` and `tally`
are how that is made quick.
"""

from functrain.train.events import (
    EVENTS,
    HOST_EVENTS,
    SCOPES,
    STEP_EVENTS,
    Callback,
    Signal,
    emit,
    ordered,
)
from functrain.train.history import History
from functrain.train.learner import Learner, hyperparameters
from functrain.train.loop import evaluate, fit, overfit_batch
from functrain.train.run import Result, Run, remember
from functrain.train.state import TrainState, init, plan, progress
from functrain.train.step import Step, eval_stages, eval_step, train_stages, train_step

__all__ = [
    "EVENTS",
    "HOST_EVENTS",
    "SCOPES",
    "STEP_EVENTS",
    "Callback",
    "History",
    "Learner",
    "Result",
    "Run",
    "Signal",
    "Step",
    "TrainState",
    "emit",
    "eval_stages",
    "eval_step",
    "evaluate",
    "fit",
    "hyperparameters",
    "init",
    "ordered",
    "overfit_batch",
    "plan",
    "progress",
    "remember",
    "train_stages",
    "train_step",
]
