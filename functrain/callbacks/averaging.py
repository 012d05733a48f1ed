"""Means of the weights over training, of parameters and buffers alike.

They stand in a callback and not around the optimizer, because an optimizer sees the parameters alone: the running
statistics of batch norm, which must fit the averaged parameters, are the training state's.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain import arguments, optim, schedule, tree
from functrain.errors import InvalidArgument
from functrain.schedule import Hyper
from functrain.schedule.hyper import is_number
from functrain.train.events import Callback, remember
from functrain.train.run import Run
from functrain.train.state import TrainState
from functrain.train.stepping.record import Step


@tree.node
class Averaged:
    """The memory of `ema` and `swa`.

    Attributes:
        params: the mean of the parameters, in float32 at least.
        buffers: the mean of the buffers; of whole numbers and flags the last ones.
        count: how many states went into the mean, an int64 scalar.
    """

    params: Any
    buffers: Any
    count: Tensor


def ema(decay: Hyper = 0.999, name: str = "ema") -> Callback:
    """Return a callback that keeps an exponential moving average of parameters and buffers.

    After each update of the parameters p: mean = decay * mean + (1 - decay) * p. It begins as what the fit begins with.
    A batch that makes no update changes nothing. `run.memory[name]` is an `Averaged`; `apply_average` applies it.

    Args:
        decay: in [0, 1], a number or a schedule; read at the beginning of the step.
        name: the name of the callback.

    Raises:
        InvalidArgument: decay is out of range.

    Reference: Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992.

    See also: `swa`, the mean with equal weights.

    >>> ema(0.99).name
    'ema'
    """
    schedule.check_hyper("decay", decay, minimum=0, maximum=1)

    def part(step: Step, count: Tensor) -> Any:
        return 1 - schedule.value(decay, step.progress), True

    return _averaging(name, part, 1)


def swa(start: float = 0.75, every: int = 1, name: str = "swa") -> Callback:
    """Return a callback that keeps the mean of parameters and buffers over the last part of training.

    All states count alike. Before the first one the mean is what the fit begins with. `run.memory[name]` is an
    `Averaged`; `apply_average` puts it into a state. The mean of batch norm's statistics is what
    `torch.optim.swa_utils.AveragedModel(use_buffers=True)` keeps.

    Args:
        start: the position, in [0, 1), from which on states count.
        every: how many updates there are between two that count, at least 1; the count of updates is a multiple of it.
        name: the name of the callback.

    Raises:
        InvalidArgument: start is outside [0, 1), or every is no whole number of at least 1.

    Reference: Izmailov et al., Averaging weights leads to wider optima and better generalization, UAI 2018.

    >>> swa(start=0.5).memory
    ()
    """
    if not is_number(start) or not 0 <= start < 1:
        raise InvalidArgument(f"start must be a position in [0, 1), got {start!r}")
    arguments.whole("every", every)

    def part(step: Step, count: Tensor) -> Any:
        counts = (step.progress.position >= start - 1e-10) & (step.state.updates % every == 0)
        return 1 / (count + 1).double(), counts

    return _averaging(name, part, 0)


def apply_average(state: TrainState, mean: Averaged) -> TrainState:
    """Return a training state with the averaged parameters and buffers, each in its own dtype, for evaluation.

    Args:
        state: the state.
        mean: the memory of `ema` or `swa`.

    >>> from functrain import losses, nn, optim, random
    >>> from functrain.train import Learner, init
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> state = init(learner, random.key(0), (torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64)))
    >>> mean = Averaged(tree.zeros_like(state.params), state.buffers, torch.tensor(1))
    >>> apply_average(state, mean).params["bias"]
    tensor([0., 0.])
    """

    def like(old: Tensor, new: Tensor) -> Tensor:
        return new.to(old.dtype)

    return tree.evolve(
        state, params=tree.map(like, state.params, mean.params), buffers=tree.map(like, state.buffers, mean.buffers)
    )


def validate_averages(name: str = "validate_averages") -> Callback:
    """Return a callback that validates with the parameters that the optimizer says are to be evaluated.

    They are `optim.evaluation_params`: the mean of `optim.schedule_free`, or the slow parameters of `optim.lookahead`.
    The training goes on with its own. Outside of a fit, evaluate the state of `with_averages`.

    Args:
        name: the name of the callback.

    Raises:
        InvalidArgument: in `fit`, the optimizer has none.

    See also: `with_averages`.

    >>> validate_averages().phases
    ('valid',)
    """

    def begin_step(step: Step) -> Step:
        return tree.evolve(step, state=with_averages(step.state))

    # A validation gives no state back, so that the next batch, and the training, see what was trained.
    return Callback(name, {"begin_step": begin_step}, phases=("valid",))


def with_averages(state: TrainState) -> TrainState:
    """Return a training state whose parameters are those to be evaluated, see `optim.evaluation_params`; not to train.

    Args:
        state: the state.

    Raises:
        InvalidArgument: its optimizer has none.

    >>> from functrain import losses, nn, optim, random
    >>> from functrain.train import Learner, init
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.schedule_free_sgd(lr=0.1))
    >>> state = init(learner, random.key(0), (torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64)))
    >>> with_averages(state).params["bias"]
    tensor([0., 0.])
    """
    return tree.evolve(state, params=optim.evaluation_params(state.opt_state, state.params))


def _averaging(name: str, part: Callable[[Step, Tensor], Any], count: int) -> Callback:
    def begin_fit(run: Run) -> Run | None:
        if isinstance(run.memory[name], Averaged):  # a run that goes on
            return None
        params, buffers = tree.map(_wide, run.state.params), tree.map(_wide, run.state.buffers)
        return remember(run, name, Averaged(params, buffers, torch.full_like(run.state.updates, count)))

    def after_step(step: Step) -> Step:
        mean, state = step.memory[name], step.state
        share, counts = part(step, mean.count)
        counts = (state.updates != step.begun[0].updates) & counts

        def toward(old: Tensor, new: Tensor) -> Tensor:
            if not (new.is_floating_point() or new.is_complex()):
                return torch.where(counts, new, old)
            new = new.to(old.dtype)
            return torch.where(counts, old + (new - old) * torch.as_tensor(share).to(old.real.dtype), old)

        params, buffers = tree.map(toward, mean.params, state.params), tree.map(toward, mean.buffers, state.buffers)
        after = Averaged(params, buffers, mean.count + counts)
        return tree.evolve(step, memory={**step.memory, name: after})

    return Callback(name, {"begin_fit": begin_fit, "after_step": after_step}, records=(Averaged,))


def _wide(leaf: Tensor) -> Tensor:
    exact = leaf.is_floating_point() or leaf.is_complex()
    return leaf.to(torch.promote_types(leaf.dtype, torch.float32) if exact else leaf.dtype, copy=True)
