"""What is tried before training begins, so that data that does not fit is found while nothing is half done."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain import data, foreign, losses, random, tree
from functrain.engine.tracing.to_graph import trace
from functrain.errors import DeviceMismatch, DuplicateName, InvalidArgument, NotATensor, ShapeMismatch
from functrain.optim import Transform
from functrain.schedule import Progress
from functrain.train.checking.padding import take_rows
from functrain.train.events import STEP_EVENTS, Callback
from functrain.train.learner import Learner, metrics_of, schedules
from functrain.train.looping.compiling import keep
from functrain.train.looping.sources import Source
from functrain.train.run import Run
from functrain.train.state import TrainState
from functrain.train.stepping.applying import apply_model
from functrain.train.stepping.record import begin
from functrain.train.stepping.step import forward
from functrain.train.tally import check_name


def check_state(state: Any) -> TrainState:
    """Return the state, and raise `InvalidArgument` when it is none."""
    if not isinstance(state, TrainState):
        raise InvalidArgument(
            f"state must be a TrainState, as ft.init returns it, or a Run to go on with, got {foreign.in_words(state)}"
        )
    return state


def check_device(device: Any) -> torch.device | None:
    """Return the device of a name, and raise `InvalidArgument` when there is none here; None stays None.

    >>> check_device("cpu")
    device(type='cpu')
    """
    if device is None:
        return None
    try:
        if not isinstance(device, (str, torch.device)):
            raise TypeError("it is no name of a device")
        return torch.empty(0, device=device).device
    except Exception as raw:  # each kind of device refuses in a way of its own
        raise InvalidArgument(
            f"device must be the name of a device that this machine has, such as 'cpu' or 'cuda', or a torch.device; "
            f"got {device!r} ({str(raw).splitlines()[0]:.200})"
        ) from raw


def check_optimizer(learner: Learner, state: TrainState) -> None:
    """Raise `TreeMismatch` when the state is that of another optimizer."""
    like = "what learner.optimizer.init(state.params) returns, with which this optimizer can go on"
    kinds = tuple((path, leaf.shape, leaf.dtype, leaf.device) for path, leaf in tree.leaves_with_path(state.params))
    fresh = keep(learner, ("optimizer", kinds), lambda: _without_values(learner.optimizer, state.params))
    fresh = learner.optimizer.init(state.params) if fresh is None else fresh[0]
    tree.check_same(fresh, state.opt_state, "state.opt_state", like)


def _without_values(optimizer: Transform, params: Any) -> tuple[Any] | None:
    """Return the optimizer's first state with tensors that have no memory, or None if it cannot be had so."""
    leaves, structure = tree.flatten(params)
    made = []

    def init(*tensors: Tensor) -> list[Any]:
        made.append(optimizer.init(tree.unflatten(structure, tensors)))
        return tree.leaves(made)

    try:
        trace(init, leaves)
    except Exception:  # it looks at values; what else is wrong is raised again
        return None
    return (tree.map(_bare, made[0]),)


def _bare(leaf: Any) -> Any:
    return torch.empty(leaf.shape, dtype=leaf.dtype, device="meta") if isinstance(leaf, Tensor) else leaf


def check_source(learner: Learner, state: TrainState, source: Source, callbacks: tuple[Callback, ...] = ()) -> None:
    """Raise unless the first batch of a source goes through the model, the loss and the metrics.

    Of a source that cannot be begun twice, nothing is tried. Of arrays, the rows with the smallest and the largest
    integers are tried too, so that a label or an index out of range is found before it is met in the middle of an
    epoch; and a last batch of one row, which a batch norm refuses, is tried in training mode.

    Where a handler may make something else of the batches before the loss sees them, what fails here may be right, and
    the step tells.
    """
    with _noting(f"the first batch of {source.name}"):
        first = _first_batch(source)
    if first is None:
        return
    try:
        _try(learner, state, source, first)
    except Exception:
        if not _may_be_replaced(source, callbacks):
            raise


