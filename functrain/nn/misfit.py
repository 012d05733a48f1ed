"""What does not fit a layer: found out after its computation failed, so that it costs nothing when all is well.

A layer runs its kernel first. When that raises, it calls the checks below, which raise an error that says what is
wrong; where they find nothing, the kernel's own error goes on. Combinators add the names on the way up.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from functrain import tree
from functrain.errors import DeviceMismatch, DtypeMismatch, FunctrainError, NotATensor, ShapeMismatch, TreeMismatch

FAILURES = (AttributeError, KeyError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What kernels and look-ups raise when something does not fit."""


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Let errors say that they happened in the child of this name."""
    try:
        yield
    except Exception as error:
        locate(error, name)
        raise


def locate(error: Exception, name: str) -> None:
    """Put a name in front of the path at which an error says that it happened.

    An error of functrain says it at the beginning of its message, any other one in a note.

    >>> error = ShapeMismatch("too wide")
    >>> locate(error, "0")
    >>> locate(error, "encoder")
    >>> str(error)
    'in layer encoder.0: too wide'
    """
    known = vars(error)
    message = known.setdefault("message_of_layer", str(error))
    path = known["path_of_layer"] = (name, *known.get("path_of_layer", ()))
    where = f"in layer {'.'.join(path)}"
    if isinstance(error, FunctrainError):
        error.args = (f"{where}: {message}",)
    else:
        others = [note for note in getattr(error, "__notes__", []) if note != known.get("note_of_layer")]
        error.__notes__ = [*others, where]
        known["note_of_layer"] = where


def check_present(what: str, held: Any, names: Sequence[str], kind: str = "params") -> None:
    """Raise `TreeMismatch` unless a layer's params (or buffers) are a dict with these names."""
    if not isinstance(held, Mapping):
        raise TreeMismatch(
            f"{what}: {kind} must be a dict, got {type(held).__name__}; pass what this model's init returned"
        )
    missing = [name for name in names if name not in held]
    if missing:
        found = ", ".join(map(str, held)) or "nothing"
        raise TreeMismatch(
            f"{what}: {kind} must hold {' and '.join(missing)}, got {found}; pass what this model's init returned, or "
            "rename the entries"
        )


def check_floating(what: str, x: Any) -> None:
    """Raise unless the input is a tensor of floating-point numbers."""
    if not isinstance(x, Tensor):
        raise NotATensor(f"{what}: the input must be a tensor, got {type(x).__name__}; use torch.as_tensor")
    if not x.is_floating_point():
        raise DtypeMismatch(
            f"{what}: the input must be of a floating-point dtype, got {tree.describe(x)}; convert it with x.float(), "
            "or embed what is an index"
        )


def check_alike(what: str, x: Tensor, weight: Tensor) -> None:
    """Raise unless the input has the dtype and the device of the parameters."""
    if x.dtype != weight.dtype:
        raise DtypeMismatch(
            f"{what}: the input must have the dtype of the parameters, {_word(weight.dtype)}, got {_word(x.dtype)}; "
            "convert one with tree.to(..., dtype)"
        )
    check_device(what, x, weight)


def check_device(what: str, x: Tensor, weight: Tensor) -> None:
    """Raise unless the input is on the device of the parameters."""
    if x.device != weight.device:
        raise DeviceMismatch(
            f"{what}: the input is on {x.device} and the parameters on {weight.device}; move one with "
            "tree.to(..., device)"
        )


def _word(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


_AXES = {1: ("N", "C", "L"), 2: ("N", "C", "H", "W"), 3: ("N", "C", "D", "H", "W")}


def axes(dims: int) -> str:
    """Return the names of the axes of a batch of images of so many dimensions.

    >>> axes(2)
    'N x C x H x W'
    """
    return " x ".join(_AXES[dims])


def check_axes(what: str, x: Any, dims: int) -> None:
    """Raise unless the input has the axes N, C and `dims` more."""
    if not isinstance(x, Tensor):
        raise NotATensor(f"{what}: the input must be a tensor, got {type(x).__name__}; use torch.as_tensor")
    if x.dim() != dims + 2:
        hint = "give the one channel an axis with x.unsqueeze(1)" if x.dim() == dims + 1 else "reshape it"
        raise ShapeMismatch(
            f"{what}: the input must have the axes {axes(dims)} (batch, channels, then space of any size), got shape "
            f"{tuple(x.shape)}; {hint}"
        )


def check_extent(what: str, x: Tensor, kernel: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> None:
    """Raise unless a kernel fits into the padded input along each axis of space."""
    for name, size, k, p, d in zip(_AXES[x.dim() - 2][2:], x.shape[2:], kernel, padding, dilation, strict=True):
        extent = d * (k - 1) + 1
        if size + 2 * p < extent:
            raise ShapeMismatch(
                f"{what}: the kernel covers {extent} along {name}, but the input has {name} = {size}"
                f"{f' and {p} of padding on each side' if p else ''}: {axes(x.dim() - 2)} is "
                f"{' x '.join(map(str, x.shape))}; take a smaller kernel or more padding"
            )
