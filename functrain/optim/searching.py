"""What a state holds inside of other states."""

from typing import Any, TypeVar

import attrs

T = TypeVar("T")


def search(opt_state: Any, *kinds: type[T]) -> list[T]:
    """Return the records of these classes in a state, the outermost ones, in its order.

    >>> from functrain import optim
    >>> state = optim.chain(optim.identity, optim.lookahead(2, 0.5, optim.sgd(0.1))).init({})
    >>> len(search(state, optim.LookedAhead))
    1
    """
    if isinstance(opt_state, kinds):
        return [opt_state]
    parts: Any = ()
    if isinstance(opt_state, dict):
        parts = opt_state.values()
    elif isinstance(opt_state, (list, tuple)):
        parts = opt_state
    elif attrs.has(type(opt_state)):
        parts = [getattr(opt_state, field.name) for field in attrs.fields(type(opt_state))]
    return [record for part in parts for record in search(part, *kinds)]
