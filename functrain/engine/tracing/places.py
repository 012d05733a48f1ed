"""The line of the user's code that an operation comes from, through gradients too.

It is found by looking at the running frames, which costs 2 us an operation. In a backward pass no frame tells; there
PyTorch numbers what is to be differentiated, and the number leads back to the line of the forward pass.
"""

import linecache
import os
import sys
from typing import Any

import attrs
import toolz
import torch
from torch._C import _current_autograd_node  # pyright: ignore
from torch._C._autograd import _get_sequence_nr  # pyright: ignore
from torch.fx import Node

_ENGINE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_HERE = os.path.dirname(_ENGINE)
_TORCH = os.path.dirname(os.path.abspath(torch.__file__))
_TOOLZ = os.path.dirname(os.path.abspath(toolz.__file__))
_HIDDEN = (_TORCH, _ENGINE, os.path.join(_HERE, "tree.py"), _TOOLZ, "<functrain", "<frozen ")
_PYTHON = os.path.join(os.path.dirname(os.path.abspath(os.__file__)), "")

_BACKWARD = (os.path.join(_TORCH, "autograd", "graph.py"), os.path.join(_ENGINE, "transforms", "gradients.py"))
"""The files that call PyTorch's backward pass; what is further outside of it asked for a gradient."""


AT = "at"
"""Under this name the metadata of a node holds its `Place`."""
MADE_BY = "made_by"
"""Under this name the globals of generated code say of each line what made it: line -> `origin_of` of nodes."""


@attrs.frozen
class Place:
    """Where an operation was made.

    Attributes:
        file: of the user's code, the innermost that is not functrain's or PyTorch's.
        line: the number of the line.
        inner: file and line of functrain's own that the user's code called, such as a layer, or None.
        is_gradient: whether it is the gradient of an operation of that line.
    """

    file: str
    line: int
    inner: tuple[str, int] | None = None
    is_gradient: bool = False

    def __str__(self) -> str:
        inner = f", in functrain/{quote(*self.inner)}" if self.inner else ""
        return f"{'the gradient of ' if self.is_gradient else ''}{quote(self.file, self.line)}{inner}"

    @property
    def code(self) -> str:
        """The text of the line, empty where there is none."""
        return linecache.getline(self.file, self.line).strip()


def origin_of(node: Node) -> tuple[str, Place | None]:
    """Return the name of the operation of a node, and its place.

    >>> from functrain.engine.tracing.to_graph import trace
    >>> origin_of(trace(lambda x: [x + 1], [torch.ones(2)]).results[0])[0]
    'add'
    """
    target: Any = getattr(node.target, "operation", node.target)
    return getattr(target, "_opname", None) or getattr(target, "__name__", str(target)), node.meta.get(AT)


def quote(file: str, line: int) -> str:
    """Return a line of code in words: the name of its file, its number and its text.

    >>> quote("no.py", 3)
    'no.py:3'
    """
    code = linecache.getline(file, line).strip()
    name = os.path.relpath(file, _HERE) if file.startswith(_HERE) else os.path.basename(file)
    return f"{name}:{line}" + (f": `{code}`" if code else "")


class Places:
    """What finds the places of one trace."""

    def __init__(self) -> None:
        self._seen = _get_sequence_nr()
        self._by_number: dict[int, Place | None] = {}
        self._interned: dict[Any, Place] = {}

    def here(self) -> Place | None:
        """Return the place of the operation that runs, None where no code of the user's is around it.

        >>> Places().here().line
        1
        """
        node, now = _current_autograd_node(), _get_sequence_nr()
        place = self._frames() if node is None else self._backward(node)
        for number in range(self._seen, now):  # what has been numbered since belongs to this operation
            self._by_number[number] = place
        self._seen = now
        return place

    def _backward(self, node: Any) -> Place | None:
        recomputed = self._frames(_BACKWARD)
        if recomputed is not None:
            return recomputed
        forward = self._by_number.get(node._sequence_nr())
        if forward is None:
            return self._frames()
        if forward not in self._interned:
            self._interned[forward] = attrs.evolve(forward, is_gradient=True)
        return self._interned[forward]

    def _frames(self, end: tuple[str, ...] = ()) -> Place | None:
        """Return the innermost place, None where one of these files comes first."""
        frame, inner = sys._getframe(2), None
        while frame is not None:
            kind = _kind(frame.f_code.co_filename)
            if kind == _USER:
                return self._of_frames(frame, inner)
            if kind == _OWN and inner is None:
                inner = frame
            if end and frame.f_code.co_filename in end:
                return None
            frame = frame.f_back
        return None

    def _of_frames(self, frame: Any, inner: Any) -> Place:
        # To ask for a line takes longer than all the rest, so instructions are compared.
        key = frame.f_code, frame.f_lasti, inner and inner.f_code, inner and inner.f_lasti
        place = self._interned.get(key)
        if place is None:
            at = None if inner is None else (inner.f_code.co_filename, inner.f_lineno)
            place = self._interned[key] = Place(frame.f_code.co_filename, frame.f_lineno, at)
        return place


def is_users(file: str) -> bool:
    """Return whether a file of this name is the user's, or of a library other than PyTorch, functrain and Python.

    >>> is_users("train.py"), is_users(os.__file__), is_users(__file__)
    (True, False, False)
    """
    return _kind(file) == _USER


_LIBRARY, _OWN, _USER = range(3)
_kinds: dict[str, int] = {}


def _kind(file: str) -> int:
    kind = _kinds.get(file)
    if kind is None:
        is_pythons = file.startswith(_PYTHON) and "-packages" not in file
        is_hidden = file.startswith(_HIDDEN) or is_pythons or "eval_with_key" in file
        kind = _LIBRARY if is_hidden else _OWN if file.startswith(_HERE) else _USER
        if len(_kinds) < 4096:
            _kinds[file] = kind
    return kind
