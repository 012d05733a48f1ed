"""The training state: everything that changes while training goes on, as one immutable tree of tensors."""

from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import arguments, random, tree
from functrain.data import as_batch
from functrain.dispatch_state import is_plain
from functrain.records import reprs
from functrain.schedule import Progress
from functrain.train.learner import Learner, check_learner


@tree.node
class TrainState:
    """All that training changes, and all that resuming needs; every leaf is a tensor.

    Attributes:
        params: the model's parameters, nested dicts.
        buffers: the model's other state, such as the running statistics of batch norm.
        opt_state: the optimizer's state.
        key: the root random key; the key of a step is `fold_in(key, step)`.
        step: batches done since `init`; never set back, so no step's key comes twice. An int64 scalar, as all below.
        updates: updates of the parameters that this run made; a batch that is skipped, that only accumulates, or that
            has no weight counts in `step` alone.
        start: the step at which this run began.
        end: the step at which this run is planned to end; `start` when nothing is planned.
        epoch_length: the batches of an epoch of this run; 0 when nothing is planned.
    """

    params: dict[str, Any]
    buffers: dict[str, Any]
    opt_state: Any
    key: Tensor
    step: Tensor
    updates: Tensor
    start: Tensor
    end: Tensor
    epoch_length: Tensor

    def __repr__(self) -> str:
        """Return its counts, and a table of its tensors by dotted path."""
        return f"{_counts(self)}\n{tree.table(_tensors_of(self))}"

    def _repr_html_(self) -> str:
        return f"<p>{_counts(self)}</p>{tree.table(_tensors_of(self))._repr_html_()}"


_COUNTS = "step", "updates", "start", "end", "epoch_length"


def _counts(state: TrainState) -> str:
    counts = {name: getattr(state, name) for name in _COUNTS}
    words = [f"{name}={int(count) if _is_at_hand(count) else reprs.short(count)}" for name, count in counts.items()]
    return f"TrainState({', '.join(words)})"


def _is_at_hand(count: Any) -> bool:
    # Elsewhere the number would have to be waited for; inside a trace there is none.
    return type(count) is Tensor and count.dim() == 0 and count.device.type == "cpu" and is_plain()


def _tensors_of(state: TrainState) -> dict[str, Any]:
    return {name: value for name, value in vars(state).items() if name not in _COUNTS}


def init(learner: Learner, key: Tensor, example: Any) -> TrainState:
    """Return the state before the first step.

    Args:
        learner: what to train.
        key: a random key; it decides the initial parameters and every later draw.
        example: a batch of at least one row, such as `train[:1]`; its shapes and device become the model's.

    >>> from functrain import data, losses, nn, optim
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> state = init(learner, random.key(0), (torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64)))
    >>> state.params["weight"].shape
    torch.Size([2, 3])
    """
    check_learner(learner)
    batch = as_batch(example)
    random.check_key(key)
    for_params, root = random.split(key, 2)
    # An nn.Parameter, or a tensor with an autograd history, would make each step a part of that history.
    params, buffers = tree.map(_plain, learner.model.init(for_params, batch.input))
    device = _device(batch.input)
    zero = torch.zeros((), dtype=torch.int64, device=device)
    return TrainState(
        params=params,
        buffers=buffers,
        opt_state=learner.optimizer.init(params),
        key=root.to(device),
        # One tensor each, so that the buffers of a state can be reused (donated) separately.
        **{name: zero.clone() for name in ("step", "updates", "start", "end", "epoch_length")},
    )


def _plain(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) and leaf.requires_grad else leaf


def _device(inputs: Any) -> torch.device:
    return next((leaf.device for leaf in tree.leaves(inputs) if isinstance(leaf, Tensor)), torch.device("cpu"))


def data_key(state: TrainState) -> Tensor:
    """Return the random key from which `fit` and `evaluate` derive the order and the draws of their loaders.

    >>> zero = torch.tensor(0)
    >>> data_key(TrainState({}, {}, (), random.key(0), zero, zero, zero, zero, zero)).shape
    torch.Size([2])
    """
    return random.fold_in(state.key.cpu(), "data", int(state.start))


def progress_of(state: TrainState) -> Progress:
    """Return how far the planned run is: its position, updates and (float) epoch.

    The position is (step - start) / (end - start), the epoch (step - start) / epoch_length; both are 0 while nothing
    is planned, and stay what they are at the end. The numbers are plain ones on the CPU, and float64 tensors elsewhere
    and while traced, so that nothing waits for a device.

    >>> zero = torch.tensor(0)
    >>> state = TrainState({}, {}, (), random.key(0), zero + 5, zero + 5, zero, zero + 10, zero + 5)
    >>> progress_of(state)
    Progress(position=0.5, updates=5, epoch=1.0)
    """
    if is_plain() and state.step.device.type == "cpu" and state.step.dim() == 0:
        planned, length = int(state.end) - int(state.start), int(state.epoch_length)
        done = min(int(state.step) - int(state.start), planned)
        return Progress(done / planned if planned else 0.0, int(state.updates), done / length if length else 0.0)
    planned, length = state.end - state.start, state.epoch_length
    done = torch.minimum(state.step - state.start, planned).double()  # 0 where nothing is planned
    return Progress(done / planned.clamp(min=1), state.updates, done / length.clamp(min=1))


def plan(state: TrainState, steps: int, epochs: int = 1) -> TrainState:
    """Return the state with a run planned from where it stands: `epochs` times `steps` batches.

    A `fit` of a state begins with this; plan when you step by hand and want schedules to know their position.

    >>> from functrain import losses, nn, optim
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> state = init(learner, random.key(0), (torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64)))
    >>> int(plan(state, steps=10, epochs=3).end)
    30
    """
    for name, number in (("steps", steps), ("epochs", epochs)):
        arguments.whole(name, number)
    return attrs.evolve(
        state,
        updates=torch.zeros_like(state.updates),
        start=state.step.clone(),
        end=state.step + steps * epochs,
        epoch_length=torch.full_like(state.epoch_length, steps),
    )