def _try(learner: Learner, state: TrainState, source: Source, first: data.Batch) -> None:
    train = source.name == "train"
    check_batch(learner, state, first, f"the first batch of {source.name}", train)
    extremes = _extreme_rows(source)
    if extremes is not None:
        check_batch(learner, state, extremes, f"the smallest and largest labels or indices of {source.name}")
    if train and _ends_with_one_row(source):
        with _noting(f"a last batch of one row of {source.name}; remainder='drop' leaves it out"), torch.no_grad():
            row = take_rows(first, torch.tensor([0]))
            forward(apply_model(learner.model))(begin(learner, state, row, "train"))


def _may_be_replaced(source: Source, callbacks: tuple[Callback, ...]) -> bool:
    kind = "train" if source.name == "train" else "valid"
    before_the_loss = ("begin_batch", "begin_step", "after_pred")
    return any(kind in callback.phases and callback.handles(*before_the_loss) for callback in callbacks)


def _first_batch(source: Source) -> data.Batch | None:
    if source.is_loader:
        batch = data.one_batch(source.batches, random.key(0))
    elif isinstance(source.batches, (list, tuple)):
        batch = data.as_batch(source.batches[0])
    else:
        return None
    return tree.clone(batch if source.device is None else tree.to(batch, source.device))  # for who writes to it


def _ends_with_one_row(source: Source) -> bool:
    if not source.is_loader:
        return False
    n, sampler = len(source.batches.dataset), source.batches.sampler
    return sampler.remainder == "keep" and n > sampler.batch_size and n % sampler.batch_size == 1


