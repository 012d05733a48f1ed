"""The mode in which a model is applied: to train or to evaluate, with which key, at which progress."""

from typing import Any

import attrs
from torch import Tensor

from functrain import random
from functrain.errors import InvalidKey
from functrain.records import reprs
from functrain.schedule import Progress


@attrs.frozen(repr=False)
class Mode:
    """How a model is applied: to train or to evaluate. Made by `training` and `evaluation`.

    Attributes:
        train: whether dropout drops and batch norm uses the batch's statistics.
        key: the random key of this application; a layer's own is `layer_key(mode)`. None when evaluating.
        progress: how far training is, for layers with scheduled hyperparameters.
        weight: the weight of each example, shape (n,), or None when all count alike; a layer that mixes examples
            (batch norm) must give no influence to examples of zero weight.
        path: what is folded into the key for this layer: in training the step, then the names down to the layer.
    """

    train: bool = False
    key: Tensor | None = None
    progress: Progress = Progress()
    weight: Tensor | None = None
    path: tuple[Any, ...] = ()

    __repr__ = reprs.record


def evaluation(weight: Tensor | None = None) -> Mode:
    """Return the mode that evaluates, the default of `Model.apply`.

    Args:
        weight: the weight of each example, shape (n,), or None when all count alike.

    >>> evaluation().train
    False
    """
    return Mode(weight=weight)


def training(key: Tensor, position: float | Tensor | Progress = 0.0, weight: Tensor | None = None) -> Mode:
    """Return the mode that trains.

    Args:
        key: the random key of this step.
        position: the fraction of training done, or a whole `Progress`.
        weight: the weight of each example, shape (n,), or None when all count alike.

    >>> training(random.key(0), 0.5).progress.position
    0.5
    """
    progress = position if isinstance(position, Progress) else Progress(position=position)
    return Mode(True, random.check_key(key), progress, weight)


EVALUATION = Mode()
"""What `Model.apply` does by default."""


def enter(mode: Mode, *names: str | int) -> Mode:
    """Return the mode for the child of this name; a number after it tells further uses of the same child apart.

    >>> enter(enter(evaluation(), "encoder"), "0").path
    ('encoder', '0')
    """
    # Not attrs.evolve: this runs for each layer at each eager step.
    return Mode(mode.train, mode.key, mode.progress, mode.weight, (*mode.path, *names))


def layer_key(mode: Mode) -> Tensor:
    """Return the layer's own random key: that of the mode with the layer's path folded in, only when asked for.

    So a layer's draws depend on its path alone, not on which other layers there are.

    Raises:
        InvalidKey: the mode has no key, as that of evaluation.

    >>> mode = enter(enter(training(random.key(0)), "encoder"), "1")
    >>> bool((layer_key(mode) == random.fold_in(random.key(0), "encoder", "1")).all())
    True
    """
    if mode.key is None:
        raise InvalidKey("this layer draws random numbers, and the mode has no key; apply it with nn.training(key)")
    return random.fold_in(mode.key, *mode.path)
