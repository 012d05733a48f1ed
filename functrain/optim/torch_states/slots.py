"""What torch.optim calls what our pieces keep of a parameter, and the way through the state of a transform."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from functrain import tree
from functrain.errors import InvalidArgument
from functrain.optim.quasi_newton.curvature import Memory
from functrain.optim.transform import Transform

_MOMENTS = {"mean": "exp_avg", "square": "exp_avg_sq"}

SLOTS: dict[str, dict[str, str]] = {
    "trace": {"buffer": "momentum_buffer"},
    "ema": {"mean": "momentum_buffer"},
    "scale_by_adam": _MOMENTS,
    "scale_by_amsgrad": _MOMENTS | {"largest": "max_exp_avg_sq"},
    "scale_by_adamax": {"mean": "exp_avg", "largest": "exp_inf"},
    "scale_by_nadam": _MOMENTS | {"product": "mu_product"},
    "scale_by_radam": _MOMENTS,
    "scale_by_rss": {"square": "sum"},
    "scale_by_adadelta": {"square": "square_avg", "change": "acc_delta"},
    "scale_by_rms": {"square": "square_avg"},
    "scale_by_stddev": {"square": "square_avg", "mean": "grad_avg"},
    "scale_by_rprop": {"sign": "prev", "size": "step_size"},
    "scale_by_factored_rms": {"row": "row_var", "column": "col_var", "square": "variance"},
    "average_iterates": {"average": "ax"},
    "scale_by_inverse_time": {},
    "scale_by_falling_rate": {},
    "scale_by_relative_step": {},
}
"""The pieces of which torch.optim has the like -> what they keep -> its name. What counts is "count" and "step"."""

UNCOUNTED = {"sum", "square_avg", "prev"}
"""Where torch.optim keeps one of these, it keeps a "step" too, which we do not: it changes nothing, but for Adagrad's
`lr_decay`, for which we count."""

ALL = "SGD, ASGD, Adam, AdamW, Adamax, NAdam, RAdam, Adagrad, Adadelta, RMSprop, Rprop, Adafactor, Muon and LBFGS"

Visit = Callable[[Transform, Any, Sequence[str]], Any]
"""(a piece, its state, the paths of the parameters that it sees) -> what stands in place of its state."""


def visit(transform: Transform, state: Any, paths: Sequence[str], f: Visit) -> Any:
    """Return the state with f of each piece's state in its place.

    Raises:
        InvalidArgument: the state is another transform's, or that of a wrapper, or of a piece that torch.optim has not.
    """
    pieces = transform.pieces
    if isinstance(pieces, Transform):
        return visit(pieces, state, paths, f)
    if isinstance(pieces, Mapping) and isinstance(state, dict) and pieces.keys() == state.keys():
        return {name: visit(piece, state[name], _own(state[name], paths), f) for name, piece in pieces.items()}
    if isinstance(pieces, tuple) and type(state) is tuple and len(pieces) == len(state):
        return tuple(visit(piece, one, paths, f) for piece, one in zip(pieces, state, strict=True))
    if state == () and not pieces:
        return ()
    if isinstance(state, Memory) or (isinstance(state, dict) and state.keys() - {"count"} == _kept_by(transform)):
        return f(transform, state, paths)
    raise InvalidArgument(_refusal(transform, state))


def _kept_by(transform: Transform) -> set[str] | None:
    return set(SLOTS[transform.label]) if isinstance(transform.label, str) and transform.label in SLOTS else None


def _own(state: Any, paths: Sequence[str]) -> Sequence[str]:
    """Return the paths of a group's parameters, as far as its slots tell."""
    if isinstance(state, tuple):
        state = next((one for one in state if isinstance(one, dict) and any(map(_is_slot, one.values()))), None)
    slots = [slot for slot in state.values() if _is_slot(slot)] if isinstance(state, dict) else []
    return tree.paths(slots[0]) if slots else paths


def _is_slot(slot: Any) -> bool:
    return not isinstance(slot, Tensor)


def _refusal(transform: Transform, state: Any) -> str:
    if isinstance(transform.pieces, tuple | Mapping) or _kept_by(transform) is not None:
        return f"the state is not of {transform!r}; give the one that its init or its last step returned"
    if isinstance(state, dict) and isinstance(transform.label, str):
        keeps = ", ".join(name for name in state if name != "count") or "count"
        return f"torch.optim has the states of {ALL}, and {transform!r} keeps {keeps}"
    held = type(state).__name__ if tree.is_node(type(state)) else f"that of {transform!r}"
    return f"the state of a chain is wanted, and this holds {held}; take the optimizer inside"
