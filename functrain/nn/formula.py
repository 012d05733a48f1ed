"""A layer of a short formula: what all layers share stands here once, so that a layer's body is its formula.

>>> import torch
>>> from functrain import random
>>> scale = layer("scale", lambda x: {"scale": torch.ones(x.shape[-1])}, lambda p, x: x * p["scale"])
>>> params, buffers = scale.init(random.key(0), torch.zeros(1, 2))
>>> scale.apply(params, buffers, torch.ones(3, 2))[0].shape
torch.Size([3, 2])
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from functrain import arguments, tree
from functrain.errors import NotATensor, ShapeMismatch, TreeMismatch
from functrain.nn.mode import EVALUATION, Mode
from functrain.nn.model import Buffers, Model, Params
from functrain.nn.parameters import Declare, draw_parameters
from functrain.nn.takes import Takes, alike, anything
from functrain.schedule import Hyper


def layer(
    label: str,
    params: Declare | None,
    apply: Callable[[Params, Any], Any],
    takes: Takes = anything,
) -> Model:
    """Return the layer of a formula.

    Args:
        label: what it is called in its repr and in messages, such as "dense(10)".
        params: (example) -> its parameters by name, each a tensor or a pair (shape, initializer), which is drawn from
            the layer's key and the name; None for none.
        apply: (params, x) -> y, the formula.
        takes: what it takes, a check (label, x, params or None) from `functrain.nn.takes` or of your own. It runs at
            `init`, and in `apply` once the formula failed, to say why.

    Raises:
        InvalidArgument: params or apply is no function.
        TreeMismatch: when applied, a parameter is missing or there is one more.
        ShapeMismatch, DtypeMismatch, DeviceMismatch: when applied, the formula failed and the input does not fit.

    See also: `stateful_layer`, for one with buffers, or that draws, or that differs in training.

    >>> from functrain import initializers, random
    >>> bias = layer("bias", lambda x: {"bias": (x.shape[1:], initializers.zeros())}, lambda p, x: x + p["bias"])
    >>> bias.init(random.key(0), torch.ones(1, 2))
    ({'bias': tensor([0., 0.])}, {})
    """
    arguments.function("apply", apply, "(params, x)")

    def formula(p: Params, b: Buffers, x: Any, mode: Mode) -> tuple[Any, Buffers]:
        return apply(p, x), b

    return stateful_layer(label, params, None, formula, takes)


def stateful_layer(
    label: str,
    params: Declare | None,
    buffers: Callable[[Any], Mapping[str, Tensor]] | None,
    apply: Callable[[Params, Buffers, Any, Mode], tuple[Any, Buffers]],
    takes: Takes = anything,
    hypers: Mapping[str, Hyper] | None = None,
) -> Model:
    """Return the layer of a formula that also has buffers, or the mode.

    Args:
        label: what it is called in its repr and in messages.
        params: (example) -> its parameters by name, as `layer` takes them; None for none.
        buffers: (example) -> its buffers by name, tensors; None for none.
        apply: (params, buffers, x, mode) -> (y, buffers), the formula. What it draws comes from `layer_key(mode)`.
        takes: what it takes, as in `layer`.
        hypers: the hyperparameters that it reads, by name, each a number or a schedule.

    Raises:
        InvalidArgument: one is no function.

    >>> from functrain import random
    >>> def count(p, b, x, mode):
    ...     return x, {"calls": b["calls"] + 1}
    >>> counter = stateful_layer("counter", None, lambda x: {"calls": torch.tensor(0)}, count)
    >>> counter.apply(*counter.init(random.key(0), torch.ones(1)), torch.ones(1))
    (tensor([1.]), {'calls': tensor(1)})
    """
    declare = _nothing if params is None else arguments.function("params", params, "the example")
    begin = _nothing if buffers is None else arguments.function("buffers", buffers, "the example")
    arguments.function("apply", apply, "(params, buffers, x, mode)")
    names = Names(label, declare, begin)

    def init(key: Tensor, example: Any) -> tuple[Params, Buffers]:
        takes(label, example, None)
        held = {name: _buffer(label, name, value) for name, value in begin(example).items()}
        return draw_parameters(label, declare(example), key, example), held

    def apply_layer(params: Params, buffers: Buffers, x: Any, mode: Mode = EVALUATION) -> tuple[Any, Buffers]:
        try:
            names.check(params, buffers, x)
            return apply(params, buffers, x, mode)
        except (ShapeMismatch, TreeMismatch):  # which say themselves what does not fit
            raise
        except Exception:
            _explain(label, takes, declare, params, x)
            raise

    return Model(init, apply_layer, dict(hypers or {}), label=label)


def _nothing(example: Any) -> dict[str, Any]:
    return {}


class Names:
    """The names of a layer's parameters and buffers, which the layer is asked for at its first application.

    They do not depend on the input, so one answer serves for all: this is a memo, not state.
    """

    memo_of = ("declare", "begin")

    def __init__(self, label: str, declare: Declare, begin: Callable[[Any], Mapping[str, Any]]) -> None:
        self.label, self.declare, self.begin = label, declare, begin
        self.params: tuple[str, ...] | None = () if declare is _nothing else None
        self.buffers: tuple[str, ...] | None = () if begin is _nothing else None

    def check(self, params: Any, buffers: Any, x: Any) -> None:
        """Raise `TreeMismatch` unless params and buffers are dicts of these names."""
        if self.params is None or self.buffers is None:
            self._ask(params, buffers, x)
        elif len(params) != len(self.params) or len(buffers) != len(self.buffers):
            self._compare(params, buffers)

    def _ask(self, params: Any, buffers: Any, x: Any) -> None:
        try:
            with torch.no_grad():
                self.params, self.buffers = tuple(self.declare(x)), tuple(self.begin(x))
        except Exception:  # the input does not fit, which the formula will notice
            return
        self._compare(params, buffers)

    def _compare(self, params: Any, buffers: Any) -> None:
        check_names(self.label, params, self.params or ())
        check_names(self.label, buffers, self.buffers or (), "buffers")


def check_names(label: str, held: Any, names: tuple[str, ...], kind: str = "params") -> None:
    """Raise `TreeMismatch` unless a layer's params (or buffers) are a dict with these names and no others.

    >>> check_names("dense(10)", {"weight": torch.ones(1)}, ("weight",))
    """
    if not isinstance(held, Mapping):
        raise TreeMismatch(
            f"{label}: {kind} must be a dict, got {type(held).__name__}; pass what this model's init returned"
        )
    got = ", ".join(map(str, held)) or "nothing"
    missing = [name for name in names if name not in held]
    if missing:
        raise TreeMismatch(
            f"{label}: {kind} must hold {' and '.join(missing)}, got {got}; pass what this model's init returned, or "
            "rename the entries"
        )
    surplus = [str(name) for name in held if name not in names]
    if surplus:
        raise TreeMismatch(
            f"{label}: {kind} must hold {' and '.join(names) or 'nothing'}, got {' and '.join(surplus)} too; pass what "
            "this model's init returned, or leave out what it does not use"
        )


def _explain(label: str, takes: Takes, declare: Declare, params: Any, x: Any) -> None:
    """Raise the error that says what does not fit the layer, or return where nothing is found."""
    if not isinstance(params, Mapping):
        check_names(label, params, ())
    takes(label, x, params)
    _compare_shapes(label, declare, params, x)
    for name, value in params.items():
        if not isinstance(value, Tensor):
            raise NotATensor(f"{label}: params: {name} must be a tensor, got {type(value).__name__}")
        if value.is_floating_point():
            alike(label, x, value)


def _compare_shapes(label: str, declare: Declare, params: Mapping[str, Any], x: Any) -> None:
    """Raise unless the parameters have the shapes that an input like this one would give them."""
    try:
        shapes = {name: tuple(d.shape if isinstance(d, Tensor) else d[0]) for name, d in declare(x).items()}
    except Exception:  # the layer cannot say, so neither can this
        return
    for name, shape in shapes.items():
        if tuple(params[name].shape) != shape:
            raise ShapeMismatch(
                f"{label}: the input must be like the one that it was initialised for: with {tree.describe(x)} the "
                f"parameter {name} would have shape {shape}, but it has {tuple(params[name].shape)}"
            )


def _buffer(label: str, name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise NotATensor(
            f"{label}: the buffer {name} must be a tensor, got {tree.describe(value)}; a number that changes is "
            "torch.tensor(number), one that does not belongs into the formula"
        )
    return value
