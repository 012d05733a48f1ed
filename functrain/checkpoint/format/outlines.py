"""Outlines: JSON data that says where the leaves of a value stand. What is read from a file is checked here.

In an outline None, truth values, whole numbers, finite floats and strings are themselves. Everything else is an object
of one entry, whose key says what it is:

    {"tensor": name}                     twice the same name where two leaves are one tensor
    {"float": "nan"}                     or "inf" or "-inf", which JSON has not
    {"complex": [real, imaginary]}
    {"dict": [[key, outline], ...]}      keys are strings or whole numbers
    {"list": [outline, ...]}, {"tuple": [outline, ...]}
    {"record": [[field, outline], ...]}  a frozen attrs class or a named tuple; the class is not named
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

MOST_DEEP = 100
"""How deep containers may stand in each other."""

MOST_BITS = 4096
"""How long a whole number may be; Python itself refuses to read much longer ones."""

CONTAINERS = ("dict", "list", "tuple", "record")
FLOATS = ("nan", "inf", "-inf")


def join(path: tuple) -> str:
    """Return the dotted path of the names on the way to something.

    >>> join(("params", 0, "weight"))
    'params.0.weight'
    """
    return ".".join(str(name) for name in path)


def node_of(outline: Any) -> tuple[str, Any]:
    """Return the kind of what stands at some place of an outline, and what is in it.

    >>> node_of({"tensor": "w"}), node_of(3)
    (('tensor', 'w'), ('scalar', 3))
    """
    return next(iter(outline.items())) if isinstance(outline, dict) else ("scalar", outline)


def pairs_of(kind: str, content: Any) -> list[tuple[Any, Any]]:
    """Return the (name, outline) pairs in a container of an outline.

    >>> pairs_of("list", [7, 8])
    [(0, 7), (1, 8)]
    """
    return list(enumerate(content)) if kind in ("list", "tuple") else [(name, child) for name, child in content]


def scalar_of(kind: str, content: Any) -> Any:
    """Return the number, string or None that stands in an outline.

    >>> scalar_of("float", "-inf")
    -inf
    """
    if kind == "complex":
        return complex(*(scalar_of(*node_of(part)) for part in content))
    return float(content) if kind == "float" else content


def index(outline: Any, path: tuple = ()) -> dict[str, Any]:
    """Return every place of an outline by dotted path, containers too.

    >>> index({"dict": [["n", 3]]})
    {'': {'dict': [['n', 3]]}, 'n': 3}
    """
    kind, content = node_of(outline)
    places = {join(path): outline}
    if kind in ("dict", "list", "tuple", "record"):
        for name, child in pairs_of(kind, content):
            places.update(index(child, (*path, name)))
    return places


def plain(
    outline: Any, tensors: Mapping[str, Tensor], record: Callable[[dict[str, Any]], Any] = lambda fields: fields
) -> Any:
    """Return the value of an outline in dicts, lists and tuples; a record is what `record` makes of its fields, a dict.

    >>> plain({"tuple": [1, {"dict": []}]}, {})
    (1, {})
    """
    kind, content = node_of(outline)
    if kind == "tensor":
        return tensors[content]
    if kind not in ("dict", "list", "tuple", "record"):
        return scalar_of(kind, content)
    built = [(name, plain(child, tensors, record)) for name, child in pairs_of(kind, content)]
    if kind in ("dict", "record"):
        return dict(built) if kind == "dict" else record(dict(built))
    return [child for _, child in built] if kind == "list" else tuple(child for _, child in built)


def check_outline(outline: Any, tensors: Any) -> None:
    """Raise `ValueError` with the reason unless JSON data is an outline of exactly these tensors.

    >>> check_outline({"list": [1, {"lambda": "x"}]}, ())
    Traceback (most recent call last):
        ...
    ValueError: '1': {'lambda': ...} is nothing that is saved
    """
    paths: set[str] = set()
    met: set[str] = set()
    for path, kind, content in _leaves(outline, ()):
        if path in paths:
            raise ValueError(f"two leaves have the path {path!r}")
        paths.add(path)
        if kind == "tensor":
            met.add(content)
    if met != set(tensors):
        odd = sorted(met ^ set(tensors))[0]
        raise ValueError(
            f"the tensor {odd!r} " + ("is not in the file" if odd in met else "stands nowhere in the value")
        )


def _leaves(outline: Any, path: tuple) -> Iterator[tuple[str, str, Any]]:
    if len(path) > MOST_DEEP:
        raise ValueError(f"it is deeper than {MOST_DEEP} levels")
    if isinstance(outline, list) or (isinstance(outline, dict) and len(outline) != 1):
        raise ValueError(f"{join(path)!r}: a {type(outline).__name__} of {len(outline)} is nothing that is saved")
    kind, content = node_of(outline)
    if kind in CONTAINERS:
        yield from _inside(kind, content, path)
    elif _is_leaf(kind, content):
        yield join(path), kind, content
    else:
        raise ValueError(f"{join(path)!r}: {{{kind!r}: ...}} is nothing that is saved")


def _is_leaf(kind: str, content: Any) -> bool:
    if kind == "complex":
        return isinstance(content, list) and len(content) == 2 and all(_is_float(part) for part in content)
    if kind == "float":
        return type(content) is str and content in FLOATS
    if kind == "scalar":
        return type(content) is not int or content.bit_length() <= MOST_BITS
    return kind == "tensor" and isinstance(content, str)


def _is_float(outline: Any) -> bool:
    return type(outline) is float or (
        isinstance(outline, dict) and list(outline) == ["float"] and _is_leaf("float", outline["float"])
    )


def _inside(kind: str, content: Any, path: tuple) -> Iterator[tuple[str, str, Any]]:
    if not isinstance(content, list):
        raise ValueError(f"{join(path)!r}: what is in a {kind} must be listed")
    if kind in ("dict", "record"):
        keys = (str,) if kind == "record" else (str, int)
        for pair in content:
            if not (isinstance(pair, list) and len(pair) == 2 and type(pair[0]) in keys):
                raise ValueError(f"{join(path)!r}: a {kind} must list pairs of a key and what it holds")
        if len({pair[0] for pair in content}) < len(content):
            raise ValueError(f"{join(path)!r}: a key comes twice")
    for name, child in pairs_of(kind, content):
        yield from _leaves(child, (*path, name))


def is_number_or_text(outline: Any) -> bool:
    """Return whether an outline is that of a number, a string or None.

    >>> is_number_or_text({"float": "nan"}), is_number_or_text({"list": []})
    (True, False)
    """
    if isinstance(outline, list) or (isinstance(outline, dict) and len(outline) != 1):
        return False
    kind, content = node_of(outline)
    return kind != "tensor" and _is_leaf(kind, content)
