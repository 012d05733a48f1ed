"""Activations by path, as values."""

import fnmatch
from collections.abc import Sequence
from typing import Any

import attrs

from functrain import tree
from functrain.errors import InvalidArgument
from functrain.nn.functions import as_model
from functrain.nn.mode import EVALUATION, Mode
from functrain.nn.model import Buffers, Model, Params
from functrain.nn.observing import observe


def capture(model: Model, paths: str | Sequence[str]) -> Model:
    """Return the model that returns what its layers return beside its output: y becomes (y, {path: activation}).

    It is as pure as the model, so gradients, `vmap` and `jit` go through the activations.

    Args:
        model: any model: of functrain's layers, or `from_module`.
        paths: the dotted paths of layers, such as "encoder.0"; `*` stands for any characters.

    Returns:
        A model of the same parameters and buffers. An activation is what the layer returned; of a layer that is applied
        several times, a tuple of what it returned each time.

    Raises:
        InvalidArgument: paths are none; when applied, no layer has such a path.

    See also: `summary`, which lists the paths.

    >>> import torch
    >>> from functrain import nn, random
    >>> model = nn.serial(nn.dense(4), nn.relu, head=nn.dense(2))
    >>> params, buffers = model.init(random.key(0), torch.zeros(1, 3))
    >>> (y, seen), _ = capture(model, ["0", "head"]).apply(params, buffers, torch.ones(5, 3))
    >>> {path: tuple(value.shape) for path, value in seen.items()}, torch.equal(seen["head"], y)
    ({'0': (5, 4), 'head': (5, 2)}, True)
    """
    model = as_model("model", model)
    patterns: tuple[str, ...] = tuple(paths) if isinstance(paths, list | tuple) else (paths,)  # pyright: ignore
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise InvalidArgument(f"paths must be dotted paths of layers, got {paths!r}")

    def apply(params: Params, buffers: Buffers, x: Any, mode: Mode = EVALUATION) -> tuple[Any, Buffers]:
        seen = _Seen(patterns, len(mode.path))
        with observe(seen):
            y, after = model.apply(params, buffers, x, mode)
        return (y, seen.choose()), after

    return attrs.evolve(model, apply=apply)


class _Seen:
    """Keeps what the layers of certain paths return."""

    def __init__(self, patterns: tuple[str, ...], base: int) -> None:
        self._patterns, self._base = patterns, base
        self._values: dict[str, list[Any]] = {}
        self._paths: list[str] = []

    def enter(self, path: tuple[Any, ...]) -> None:
        pass

    def leave(self, path: tuple[Any, ...], layer: Any, y: Any) -> None:
        name = ".".join(map(str, path[self._base :]))
        self._paths.append(name)
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self._patterns):
            # Copies: the next layer may write to what this one returned (`ReLU(inplace=True)`).
            self._values.setdefault(name, []).append(tree.clone(y))

    def choose(self) -> dict[str, Any]:
        """Return the activations by path."""
        for pattern in self._patterns:
            if not fnmatch.filter(self._paths, pattern):
                shown = ", ".join(dict.fromkeys(self._paths)) or "none"
                raise InvalidArgument(
                    f"capture: no layer that is applied has the path {pattern!r}; there are: {shown:.600}"
                )
        return {path: many[0] if len(many) == 1 else tuple(many) for path, many in self._values.items()}
