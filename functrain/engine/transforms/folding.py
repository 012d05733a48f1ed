"""The fold: a pure function carried over a sequence, with an early stop that is a value."""

from collections.abc import Callable, Iterable
from typing import Any

import attrs
from torch import Tensor

from functrain import tree
from functrain.errors import InvalidArgument, NotATensor
from functrain.records import reprs


def _check_when(_stop: Any, _attribute: Any, when: Any) -> None:
    scalar = getattr(when, "shape", None) == () and str(getattr(when, "dtype", "")).removeprefix("torch.") == "bool"
    if not (isinstance(when, bool) or scalar):
        raise InvalidArgument(
            f"when must be a bool, or a boolean tensor without axes, got {tree.describe(when)}; make it one by a "
            "comparison or by all() or any()"
        )


def _check_reason(_stop: Any, _attribute: Any, reason: Any) -> None:
    if not isinstance(reason, str):
        raise InvalidArgument(f"reason must be a string, in words for a person, got {tree.describe(reason)}")


@attrs.frozen(repr=False)
class Stop:
    """What the function of a `fold` returns to end it here, as `reduced` ends a Clojure reduce.

    Attributes:
        carry: the carry to go on with: the result of the fold.
        y: the last output of the fold, as in the usual pair (carry, y).
        when: a bool, or a boolean scalar tensor: where it is false, this is no stop and the fold goes on.
        scope: for a training callback, what is to end; None for what its event usually ends. A fold ignores it.
        reason: for a training callback, why, in words for a person.

    Raises:
        InvalidArgument: the condition is no truth value, or the reason no string.

    >>> fold(lambda total, x: Stop(total) if x < 0 else (total + x, None), 0, [1, 2, -1, 4])[0]
    3
    """

    carry: Any
    y: Any = None
    when: Tensor | bool = attrs.field(default=True, validator=_check_when)
    scope: str | None = None
    reason: str = attrs.field(default="", validator=_check_reason)

    __repr__ = reprs.record


def fold(f: Callable[[Any, Any], tuple[Any, Any] | Stop], carry: Any, xs: Iterable[Any]) -> tuple[Any, Any]:
    """Carry a value through a sequence: `carry, y = f(carry, x)` for each x, until the end or a `Stop`.

    Args:
        f: (carry, x) -> (carry, y), or `Stop(carry, y)` to end the fold there.
        carry: the first carry, any tree.
        xs: any iterable; or a tensor, which is folded over its first axis.

    Returns:
        The last carry, and the outputs: one tree whose leaves are stacked along a new first axis; None where every
        output is None or there is none.

    >>> fold(lambda total, x: (total + x, total), 0, [1, 2, 3])
    (6, tensor([0, 1, 3]))
    """
    ys = []
    for x in xs:
        carry, y, stopped = _unpack(f(carry, x))
        ys.append(y)
        if stopped:
            break
    return carry, None if all(y is None for y in ys) else tree.stack(ys)


def _unpack(result: Any) -> tuple[Any, Any, bool]:
    if isinstance(result, Stop):
        return result.carry, result.y, bool(result.when)
    if isinstance(result, tuple) and len(result) == 2:
        return *result, False
    raise NotATensor(f"the function of a fold must return (carry, y) or Stop(carry, y), got {type(result).__name__}")
