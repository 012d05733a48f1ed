"""Records whose fields are computed when one of them is first looked at: for what each step offers and few look at."""

from collections.abc import Callable
from typing import Any, Self

_BY = "computed by"


class Late:
    """What a frozen record inherits from, so that it can be made late.

    >>> import attrs
    >>> @attrs.frozen(slots=False)
    ... class Place(Late):
    ...     x: float
    ...     y: float
    >>> place = Place.late(lambda: print("looked at") or Place(1, 2))
    >>> place.x, place.y
    looked at
    (1, 2)
    """

    @classmethod
    def late(cls, compute: Callable[[], Self]) -> Self:
        """Return the record that `compute` returns, which is called once, and only if a field is looked at."""
        record = object.__new__(cls)
        vars(record)[_BY] = compute
        return record

    def pending(self) -> Callable[[], Any] | None:
        """Return what will compute this record, None when it is there."""
        return vars(self).get(_BY)

    def __getattr__(self, name: str) -> Any:
        """Return a field that is not there yet; Python asks here for what it does not find, and for nothing else."""
        fields = self.__getstate__()
        if name not in fields:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return fields[name]

    def __getstate__(self) -> dict[str, Any]:
        """Return all fields; `pickle` and `copy` ask here, and could do little with what computes them."""
        fields = vars(self)
        if _BY in fields:
            fields.update(vars(fields[_BY]()))
            del fields[_BY]
        return fields