class _noting:
    """Say in a note to what is raised inside what was being tried."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: Any, error: BaseException | None, _at: Any) -> None:
        if isinstance(error, Exception):
            error.add_note(f"while trying {self._what}, before training")


def check_batch(learner: Learner, state: TrainState, batch: data.Batch, what: str, train: bool = False) -> None:
    """Raise unless a batch is on the device of the parameters and goes through the model, the loss and the metrics.

    To train, the loss must depend on the parameters as well. The model is run once.
    """
    device = state.step.device
    for path, leaf in tree.leaves_with_path(batch):
        if isinstance(leaf, Tensor) and leaf.device != device:
            raise DeviceMismatch(
                f"{what}: {path} is on {leaf.device} and the state on {device}; move one with tree.to(..., device), or "
                "pass device= to fit"
            )
    with _noting(what), torch.set_grad_enabled(train):
        _check(learner, state, batch, train)


def _check(learner: Learner, state: TrainState, batch: data.Batch, train: bool) -> None:
    if train:
        state = tree.evolve(state, params=tree.map(_variable, state.params))
    step = forward(apply_model(learner.model))(begin(learner, state, batch, "valid"))
    prediction, target = step.prediction, step.batch.target
    result = learner.loss(prediction, target)
    rows = data.first_tensor(batch.input).shape[0]
    values = result if isinstance(result, Tensor) else losses.by_name(result)["loss"]
    _check_values(values, rows)
    _check_parts(learner, result)
    if train and tree.leaves(state.params) and not values.requires_grad:
        raise InvalidArgument(
            "the loss does not depend on the parameters, so that training would change nothing: a function on the way "
            "has no gradient (argmax, round, a comparison), or the prediction was detached"
        )
    prediction, values = tree.map(_detach, prediction), values.detach()
    _check_per_example("the loss", learner.loss, prediction, target, rows)
    for name, metric in metrics_of(learner, "valid").items():
        _check_per_example(f"metric {name!r}", metric.measure, prediction, target, rows)
    measured = {name: m.measure(prediction, target) for name, m in metrics_of(learner, "valid").items()}
    added = step.metric.add(step.metric.init(state.step.device), {"loss": values, **measured}, batch.weight)
    _check_logs(step.metric.compute(added))


def _check_parts(learner: Learner, result: Any) -> None:
    scheduled = schedules(learner, Progress())
    for name in () if isinstance(result, Tensor) else losses.by_name(result):
        check_name(name, "the parts of the loss", scheduled)
        if name in metrics_of(learner, "valid"):
            raise DuplicateName(f"the loss has a part {name!r}, and so is a metric called; rename one of them")


def _variable(leaf: Tensor) -> Tensor:
    return leaf.detach().requires_grad_() if leaf.is_floating_point() or leaf.is_complex() else leaf


def _detach(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _check_values(values: Any, rows: int) -> None:
    if not isinstance(values, Tensor):
        raise NotATensor(f"the loss must return a tensor with one value per target, got {type(values).__name__}")
    if values.dim() == 0 or values.shape[0] != rows:
        raise ShapeMismatch(
            f"the loss must return one value per target, the first axis of length {rows}; got shape "
            f"{tuple(values.shape)}. The step takes the mean, weighted by the batch"
        )


def _check_per_example(what: str, f: Callable[[Any, Any], Any], prediction: Any, target: Any, rows: int) -> None:
    """Raise when the values of an example have another shape where there are fewer examples.

    So it is when (n, 1) is broadcast against (n,): the result is (n, n), and training goes wrong without a word.
    """
    parts = (prediction, target)
    if rows == 1 or not all(isinstance(leaf, Tensor) and leaf.shape[:1] == (rows,) for leaf in tree.leaves(parts)):
        return
    with torch.no_grad():
        whole, fewer = f(*parts), f(*tree.map(lambda leaf: leaf[1:], parts))
    for a, b in zip(tree.leaves(whole), tree.leaves(fewer), strict=False):
        if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape[1:] != b.shape[1:]:
            raise ShapeMismatch(
                f"{what} must measure each example by itself: of {rows} examples it gave shape {tuple(a.shape)}, of "
                f"{rows - 1} {tuple(b.shape)}. Prediction and target are broadcast against each other: "
                f"{_shapes(prediction)} and {_shapes(target)}; reshape one, for example with squeeze(-1)"
            )


def _shapes(value: Any) -> str:
    return ", ".join(str(tuple(leaf.shape)) for leaf in tree.leaves(value))


def _check_logs(logs: dict[str, Any]) -> None:
    for name, value in logs.items():
        if not isinstance(value, Tensor) or value.dim() > 0:
            raise NotATensor(
                f"metrics[{name!r}] must compute a scalar tensor, got {tree.describe(value)}; give the learner each "
                "number as a metric of its own"
            )


def _extreme_rows(source: Source) -> data.Batch | None:
    """Return the rows of arrays with the smallest and the largest integers of input and target."""
    dataset = source.batches.dataset if source.is_loader else None
    if not isinstance(dataset, data.ArrayDataset) or source.batches.transform is not None:
        return None
    integers = [
        leaf
        for leaf in tree.leaves(dataset.arrays)
        if isinstance(leaf, Tensor)
        and not (leaf.is_floating_point() or leaf.is_complex() or leaf.is_sparse)
        and leaf.dtype not in (torch.bool, torch.uint8)
        and leaf.numel() > 0
    ]
    if not integers:
        return None
    flat = [leaf.reshape(len(leaf), -1) for leaf in integers]
    rows = torch.stack([row for leaf in flat for row in (leaf.amin(1).argmin(), leaf.amax(1).argmax())])
    try:
        return data.as_batch(dataset[rows])
    except Exception:  # a collate function makes something else of them
        return None


def warn_if_nothing_was_trained(run: Run, callbacks: tuple[Callback, ...]) -> None:
    """Warn when a finished run made no update of the parameters, and no handler can have wanted that."""
    skipping = (*STEP_EVENTS, "begin_batch", "begin_epoch", "begin_fit")
    if run.stopped is not None or any(callback.handles(*skipping) for callback in callbacks):
        return
    if int(run.state.updates) == 0:
        warnings.warn(
            f"no update of the parameters was made in {int(run.state.step - run.state.start)} batches: the optimizer "
            "accumulates more batches than there are, or the batches have no weight",
            stacklevel=3,
        )
