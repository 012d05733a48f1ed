"""What a trace cannot hold, and the words for it."""

import contextlib
import os
import traceback
from collections.abc import Iterator

from functrain.engine.tracing.mapped_refusals import refuse_mapped
from functrain.engine.tracing.places import is_users, quote
from functrain.errors import (
    DeviceMismatch,
    DtypeMismatch,
    FunctrainError,
    HiddenRandomness,
    LeakedTensor,
    NotTraceable,
    SideEffect,
)


class Refused(Exception):
    """The running function does what a trace cannot hold; `in_words` says so, and this never leaves the engine.

    Attributes:
        kind: a key of the table of words below.
        what: the name of what it did it to, or with.
    """

    def __init__(self, kind: str, what: str = "") -> None:
        super().__init__(kind, what)
        self.kind, self.what = kind, what


@contextlib.contextmanager
def in_words() -> Iterator[None]:
    """Turn what stops a trace into an error that shows the caller's line."""
    try:
        yield
    except FunctrainError:
        raise
    except Refused as refused:
        explained = _explain(refused, _user_line(refused))
        for note in getattr(refused, "__notes__", []):  # such as the layer that it happened in
            explained.add_note(note)
        raise explained from None
    except Exception as error:
        line = _user_line(error)
        if _is_of_dynamo(error):
            raise _explain(Refused("operator"), line) from error
        if isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY):
            raise _explain(Refused("value"), line) from None
        if isinstance(error, RuntimeError):
            refuse_mapped(error)
        note = f"raised while jit traced {line}"
        if note not in getattr(error, "__notes__", []):  # which the trace of a scan inside this one has added
            error.add_note(note)
        raise


def _is_of_dynamo(error: BaseException) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(os.path.join("torch", "_dynamo") in frame.f_code.co_filename for frame, _ in frames)


_NO_MEMORY = (
    "Cannot access data pointer",
    "data is not allocated",
    "is not supported for tensor subclasses",
    "doesn't have storage",
)
"""What PyTorch says when memory is asked of a tensor that has none."""


def _explain(refused: Refused, line: str) -> FunctrainError:
    error, words = _WORDS[refused.kind]
    return error(words.format(what=refused.what, line=line))


_WORDS: dict[str, tuple[type[FunctrainError], str]] = {
    "value": (
        NotTraceable,
        "Python looks at the values of a tensor at {line}; a trace holds no values: choose with "
        "torch.where(condition, a, b), loop with scan, or run this function without jit",
    ),
    "shape": (
        NotTraceable,
        "the shape of a result depends on the values of a tensor, at {line}; a trace has fixed shapes: keep all "
        "elements and choose with torch.where(condition, a, b), or give some zero weight",
    ),
    "row": (
        NotTraceable,
        "a row taken by a tensor, as x[k], was changed in place and then its tensor used, or the other way round, at "
        "{line}; it is a view, which a trace cannot follow: write x[k] = value, and take the row anew or clone it",
    ),
    "large": (
        NotTraceable,
        "Python looks at the values of a tensor that depends on one closed over of {what} elements, at {line}; values "
        "of up to 4096 elements join the signature: make a number or a shorter tensor of it outside of the function",
    ),
    "leaked": (
        LeakedTensor,
        "a tensor of another trace, which is over, is used at {line}; it was kept in a variable outside of the traced "
        "function: return it instead",
    ),
    "layout": (NotTraceable, "jit takes dense tensors, got layout {what} at {line}; convert it with to_dense()"),
    "subclass": (
        NotTraceable,
        "jit takes plain tensors, got {what} at {line}; convert it with as_subclass(torch.Tensor)",
    ),
    "make_fx": (
        NotTraceable,
        "make_fx, which torch.func.linearize uses too, runs inside a trace at {line}; use jvp or vjp in its place, or "
        "call it outside of jit",
    ),
    "operator": (
        NotTraceable,
        "torch.compile, or what stands on it as torch.cond, while_loop and flex_attention do, runs inside a trace at "
        "{line}; write a choice with torch.where and a loop with scan, or call it outside of jit",
    ),
    "resize": (
        NotTraceable,
        "a tensor is given other memory in place at {line}; leave out= away, and return the new tensor",
    ),
    "effect": (
        SideEffect,
        "{what} is changed in place at {line}; return the new value instead (donate the old one to save memory)",
    ),
    "array": (
        SideEffect,
        "the array that numpy() gives of a tensor is written to in what is traced at {line}, which no operation shows; "
        "write to a copy of the array, or to the tensor",
    ),
    "elements": (
        NotTraceable,
        "{what} runs Python for each element of a tensor at {line}; compute with operations on the whole of it",
    ),
    "pickle": (
        NotTraceable,
        "a tensor is taken apart at {line}, as pickle, torch.save and copy.copy do, which reads its values; detach() "
        "gives another tensor of the same memory, clone() a copy; save outside of the function",
    ),
    "backward": (
        SideEffect,
        "backward() writes into the grad of a tensor closed over; take gradients with grad or value_and_grad, which "
        "return them",
    ),
    "random": (
        HiddenRandomness,
        "{what} draws from PyTorch's global generator at {line}; pass a key as an argument and draw with "
        "functrain.random",
    ),
    "device": (DeviceMismatch, "{what}, at {line}; move them with tree.to(tree, device)"),
    "dtype": (DtypeMismatch, "{what}, at {line}; convert them with tree.to(tree, dtype)"),
}
"""Kind of refusal -> the error, and what it says."""


def _user_line(error: BaseException) -> str:
    # Where the traced function has no line of the user's, it is the one that called it.
    frames = [*traceback.extract_stack(), *traceback.extract_tb(error.__traceback__)]
    mine = [f for f in frames if is_users(f.filename)]
    if not mine:
        return "an unknown line"
    return quote(mine[-1].filename, mine[-1].lineno or 0)
