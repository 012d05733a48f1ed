"""What of a program is a library, and what is the user's own: only the user's own code is rebound while it runs.

A library is what is installed: the standard library, functrain, PyTorch, and all in `site-packages`. Its functions are
walked through for what they were given (a wrapper's function, a partial's arguments); their globals are not looked at.
"""

import dis
import functools
import os
import sys
import sysconfig
import types

import attrs
import toolz
import torch

_HERE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_FOLDERS = (
    *(os.path.join(sysconfig.get_paths()[k], "") for k in ("stdlib", "platstdlib", "purelib", "platlib")),
    *(os.path.join(os.path.dirname(os.path.abspath(m.__file__)), "") for m in (torch, toolz, attrs)),  # pyright: ignore
    os.path.join(_HERE, ""),
    "<frozen ",
    "<attrs ",
    "<functrain ",
    "<__array_function__",
)

_OPAQUE = sys.stdlib_module_names | {"torch", "numpy", "builtins"}
_OPEN = (
    *("types.SimpleNamespace", "argparse.Namespace", "_thread._local"),
    *("torch.distributions.", "torch.optim.", "torch.utils.data."),
)


@functools.lru_cache(maxsize=4096)
def is_library_file(file: str) -> bool:
    """Return whether code that was compiled from this file belongs to a library.

    >>> is_library_file(os.__file__), is_library_file("<stdin>")
    (True, False)
    """
    return file.startswith(_FOLDERS) or "/site-packages/" in file or "/dist-packages/" in file


def is_library_module(name: str) -> bool:
    """Return whether the module of this name belongs to a library.

    >>> is_library_module("os"), is_library_module("__main__")
    (True, False)
    """
    file = getattr(sys.modules.get(name), "__file__", None)
    if isinstance(file, str):
        return name != "__main__" and is_library_file(file)
    top = name.partition(".")[0]
    return top in _OPAQUE and top != "__main__"


def is_library_class(kind: type) -> bool:
    """Return whether a class belongs to a library.

    >>> is_library_class(dict), is_library_class(type("Own", (), {"__module__": "__main__"}))
    (True, False)
    """
    return is_library_module(getattr(kind, "__module__", None) or "builtins")


def is_opaque(kind: type) -> bool:
    """Return whether the objects of a class are taken as they are, whatever is in them.

    These are the objects of the standard library, NumPy and PyTorch (locks, loggers, files, operators, streams) that
    are no containers: what they hold is theirs, changes at any time, and can be all of the process. So are objects of
    a class with `opaque_to_jit`, which says that nothing they hold ever changes. (A class of functrain with `memo_of`
    remembers what came of the attributes named there, and is looked through to these alone.)

    >>> import argparse, logging
    >>> is_opaque(logging.Logger), is_opaque(argparse.Namespace), is_opaque(torch.nn.Linear)
    (True, False, False)
    """
    if getattr(kind, "opaque_to_jit", False) is True:
        return True
    if not is_library_class(kind) or issubclass(kind, torch.nn.Module):
        return False
    name = f"{kind.__module__}.{kind.__qualname__}"
    return kind.__module__.partition(".")[0] in _OPAQUE and not name.startswith(_OPEN)


@attrs.frozen
class Names:
    """What a code object, with the functions defined in it, asks for by name.

    Attributes:
        variables: the global variables that it reads.
        attributes: what may be the name of an attribute or of a module; strings too, for `getattr`.
    """

    variables: tuple[str, ...]
    attributes: tuple[str, ...]


@functools.lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> Names:
    """Return the names that a code object asks for.

    `co_names` does not tell a global variable from an attribute of the same name, and a program that has a global
    `loss` and a function that reads `step.loss` is not unusual; the instructions tell.

    >>> names_in((lambda x: x.shape[size]).__code__)
    Names(variables=('size',), attributes=('shape', 'size'))
    """
    variables = [i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
    attributes = [*code.co_names]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = names_in(constant)
            variables += inner.variables
            attributes += inner.attributes
        elif isinstance(constant, str) and constant.isidentifier():
            attributes.append(constant)
    return Names(tuple(dict.fromkeys(variables)), tuple(sorted({*attributes})))
