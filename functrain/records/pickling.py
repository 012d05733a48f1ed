"""Pickling records that hold functions: where a function cannot be imported again, words instead of a riddle."""

import sys
import types
from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs

from functrain.errors import NotSavable
from functrain.records import reprs

_BY_VALUE = "cloudpickle", "dill"
"""Libraries that pickle a function's code, and so need no name to import it by."""


def reduce(self: Any, protocol: Any) -> Any:
    """Return how `pickle` takes a record of functions apart; a class takes it as its `__reduce_ex__`.

    Raises:
        NotSavable: a function of it was made inside another one, so that `pickle` could not find it again.

    >>> import pickle
    >>> from functrain import metrics
    >>> pickle.loads(pickle.dumps(metrics.accuracy))
    accuracy
    """
    for field in attrs.fields(type(self)):
        value = getattr(self, field.name)
        if not _is_importable(value) and not _is_pickled_by_value():
            raise NotSavable(
                f"{reprs.short(self)} cannot be pickled: its {field.name} is a function that was made inside another "
                "one, and pickle keeps of a function only the name to import it by. Keep the state (checkpoint.save, "
                "or pickle of a TrainState or a Run) and the code that makes the rest; or take cloudpickle"
            )
    return object.__reduce_ex__(self, protocol)


def _is_importable(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_importable, value.values()))
    if isinstance(value, partial):
        return _is_importable(value.func)
    if not isinstance(value, types.FunctionType):
        return True
    place = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        place = getattr(place, name, None)
    return place is value


def _is_pickled_by_value() -> bool:
    frame = sys._getframe(1)
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] in _BY_VALUE:
            return True
        frame = frame.f_back
    return False


def itself(self: Any, _memo: Any = None) -> Any:
    """Return the record: what `copy` makes of one that nobody can change; a class takes it as `__deepcopy__`.

    >>> itself("a")
    'a'
    """
    return self
