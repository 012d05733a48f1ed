"""The other differentiated stage: the gradient of each example by itself, for optimizers that need those."""

from collections.abc import Callable
from typing import Any, NoReturn

import attrs
import torch
from torch import Tensor

from functrain import losses, nn, optim, tree, weighted
from functrain.data import Batch, first_tensor
from functrain.dispatch_state import is_batched_here
from functrain.engine import vmap
from functrain.engine.transforms.gradients import differentiate
from functrain.errors import InvalidArgument, ShapeMismatch
from functrain.train.stepping.applying import mode_of
from functrain.train.stepping.gradients import Stage, compare, unscale, with_parts

Loss = Callable[[Any, Any], Any]


def differentiate_examples(model: nn.Model, loss: Loss, inside: Stage | None, scaled: bool = False) -> Stage:
    """Return the stage that takes the gradient of each example, and the mean of these as the gradient of the batch.

    Each example goes through the model as a batch of one row, with draws of its own; what is predicted, measured and
    logged is of that. `Examples.grads` are times the weights, so that a row of zero weight has a gradient of zero.

    Args:
        model: the model, whose buffers training does not change.
        loss: (prediction, target) -> one value per example or element.
        inside: the handlers of `after_pred` and `after_loss`; there must be none.
        scaled: as in `differentiate_loss`.

    Raises:
        InvalidArgument: there are such handlers. In a step, the model changes its buffers.
        ShapeMismatch: in a step, the model predicts something else than a row for a row.
    """
    if inside is not None:
        raise InvalidArgument(
            "the optimizer needs the gradient of each example, which goes through the model by itself, so that there "
            "is no batch between forward and loss for handlers of after_pred and after_loss; use begin_step, "
            "after_grads or after_step, or another optimizer"
        )

    def stage(step: Any) -> Any:
        scale = step.loss_scale if scaled else None
        batch, params = step.batch, step.state.params
        rows = _Rows(batch)

        def graded(tensors: list[Tensor], index: Tensor) -> Any:
            one = rows.row(tensors)
            (_, (prediction, result, buffers)), grads = differentiate(
                lambda params: of_row(step, params, one, index, scale), (params,), has_aux=True
            )
            _check_shared(buffers)
            return (prediction, result, grads), buffers

        index = torch.arange(rows.count, device=rows.device)
        try:
            (prediction, result, grads), buffers = vmap(graded, out_dims=(0, None))(rows.tensors, index)
        except (RuntimeError, ShapeMismatch) as raw:  # a batch norm says something else of one row
            _check_kept(step.state.buffers, _apply(model, step, params, batch, mode_of(step))[1], raw)
            raise
        prediction, result = tree.map(_merge, (prediction, result))
        compared = compare(result, batch.weight)
        logged = with_parts(step, compared["parts"])
        examples = _examples(unscale(grads, scale), compared["losses"], batch.weight)
        return tree.evolve(
            step,
            prediction=prediction,
            buffers=buffers,
            losses=compared["losses"],
            logged=logged,
            grads=examples.mean,
            examples=examples,
        )

    def of_row(step: Any, params: Any, row: Batch, index: Tensor, scale: Tensor | None) -> tuple[Tensor, Any]:
        mode = mode_of(step)
        mode = attrs.evolve(mode, weight=None, path=(*mode.path, "example", index))
        prediction, buffers = _apply(model, step, params, row, mode)
        result = loss(prediction, row.target)
        for one in tree.leaves((prediction, result)):
            _check_row(one)
        values = losses.by_name(result)["loss"]
        value = weighted.total(values, row.weight)[0] / values.numel()
        return value if scale is None else value * scale, (prediction, result, buffers)

    return stage


def _apply(model: nn.Model, step: Any, params: Any, batch: Batch, mode: nn.Mode) -> tuple[Any, Any]:
    return model.apply(params, step.state.buffers, batch.input, mode)


class _Rows:
    """The tensors of a batch that have a row for each example, and how to make a batch of one row of theirs."""

    def __init__(self, batch: Batch) -> None:
        self._leaves, self._structure = tree.flatten(batch)
        self.count = first_tensor(batch.input).shape[0]
        self._mapped = [isinstance(leaf, Tensor) and leaf.shape[:1] == (self.count,) for leaf in self._leaves]
        self.tensors = [leaf for leaf, mapped in zip(self._leaves, self._mapped, strict=True) if mapped]
        self.device = self.tensors[0].device

    def row(self, tensors: list[Tensor]) -> Batch:
        waiting = iter(tensors)
        leaves = [
            next(waiting)[None] if mapped else leaf for leaf, mapped in zip(self._leaves, self._mapped, strict=True)
        ]
        return tree.unflatten(self._structure, leaves)


def _check_row(leaf: Any) -> None:
    if not isinstance(leaf, Tensor) or leaf.shape[:1] != (1,):
        raise ShapeMismatch(
            "the optimizer needs the gradient of each example, for which model and loss must make one row of one row, "
            f"and they made {tree.describe(leaf)}"
        )


def _merge(leaf: Tensor) -> Tensor:
    return leaf.flatten(0, 1)


def _check_shared(buffers: Any) -> None:
    for path, leaf in tree.leaves_with_path(buffers):
        if is_batched_here(leaf):
            _refuse(path)


def _check_kept(before: Any, after: Any, raw: Exception) -> None:
    kept = dict(tree.leaves_with_path(before))
    for path, leaf in tree.leaves_with_path(after):
        if kept.get(path) is not leaf:
            _refuse(path, raw)


def _refuse(path: str, raw: Exception | None = None) -> NoReturn:
    raise InvalidArgument(
        f"the optimizer needs the gradient of each example, and the model makes new values of its buffers ({path}) of "
        "all rows of a batch, as batch norm does, so that no example has a gradient of its own; use layer_norm or a "
        "group norm, or another optimizer"
    ) from raw


def _examples(grads: Any, values: Tensor, weight: Tensor | None) -> optim.Examples:
    of_a_row = values[0].numel() if values.shape[0] else 1
    count = torch.as_tensor(losses.mass(values, weight) / max(of_a_row, 1), device=values.device).float()
    some = torch.where(count > 0, count, 1.0)
    mean = tree.map(lambda g: (g.sum(0, dtype=torch.promote_types(g.dtype, torch.float32)) / some).to(g.dtype), grads)
    return optim.Examples(grads, count, mean)


def keep_gradients(after_grads: Stage | None) -> Stage | None:
    """Return the stage of the handlers of `after_grads`, which may not replace gradients that the optimizer passes by.

    Raises:
        InvalidArgument: in a step, they did.
    """
    if after_grads is None:
        return None

    def stage(step: Any) -> Any:
        after = after_grads(step)
        if after.grads is not step.grads:
            raise InvalidArgument(
                "a handler of after_grads replaced the gradient, and the optimizer looks at that of each example, so "
                "the change would be lost; make it a piece of the optimizer, after clip_per_example"
            )
        return after

    return stage
