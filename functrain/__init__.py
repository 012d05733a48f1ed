"""functrain trains PyTorch models as pure functions over immutable state.

A model is a parameter dict and an apply function; optimizers and schedules are functions that compose; training is a
fold over batches with callbacks that return new state or a stop signal; and every step can be traced and compiled.
"""

from importlib.metadata import PackageNotFoundError, version

from functrain import (
    callbacks,
    checkpoint,
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
    time_travel,
    train,
    tree,
)
from functrain.checkpoint import load, save
from functrain.engine import (
    ShapeDtype,
    Stop,
    check,
    cond,
    custom_gradient,
    eval_shape,
    fold,
    grad,
    hessian,
    hvp,
    jacfwd,
    jacrev,
    jit,
    jvp,
    remat,
    scan,
    stop_gradient,
    value_and_grad,
    vjp,
    vmap,
    while_loop,
)
from functrain.train import (
    Callback,
    Learner,
    Measured,
    Run,
    Step,
    TrainState,
    batch_at,
    eval_step,
    evaluate,
    fit,
    hyperparameters,
    init,
    log,
    loop,
    overfit_batch,
    plan,
    predict,
    progress_of,
    train_step,
)

__all__ = [
    "Callback",
    "Learner",
    "Measured",
    "Run",
    "ShapeDtype",
    "Step",
    "Stop",
    "TrainState",
    "batch_at",
    "callbacks",
    "check",
    "checkpoint",
    "cond",
    "custom_gradient",
    "data",
    "engine",
    "errors",
    "eval_shape",
    "eval_step",
    "evaluate",
    "fit",
    "fold",
    "grad",
    "hessian",
    "hvp",
    "hyperparameters",
    "init",
    "initializers",
    "jacfwd",
    "jacrev",
    "jit",
    "jvp",
    "load",
    "log",
    "loop",
    "losses",
    "metrics",
    "nn",
    "optim",
    "overfit_batch",
    "plan",
    "predict",
    "progress_of",
    "random",
    "remat",
    "save",
    "scan",
    "schedule",
    "stop_gradient",
    "time_travel",
    "train",
    "train_step",
    "tree",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]


def _version() -> str:
    try:
        return version("functrain")
    except PackageNotFoundError:  # used from its sources, not installed
        return "unknown"


__version__: str = _version()


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
