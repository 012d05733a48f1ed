"""L-BFGS as an optimizer."""

from functrain import arguments
from functrain.optim.chaining import alias
from functrain.optim.primitives import scale_by_learning_rate
from functrain.optim.quasi_newton.curvature import scale_by_lbfgs
from functrain.optim.quasi_newton.line_search import strong_wolfe
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def lbfgs(
    lr: Hyper = 1.0,
    history_size: int = 10,
    line_search: str | None = "strong_wolfe",
    max_steps: int = 25,
    c1: float = 1e-4,
    c2: float = 0.9,
    tolerance: float = 1e-9,
) -> Transform:
    """Return L-BFGS, one iteration an update: equal to torch.optim.LBFGS(max_iter=1) on the same batch again and again.

    See `scale_by_lbfgs` and `strong_wolfe` for the maths and its sources. Keeps 2 history_size + 2 numbers for each
    parameter. It is for all examples as one batch.

    Args:
        lr: the first step length that is tried, or without a line search, the step length; at least 0.
        history_size: how many steps to remember.
        line_search: "strong_wolfe", or None for none.
        max_steps: how many more step lengths are tried at most.
        c1: in (0, c2), how much lower the loss must be.
        c2: in (c1, 1), how flat the loss must be.
        tolerance: how small a bracket, or a slope, ends a search.

    Raises:
        InvalidArgument: a number is out of range, or the line search is another.

    >>> lbfgs()
    lbfgs(lr=1.0)
    """
    arguments.one_of("line_search", line_search, ("strong_wolfe", None))
    direction = scale_by_lbfgs(history_size)
    if line_search is None:
        return alias("lbfgs", direction, scale_by_learning_rate(lr))
    return alias("lbfgs", strong_wolfe(direction, lr, max_steps, c1, c2, tolerance))
