"""Where an error happened: combinators add the names of the layers on its way up."""

from collections.abc import Iterator
from contextlib import contextmanager

from functrain.errors import FunctrainError


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

    >>> from functrain.errors import ShapeMismatch
    >>> error = ShapeMismatch("too wide")
    >>> locate(error, "0")
    >>> locate(error, "encoder")
    >>> str(error)
    'in layer encoder.0: too wide'
    """
    held = vars(error)
    message = held.setdefault("message_of_layer", str(error))
    path = held["path_of_layer"] = (name, *held.get("path_of_layer", ()))
    where = f"in layer {'.'.join(path)}"
    if isinstance(error, FunctrainError):
        error.args = (f"{where}: {message}",)
    else:
        others = [note for note in getattr(error, "__notes__", []) if note != held.get("note_of_layer")]
        error.__notes__ = [*others, where]
        held["note_of_layer"] = where
