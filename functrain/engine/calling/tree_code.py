"""Generated Python that takes a tree of one known structure apart, and puts one together.

A call of a compiled function spends its time here, so the code is written for the very structure: a dict is checked by
its keys and unpacked, a record by its class. What does not fit makes the generated function return `MISS`.
"""

import itertools
from collections.abc import Callable
from typing import Any

import attrs
import torch
import torch.utils._pytree as pytree
from torch import Tensor

from functrain import tree
from functrain.engine.statics.static_checks import same_as
from functrain.engine.statics.static_values import PLAIN

MISS = object()
"""What a generated function returns when its arguments are laid out otherwise than the one it was written for."""

TENSOR = object()
"""Stands for a tensor among the static values of the leaves."""


@attrs.frozen
class Again:
    """Stands, among the static values of the leaves, for a tensor that is at an earlier leaf too.

    Attributes:
        leaf: the position of the first.
    """

    leaf: int


@attrs.frozen
class Opaque:
    """A whole argument that is static: a leaf, whatever it holds."""

    value: Any


class Writer:
    """The lines and the constants of a function that is being generated."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {"MISS": MISS}
        self._ids: dict[int, str] = {}
        self._count = itertools.count()

    def name(self, prefix: str) -> str:
        """Return a new variable name."""
        return f"{prefix}{next(self._count)}"

    def constant(self, value: Any) -> str:
        """Return the name under which the generated code finds a value."""
        if id(value) not in self._ids:
            name = self.name("C")
            self._ids[id(value)] = name
            self.constants[name] = value  # keeps it alive, and with it its id
        return self._ids[id(value)]

    def add(self, line: str) -> None:
        """Append a line of the body."""
        self.lines.append(line)

    def function(self, signature: str, where: str) -> Callable:
        """Return the function `def <signature>:` with the lines as its body."""
        body = "\n    ".join(self.lines)
        source = f"def {signature}:\n    {body}\n"
        namespace = dict(self.constants)
        exec(compile(source, f"<functrain {where}>", "exec"), namespace)
        made = namespace[signature.split("(", 1)[0]]
        made.source = source
        return made


def children_of(spec: tree.Structure) -> list[tree.Structure]:
    """Return the structures of the branches of a structure."""
    return list(spec.children())


def write_apart(writer: Writer, spec: tree.Structure, static: list[Any], root: str) -> None:
    """Write the lines that check the tree in variable `root` and put leaf i into the variable `x<i>`.

    Args:
        writer: where the lines go.
        spec: the structure.
        static: for each leaf `TENSOR`, `Again`, or the static value that it must have.
        root: the name of a variable.
    """
    count = itertools.count()

    def name_of(child: tree.Structure) -> str:
        if not child.is_leaf():
            return writer.name("n")
        return f"x{next(count)}"

    def visit(node: tree.Structure, name: str) -> None:
        if node.is_leaf():
            value = static[int(name[1:])]
            if value is not TENSOR:
                writer.add(f"if {_differs(writer, name, value)}: return MISS")
            return
        children = children_of(node)
        # Names are given depth first, so that x<i> is the i-th leaf.
        source = _check(writer, node, name)
        names, below = [], []
        for child in children:
            names.append(writer.name("n") if not child.is_leaf() else writer.name("y"))
            below.append(child)
        if names:
            writer.add(f"{', '.join(names)}, = {source}")
        for child, inner in zip(below, names, strict=True):
            if child.is_leaf():
                leaf = name_of(child)
                renamed[inner] = leaf
                visit(child, leaf)
            else:
                visit(child, inner)

    renamed: dict[str, str] = {}
    start = len(writer.lines)
    if spec.is_leaf():
        leaf = name_of(spec)
        writer.add(f"{leaf} = {root}")
        visit(spec, leaf)
    else:
        visit(spec, root)
    # An unpacking is written before its leaves are numbered; put the numbers in.
    for k in range(start, len(writer.lines)):
        left, sep, right = writer.lines[k].partition(", = ")
        if sep:
            writer.lines[k] = ", ".join(renamed.get(n, n) for n in left.split(", ")) + sep + right


def _check(writer: Writer, node: tree.Structure, name: str) -> str:
    """Write the check of one branch, and return the expression of its children."""
    kind, context = node.type, node.context
    size = len(children_of(node))
    if kind is dict:
        keys = tuple(context)
        writer.add(f"if type({name}) is not dict or (*{name},) != {writer.constant(keys)}: return MISS")
        if any(type(key) is not str for key in keys):  # 1, 1.0 and True are one key to Python, and not to a function
            writer.add(f"if not {writer.constant(same_as(keys))}((*{name},)): return MISS")
        return f"{name}.values()"
    if kind in (list, tuple):
        writer.add(f"if type({name}) is not {kind.__name__} or len({name}) != {size}: return MISS")
        return name
    cls = context if pytree.is_namedtuple_class(kind) or kind is pytree.namedtuple else kind  # pyright: ignore
    writer.add(f"if type({name}) is not {writer.constant(cls)}: return MISS")
    if cls is not kind:
        return name
    if tree.is_node(cls):
        dynamic, fixed = _fields(cls)
        for field, value in zip(fixed, context, strict=True):
            writer.add(f"if {_differs(writer, f'{name}.{field}', value)}: return MISS")
        return "(" + "".join(f"{name}.{field}, " for field in dynamic) + ")"
    inside = writer.name("n")
    writer.add(f"{inside}, context = {writer.constant(pytree.SUPPORTED_NODES[kind].flatten_fn)}({name})")
    writer.add(f"if not {writer.constant(same_as(context))}(context) or len({inside}) != {size}: return MISS")
    return inside


def _fields(cls: type) -> tuple[list[str], list[str]]:
    fields = attrs.fields(cls)
    fixed = [f.name for f in fields if f.metadata.get("static")]
    return [f.name for f in fields if f.name not in fixed], fixed


def _differs(writer: Writer, name: str, value: Any) -> str:
    if isinstance(value, Again):
        return f"{name} is not x{value.leaf}"
    if isinstance(value, Opaque):
        value = value.value
    if value is None or value is True or value is False:
        return f"{name} is not {value}"
    if type(value) in PLAIN:
        constant, kind = writer.constant(value), writer.constant(type(value))
        return f"{name} is not {constant} and (type({name}) is not {kind} or {name} != {constant})"
    return f"not {writer.constant(same_as(value))}({name})"


def write_together(writer: Writer, spec: tree.Structure, leaves: list[str]) -> str:
    """Write the lines that put a tree together, and return the expression of it.

    Args:
        writer: where the lines go.
        spec: the structure.
        leaves: the expression of each leaf.
    """
    remaining = iter(leaves)

    def build(node: tree.Structure) -> str:
        if node.is_leaf():
            return next(remaining)
        kind, context = node.type, node.context
        parts = [build(child) for child in children_of(node)]
        if kind is dict:
            return "{" + ", ".join(f"{_key(writer, k)}: {p}" for k, p in zip(context, parts, strict=True)) + "}"
        if kind is list:
            return "[" + ", ".join(parts) + "]"
        if kind is torch.Size:  # PyTorch's own trees give it back as a tuple
            return f"{writer.constant(torch.Size)}(({''.join(f'{p}, ' for p in parts)}))"
        if kind is tuple:
            return "(" + "".join(f"{p}, " for p in parts) + ")"
        if kind is pytree.namedtuple:  # pyright: ignore
            return f"{writer.constant(context)}({', '.join(parts)})"
        if tree.is_node(kind):
            return _record(writer, kind, context, parts)
        make = writer.constant(pytree.SUPPORTED_NODES[kind].unflatten_fn)
        return f"{make}([{', '.join(parts)}], {writer.constant(context)})"

    return build(spec)


def _key(writer: Writer, key: Any) -> str:
    return repr(key) if type(key) in (str, int) else writer.constant(key)


def _record(writer: Writer, cls: type, context: tuple, parts: list[str]) -> str:
    # As `tree.node` does it: past __init__, and past the frozen __setattr__, all fields at once.
    name = writer.name("o")
    dynamic, fixed = _fields(cls)
    constants = [writer.constant(value) for value in context]
    fields = ", ".join(f"{f!r}: {v}" for f, v in zip([*dynamic, *fixed], [*parts, *constants], strict=True))
    writer.add(f"{name} = {writer.constant(object.__new__)}({writer.constant(cls)})")
    writer.add(f"{writer.constant(object.__setattr__)}({name}, '__dict__', {{{fields}}})")
    return name


def tensor_check(examples: list[Tensor]) -> Callable[..., bool]:
    """Return a function that says whether tensors have the type, shape, strides, dtype and device of the examples.

    It also looks at what decides how an operation is dispatched: inference mode, autocast, `torch.func` wrappers and
    gradients.

    >>> import torch
    >>> check = tensor_check([torch.ones(2)])
    >>> check(torch.zeros(2)), check(torch.ones(3))
    (True, False)
    """
    if not examples:
        return lambda *tensors: not tensors
    from torch._C._dynamo.guards import TensorGuards  # pyright: ignore

    sizes = [list(t.shape) for t in examples]
    strides = [list(t.stride()) for t in examples]
    guards = TensorGuards(*examples, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides)  # pyright: ignore
    return guards.check
