"""functrain trains PyTorch models as pure functions over immutable state.

A model is a parameter dict and an apply function; optimizers and schedules are functions that compose; training is a
fold over batches with callbacks that return new state or a stop signal; and every step can be traced and compiled.
"""

from functrain import (
    callbacks,
    data,
    engine,
    errors,
    initializers,
    losses,
    metrics,
    nn,
    optim,
    random,
    schedule,
    train,
    tree,
)
from functrain.engine import Stop, fold, grad, value_and_grad, vmap
from functrain.train import (
    Callback,
    Learner,
    Result,
    Run,
    Step,
    TrainState,
    eval_step,
    evaluate,
    fit,
    hyperparameters,
    init,
    overfit_batch,
    plan,
    progress,
    train_step,
)

__version__ = "0.1.0"

__all__ = [
    "Callback",
    "Learner",
    "Result",
    "Run",
    "Step",
    "Stop",
    "TrainState",
    "callbacks",
    "data",
    "engine",
    "errors",
    "eval_step",
    "evaluate",
    "fit",
    "fold",
    "grad",
    "hyperparameters",
    "init",
    "initializers",
    "losses",
    "metrics",
    "nn",
    "optim",
    "overfit_batch",
    "plan",
    "progress",
    "random",
    "schedule",
    "train",
    "train_step",
    "tree",
    "value_and_grad",
    "vmap",
]
