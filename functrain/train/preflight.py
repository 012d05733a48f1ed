"""What is tried before training begins, so that data that does not fit is found while nothing is half done."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain import data, random, tree
from functrain.engine.tracing.to_graph import trace
from functrain.errors import DeviceMismatch, InvalidArgument, NotATensor, ShapeMismatch
from functrain.optim import Transform
from functrain.train.learner import Learner
from functrain.train.state import TrainState
from functrain.train.step import eval_step


def check_fits(learner: Learner, state: TrainState, train: data.Loader, valid: data.Loader | None = None) -> None:
    """Raise unless the first batch of each loader goes through the model, the loss and the metrics.

    Of arrays with integer targets, the rows with the smallest and the largest target are tried too, so that a label
    out of range is found before it is met in the middle of an epoch.
    """
    if not isinstance(state, TrainState):
        raise InvalidArgument(f"state must be a TrainState, as ft.init returns it, got {type(state).__name__}")
    for name, loader in (("train", train), ("valid", valid)):
        if loader is None:
            continue
        if not isinstance(loader, data.Loader):
            raise InvalidArgument(
                f"{name} must be a Loader, got {type(loader).__name__}; data.loader(dataset, sampler) makes one"
            )
        check_batch(learner, state, data.one_batch(loader, random.key(0)), f"the first batch of {name}")
        extremes = _extreme_labels(loader.dataset)
        if extremes is not None:
            check_batch(learner, state, data.as_batch(extremes), f"the smallest and largest labels of {name}")


def check_optimizer(learner: Learner, state: TrainState) -> None:
    """Raise `TreeMismatch` when the state is that of another optimizer."""
    like = "what learner.optimizer.init(state.params) returns, with which this optimizer can go on"
    tree.check_same(_fresh(learner.optimizer, state.params), state.opt_state, "state.opt_state", like)


def _fresh(optimizer: Transform, params: Any) -> Any:
    """Return the optimizer's first state, or if it can be had without memory, one without values."""
    leaves, structure = tree.flatten(params)
    found = []

    def init(*given: Tensor) -> list[Any]:
        found.append(optimizer.init(tree.unflatten(structure, given)))
        return tree.leaves(found)

    try:
        trace(init, leaves)
    except Exception:  # it looks at values; what else is wrong is raised again
        return optimizer.init(params)
    return found[0]


def check_batch(learner: Learner, state: TrainState, batch: data.Batch, what: str) -> None:
    """Raise unless a batch is on the device of the parameters and goes through the model, the loss and the metrics."""
    device = state.step.device
    for path, leaf in tree.leaves_with_path(batch):
        if isinstance(leaf, Tensor) and leaf.device != device:
            raise DeviceMismatch(
                f"{what}: {path} is on {leaf.device} and the state on {device}; move one with tree.to(..., device)"
            )
    try:
        with torch.no_grad():
            _check_loss(learner, state, batch)
            _check_logs(eval_step(learner)(state, batch))
    except Exception as error:
        error.add_note(f"while trying {what}, before training")
        raise


def _check_loss(learner: Learner, state: TrainState, batch: data.Batch) -> None:
    prediction, _ = learner.model.apply(state.params, state.buffers, batch.input)
    values = learner.loss(prediction, batch.target)
    rows = tree.leaves(batch.input)[0].shape[0]
    if not isinstance(values, Tensor):
        raise NotATensor(f"the loss must return a tensor with one value per target, got {type(values).__name__}")
    if values.dim() == 0 or values.shape[0] != rows:
        raise ShapeMismatch(
            f"the loss must return one value per target, the first axis of length {rows}; got shape "
            f"{tuple(values.shape)}. The step takes the mean, weighted by the batch"
        )
    _check_per_example("the loss", learner.loss, prediction, batch.target, rows)
    for name, metric in learner.metrics.items():
        _check_per_example(f"metric {name!r}", metric.measure, prediction, batch.target, rows)


def _check_per_example(what: str, f: Callable[[Any, Any], Any], prediction: Any, target: Any, rows: int) -> None:
    """Raise when the values of an example have another shape where there are fewer examples.

    So it is when (n, 1) is broadcast against (n,): the result is (n, n), and training goes wrong without a word.
    """
    parts = (prediction, target)
    if rows == 1 or not all(isinstance(leaf, Tensor) and leaf.shape[:1] == (rows,) for leaf in tree.leaves(parts)):
        return
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


def _extreme_labels(dataset: Any) -> Any:
    if not isinstance(dataset, data.ArrayDataset):
        return None
    arrays = dataset.arrays
    if not (isinstance(arrays, tuple) and len(arrays) == 2 and isinstance(arrays[1], Tensor)):
        return None
    target = arrays[1]
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool or target.numel() == 0:
        return None
    flat = target.reshape(len(target), -1)
    rows = torch.stack([flat.amin(1).argmin(), flat.amax(1).argmax()])
    return dataset[rows]
