"""Compile once: what was traced for a learner, or for a step of one's own, is found again as long as that lives.

The cache of an object lies in the object's own dictionary, since what it holds refers to the object: nothing global
keeps either alive, and both go together. A key is made of what the function was made of: the handlers by identity, the
phase, the backend. What a function closes over further inside is compared by `jit` at each call.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from types import MethodType
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import arguments, engine, tree
from functrain.errors import DonatedValueUsed, FunctrainError, InvalidArgument

BACKENDS = ("aten", "inductor", "cudagraph", False)

DONATED_FROM: ContextVar[int] = ContextVar("DONATED_FROM", default=1 << 20)
"""From how many bytes on a state's memory is reused by the step; a smaller one is quicker with memory of its own."""

MOST = 32
"""How many functions are kept for one object; the one that was not asked for longest goes first."""

_NAME = "_compiled"


_LOCK = threading.RLock()
"""For threads that fit one learner at once: it is held while a function is looked up, and not while one is made."""


@attrs.frozen(slots=False)
class _Kept:
    """What is kept for one object, which it knows: a copy of the object, or what wraps it, begins without it.

    A record without fields, so that `jit`, which looks through whatever a function can reach, sees nothing of it.
    """

    def __attrs_post_init__(self) -> None:
        vars(self).update(owner=None, functions=OrderedDict())

    def __reduce__(self) -> tuple:
        return _Kept, ()


def keep(owner: Any, key: Hashable, make: Callable[[], Any]) -> Any:
    """Return what `make` returns, the same as last time for this owner and key.

    What belongs to a bound method is kept with its object. Of threads that come at once the first gives all of them
    what it has made: who shares a compiled function must share the table of its stops.

    >>> class Owner: pass
    >>> owner = Owner()
    >>> keep(owner, "key", list) is keep(owner, "key", list)
    True
    """
    if isinstance(owner, MethodType):  # whose dictionary is that of the function, the same for all objects
        owner, key = owner.__self__, (_Same(owner.__func__), key)
    if not isinstance(getattr(owner, "__dict__", None), dict):
        return make()
    with _LOCK:
        functions = _functions_of(owner)
        if key in functions:
            functions.move_to_end(key)
            return functions[key]
    made = make()
    with _LOCK:
        kept = functions.setdefault(key, made)
        functions.move_to_end(key)
        while len(functions) > MOST:
            functions.popitem(last=False)
    return kept


def _functions_of(owner: Any) -> OrderedDict[Hashable, Any]:
    kept = vars(owner).get(_NAME)
    if not isinstance(kept, _Kept) or vars(kept)["owner"] is not owner:  # `copy` and `wraps` take whole dictionaries
        kept = vars(owner)[_NAME] = _Kept()
        vars(kept)["owner"] = owner
    return vars(kept)["functions"]


def identity(value: Any) -> Hashable:
    """Return a key that is equal for the same object alone; of a bound method, for the same method of the same object.

    >>> x, y = [1], [1]
    >>> identity(x) == identity(x), identity(x) == identity(y)
    (True, False)
    """
    inside, function = getattr(value, "__self__", None), getattr(value, "__func__", None)
    return _Same(value) if function is None else (_Same(inside), _Same(function))


class _Same:
    """An object as a key, compared by identity; it keeps the object alive, and with it its address."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def check_backend(jit: Any, chunk: Any, compile_shapes: Any = "first") -> None:
    """Raise `InvalidArgument` unless these are a backend, a number of batches, and which shapes to compile.

    >>> check_backend("aten", 8)
    """
    if jit not in BACKENDS or jit is True:
        raise InvalidArgument(f"jit must be one of 'aten', 'inductor', 'cudagraph' or False, got {jit!r}")
    arguments.whole("chunk", chunk)
    if compile_shapes not in ("first", "all"):
        raise InvalidArgument(f"compile_shapes must be 'first' or 'all', got {compile_shapes!r}")


def is_donated(state: Any) -> bool:
    """Return whether the step is to reuse the memory of a state: of a large one, and of any on an accelerator.

    >>> is_donated(torch.ones(2)), is_donated(torch.ones(1 << 18))
    (False, True)
    """
    leaves = [leaf for leaf in tree.leaves(state) if isinstance(leaf, Tensor)]
    return any(leaf.device.type != "cpu" for leaf in leaves) or sum(map(_bytes, leaves)) >= DONATED_FROM.get()


def _bytes(leaf: Tensor) -> int:
    return leaf.numel() * leaf.element_size()


def compile_step(f: Callable, donate: bool, backend: str) -> Callable:
    """Return a function of (carry, ...) compiled, that explains what goes wrong in a kernel as plain Python would.

    >>> compile_step(lambda carry, x: carry + x, False, "aten")(torch.ones(1), torch.ones(1))
    tensor([2.])
    """
    run = engine.jit(f, donate=0 if donate else (), backend=backend)

    def explained(*args: Any) -> Any:
        try:
            return run(*args)
        except (IndexError, RuntimeError, AssertionError) as raw:
            if not isinstance(raw, FunctrainError):
                _explain(f, args, raw)
            raise

    explained.jitted = run  # pyright: ignore[reportFunctionMemberAccess]
    return explained


def _explain(f: Callable, args: tuple, raw: BaseException) -> None:
    """Raise what the function itself says to these arguments, if that is clearer and they are still there."""
    try:
        with torch.no_grad():
            f(*args)
    except DonatedValueUsed:
        return
    except FunctrainError as clear:
        raise clear from raw
    except Exception:
        return
