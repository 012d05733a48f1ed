"""The transform: an optimizer, or a piece of one, as a pair of pure functions."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from torch import Tensor

from functrain import foreign, schedule, tree
from functrain.errors import FunctrainError, InvalidArgument, TreeMismatch
from functrain.optim.context import BEGINNING, Context, check_has, check_needs
from functrain.optim.shapes import are_alike, check_dense, check_kinds
from functrain.records import pickling, reprs
from functrain.schedule import Hyper

Update = Callable[[Any, Any, Any, Context], tuple[Any, Any]]


@attrs.frozen
class Primitive:
    """What the fast paths of chains have to know of a piece that they may stand for.

    Attributes:
        name: which primitive it is.
        update: what it does; a transform that does something else is not this primitive.
        hypers: its hyperparameters by the names that the primitive gives them.
        flag: what else its formula depends on.
    """

    name: str
    update: Callable
    hypers: Mapping[str, Any]
    flag: bool = False


@attrs.frozen(repr=False)
class Transform:
    """A pure function of gradients with state; `chain` composes them.

    Attributes:
        init: params -> the state, a tree of tensors; `()` for none.
        update: (updates, state, params, context) -> (updates, state). The last updates are *added* to the parameters.
            The context may be left out where the transform needs nothing of it.
        hypers: its hyperparameters by name, each a number or a schedule.
        fused: None, or a fast path of `step`: (gradients, state, params, context) -> (params, state), which must equal
            `update` and then `apply_updates`, refusals included. Where an update is not finite it may differ in this:
            an infinite parameter stays what it is, where adding makes it NaN; and where nothing but the update
            overflows, the parameter may be finite.
        made: None where each call of `update` makes an update of the parameters; or state -> how many were made up to
            this state, an int64 scalar, where a call may make none, as in `accumulate`. A call that makes none gives
            updates of zero. See `updates_made`.
        needs: which of the context's "evaluate", "examples", "key", "loss" and "loss_scale" it cannot do without; an
            update by hand without them is an error, and a training step supplies them to those alone that need them.
        label: its repr: a name, which its hyperparameters follow, or a function that returns all of it.
        primitive: for the fast paths of chains (`optim.fused`): which of functrain's formulas it is. None for others.
        pieces: for what goes through states (`from_torch`): the transforms whose states are in its state, in the same
            tuple or dict; or the one whose state is its state. None for others.

    Raises:
        InvalidArgument: `needs` names something else; or in `update`, the context lacks what the transform needs.

    >>> from functrain import optim
    >>> optim.sgd(lr=0.1)
    sgd(lr=0.1)
    """

    init: Callable[[Any], Any]
    _update: Update = attrs.field(alias="update")
    hypers: Mapping[str, Hyper] = attrs.field(factory=dict)
    fused: Update | None = None
    made: Callable[[Any], Tensor] | None = None
    needs: tuple[str, ...] = attrs.field(default=(), converter=check_needs)
    label: str | Callable[[], str] = "transform"
    primitive: Primitive | None = None
    pieces: Any = None

    def update(self, updates: Any, state: Any, params: Any, context: Context = BEGINNING) -> tuple[Any, Any]:
        """Return the updates made of gradients (or of another piece's updates), and the next state."""
        if self.needs:
            check_has(context, self.needs)
        try:
            return self._update(updates, state, params, context)
        except Exception as error:
            explain_failure(self, error, updates, state, params)
            raise

    __reduce_ex__ = pickling.reduce
    __copy__ = __deepcopy__ = pickling.itself

    def __repr__(self) -> str:
        if not isinstance(self.label, str):
            return self.label()
        hypers = sorted(self.hypers.items(), key=lambda pair: pair[0] != "lr")  # as people write them: lr first
        return f"{self.label}({', '.join(f'{name}={reprs.short(hyper)}' for name, hyper in hypers)})"


def explain_failure(transform: Transform, error: Exception, updates: Any, state: Any, params: Any) -> None:
    """Raise what says why an update failed, where the gradients or the state are the reason; else return.

    Raises:
        InvalidArgument: a gradient is sparse.
        DtypeMismatch: a gradient is no tensor, or of a kind that does not fit its parameter.
        TreeMismatch: the state is of another transform, or of other parameters.
    """
    if isinstance(error, FunctrainError):
        return
    if isinstance(error, RuntimeError):
        check_dense(updates)
    check_kinds(updates, params)
    _check_own(transform, state, params)


def _check_own(transform: Transform, state: Any, params: Any) -> None:
    try:
        began = transform.init(params)
    except Exception:  # what is wrong with the parameters themselves is said by the error that came first
        return
    if are_alike(began, state):
        return
    own = f"that of {transform!r} (was it made by its init, for these parameters?)"
    tree.check_same(began, state, "the optimizer state", own)
    raise TreeMismatch(f"the optimizer state must have the structure of {own}, and differs in its branches")


def stateless(
    f: Callable[[Any, Any, Context], Any],
    hypers: Mapping[str, Hyper] | None = None,
    needs: tuple[str, ...] = (),
    label: str = "transform",
) -> Transform:
    """Return the transform of a pure function of trees that keeps nothing.

    Args:
        f: (updates, params, context) -> updates.
        hypers: the hyperparameters that it reads, by name.
        needs: what it needs of the context, see `Transform`.
        label: what its repr calls it.

    See also: `per_leaf`, for a formula of one array.

    >>> import torch
    >>> from functrain import tree
    >>> signs = stateless(lambda updates, params, context: tree.map(torch.sign, updates))
    >>> signs.update({"w": torch.tensor([-3.0, 2.0])}, (), {"w": torch.zeros(2)})
    ({'w': tensor([-1.,  1.])}, ())
    """

    def update(updates: Any, state: Any, params: Any, context: Context) -> tuple[Any, Any]:
        return f(updates, params, context), state

    return Transform(lambda params: (), update, dict(hypers or {}), needs=needs, label=label)


identity: Transform = stateless(lambda updates, params, context: updates, label="identity")
"""The transform that changes nothing: chained before or after another one it makes no difference."""


def as_primitive(name: str, transform: Transform, hypers: dict[str, Hyper], flag: bool = False) -> Transform:
    """Return a transform that the fast paths of chains know, see `Primitive`.

    >>> as_primitive("identity", identity, {}).primitive.name
    'identity'
    """
    return attrs.evolve(transform, primitive=Primitive(name, transform._update, hypers, flag))


def primitive_of(transform: Transform) -> Primitive | None:
    """Return which primitive a transform is, None where it is none or was given another `update`.

    >>> primitive_of(identity) is None
    True
    """
    primitive = transform.primitive
    return None if primitive is None or primitive.update is not transform._update else primitive


def named(name: str, transform: Transform) -> Transform:
    """Return the transform with its hyperparameters called `name.hyper`, so that two like it fit into one chain.

    >>> from functrain import optim
    >>> sorted(optim.chain(named("first", optim.scale(0.5)), named("second", optim.scale(0.1))).hypers)
    ['first.factor', 'second.factor']
    """
    if not isinstance(name, str):
        raise InvalidArgument(f"name must be a string, got {name!r}")
    hypers = {f"{name}.{hyper}": value for hyper, value in transform.hypers.items()}
    return attrs.evolve(transform, hypers=hypers, label=lambda: f"named({name!r}, {transform!r})", pieces=transform)


def hyperparameters(transform: Transform, progress: Any = None) -> dict[str, Any]:
    """Return the current value of every hyperparameter of a transform by name.

    Args:
        transform: the transform.
        progress: a `Context` or a `schedule.Progress`; None for the beginning of training.

    >>> from functrain import optim
    >>> hyperparameters(optim.sgd(lr=schedule.linear(0.1, 0.3), momentum=0.9), Context(position=0.5))
    {'momentum': 0.9, 'lr': 0.2}
    """
    check_transform(transform)
    progress = BEGINNING if progress is None else progress
    return {name: schedule.value(hyper, progress) for name, hyper in transform.hypers.items()}


def made_by(make: Any, *args: Any, **kwargs: Any) -> Transform:
    """Return what a function that makes transforms returns, after checking that it is such a function.

    >>> from functrain import optim
    >>> made_by(optim.sgd, lr=0.1)
    sgd(lr=0.1)
    """
    if isinstance(make, Transform) or not callable(make):
        raise InvalidArgument(
            f"make must be a function that returns a transform, such as optim.sgd, got {foreign.in_words(make)}"
        )
    _check_arguments(make, args, kwargs)
    return check_transform(make(*args, **kwargs), "what make returns")


def _check_arguments(make: Any, args: tuple, kwargs: dict[str, Any]) -> None:
    """Refuse arguments that a function has no place for."""
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # it has none, as some of C
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        takes = ", ".join(signature.parameters)
        raise InvalidArgument(f"{getattr(make, '__name__', 'make')}: {error}; it takes {takes}") from None


def check_transform(transform: Any, what: str = "transform") -> Transform:
    """Return a transform after checking that it is one; `what` names it in the message.

    >>> check_transform(identity)
    identity()
    """
    if not isinstance(transform, Transform):
        hint = "; call it to make one" if callable(transform) else ""
        raise InvalidArgument(f"{what} must be a Transform, got {foreign.in_words(transform)}{hint}")
    return transform
