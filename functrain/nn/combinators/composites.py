"""A layer of one's own, made of named children by a function that says how the input goes through them."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from functrain import arguments
from functrain.errors import InvalidArgument
from functrain.nn.combinators.children import Child, apply_child, check_dicts, check_distinct, combination, init_child
from functrain.nn.functions import as_model
from functrain.nn.mode import EVALUATION, Mode, enter
from functrain.nn.model import Buffers, Model, Params

FIRST = 0


def composite(label: str, forward: Callable[["Children", Any], Any], **layers: Any) -> Model:
    """Return the layer that sends its input through named children as a function says.

    A child may be applied more than once: its parameters are shared, its buffers go from one use to the next, and each
    use draws otherwise.

    Args:
        label: what it is called in its repr and in messages.
        forward: (children, x) -> y, where `children.name(x)` applies the child of that name, and `children.mode` is the
            mode. Its choices must not depend on values. At `init` it runs on the example, and must apply each child.
        layers: the children by name.

    Raises:
        InvalidArgument: something is no layer, forward is no function, or at `init` a child was not applied.

    >>> import torch
    >>> from functrain import nn, random
    >>> def gated(out):
    ...     def forward(children, x):
    ...         return children.value(x) * torch.sigmoid(children.gate(x))
    ...     return composite(f"gated({out})", forward, value=nn.dense(out), gate=nn.dense(out))
    >>> model = nn.serial(gated(4), gated(2))
    >>> params, buffers = model.init(random.key(0), torch.zeros(1, 3))
    >>> list(params["0"]), model
    (['value', 'gate'], serial(gated(4), gated(2)))
    """
    arguments.function("forward", forward, "(children, x)")
    children = check_distinct((name, as_model(f"layer {name}", layer)) for name, layer in layers.items())
    by_name, names = dict(children), frozenset(layers)

    def init(key: Tensor, example: Any) -> tuple[Params, Buffers]:
        using = Children(label, by_name, {}, {}, EVALUATION, key)
        forward(using, example)
        unused = [name for name in by_name if name not in using._uses]
        if unused:
            raise InvalidArgument(f"{label}: forward must apply each child to the example, but not {', '.join(unused)}")
        return _order(using._params, children), _order(using._buffers, children)

    def apply(params: Params, buffers: Buffers, x: Any, mode: Mode = EVALUATION) -> tuple[Any, Buffers]:
        check_dicts(label, names, params, buffers)
        using = Children(label, by_name, params, buffers, mode)
        return forward(using, x), using._buffers

    return combination(label, init, apply, children)


def _order(held: dict[str, Any], children: tuple[Child, ...]) -> dict[str, Any]:
    return {name: held[name] for name, _ in children if name in held}


class Children:
    """The children of a composite during one application: `children.name(x)` applies one.

    It lives as long as one call of `forward`, and keeps what that call must not lose: the buffers so far, and how often
    each child was applied.

    Attributes:
        mode: the mode of this application.
    """

    def __init__(
        self,
        label: str,
        layers: dict[str, Model],
        params: Params,
        buffers: Buffers,
        mode: Mode,
        key: Tensor | None = None,
    ) -> None:
        self._label, self._layers, self._params, self._buffers = label, layers, params, buffers
        self.mode, self._key = mode, key
        self._uses: dict[str, int] = {}

    def __getattr__(self, name: str) -> Callable[[Any], Any]:
        if name not in self._layers:
            raise AttributeError(f"{self._label} has no child {name!r}, only {', '.join(self._layers) or 'none'}")
        return lambda x: self._apply(name, x)

    def _apply(self, name: str, x: Any) -> Any:
        layer, use = self._layers[name], self._uses.get(name, FIRST)
        self._uses[name] = use + 1
        if self._key is not None and use == FIRST:
            return init_child(name, layer, self._key, x, self._params, self._buffers)
        mode = self.mode if use == FIRST else enter(self.mode, use)
        y, after = apply_child(name, layer, self._params, self._buffers, x, mode)
        if self._key is None:  # at init buffers are what they begin with
            self._buffers = after
        return y
