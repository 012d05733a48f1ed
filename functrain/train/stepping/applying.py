"""The model applied to the batch of a step, in the mode of its phase."""

from collections.abc import Callable
from typing import Any

from functrain import nn
from functrain.train.stepping.weights import row_weights


def apply_model(model: nn.Model) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return the function of a step and parameters that applies the model to the step's batch, in its mode."""

    def apply(step: Any, params: Any) -> tuple[Any, Any]:
        return model.apply(params, step.state.buffers, step.batch.input, mode_of(step))

    return apply


def mode_of(step: Any) -> nn.Mode:
    """Return the mode in which a step applies its model."""
    weight = row_weights(step.batch.weight)
    if step.phase != "train":
        return nn.evaluation(weight)
    state = step.begun[0]
    # The step's key is folded only by the layers that draw from it.
    return nn.Mode(True, state.key, step.progress, weight, path=(state.step,))
