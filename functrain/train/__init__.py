"""Training as a fold of a pure step: the state, the step and its stages, events and stops, the loop, and fit.

To read it, take `learner`, `state` and `step` (with `weights`, `gradients`, `handlers`); then `events`, `stop` and
`run`; then `looping`, `phase` and `fitting`. `chunks`, `compiling` and `tally` are how that is made quick;
`interruption` holds Ctrl-C back; `preflight` and `padding` find what does not fit before anything is trained.
"""

from functrain.train.emitting import emit
from functrain.train.events import EVENTS, HOST_EVENTS, STEP_EVENTS, Callback, ordered, remember
from functrain.train.fitting import batch_at, evaluate, fit, overfit_batch, predict
from functrain.train.history import History
from functrain.train.learner import Learner, hyperparameters
from functrain.train.own_step import loop
from functrain.train.run import Cursor, Plan, Run
from functrain.train.state import TrainState, data_key, init, plan, progress
from functrain.train.step import Step, eval_stages, eval_step, log, train_stages, train_step
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
    "init",
    "log",
    "loop",
    "ordered",
    "overfit_batch",
    "plan",
    "predict",
    "progress",
    "remember",
    "train_stages",
    "train_step",
]


def __dir__() -> list[str]:
    return __all__
