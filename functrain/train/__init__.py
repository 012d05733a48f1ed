"""Training as a fold of a pure step: the state, the step and its stages, events and stops, the loop, and fit.

The README beside this file says in what order to read it.
"""

from functrain.train.events import EVENTS, HOST_EVENTS, STEP_EVENTS, Callback, in_order, remember
from functrain.train.fitting import batch_at, evaluate, fit, overfit_batch, predict
from functrain.train.history import History
from functrain.train.learner import Learner, hyperparameters
from functrain.train.looping.emitting import emit
from functrain.train.own_step import loop
from functrain.train.run import Cursor, Plan, Run
from functrain.train.state import TrainState, data_key, init, plan, progress_of
from functrain.train.stepping.record import Step, log
from functrain.train.stepping.step import eval_stages, eval_step, train_stages, train_step
from functrain.train.stop import SCOPES, Stopped
from functrain.train.tally import Measured

__all__ = [
    "EVENTS",
    "HOST_EVENTS",
    "SCOPES",
    "STEP_EVENTS",
    "Callback",
    "Cursor",
    "History",
    "Learner",
    "Measured",
    "Plan",
    "Run",
    "Step",
    "Stopped",
    "TrainState",
    "batch_at",
    "data_key",
    "emit",
    "eval_stages",
    "eval_step",
    "evaluate",
    "fit",
    "hyperparameters",
    "in_order",
    "init",
    "log",
    "loop",
    "overfit_batch",
    "plan",
    "predict",
    "progress_of",
    "remember",
    "train_stages",
    "train_step",
]


def __dir__() -> list[str]:
    return __all__
