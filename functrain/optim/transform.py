"""The transform: an optimizer, or a piece of one, as a pair of pure functions; and how transforms compose."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import schedule, tree
from functrain.dispatch_state import is_plain
from functrain.errors import DuplicateName, InvalidArgument, TreeMismatch
from functrain.late import Late
from functrain.optim.leaves import moving
from functrain.schedule import Hyper, Number


@tree.node
class Context(Late):
    """What a transform may look at besides gradients, parameters and its own state.

    Attributes:
        position: the fraction of training done, in [0, 1].
        updates: updates of the parameters that the whole optimizer made, from 0; the same for all its pieces.
        epoch: epochs completed, with their fraction.
        step: batches done, from 0; where some batches make no update (see `updates_made`), `updates` is less.
        key: the run's root random key, or None; a transform that draws folds in `step` and a name of its own.
        loss: the loss of this batch, a scalar.
        weight: the sum of the weights of this batch's examples, by which `accumulate` averages.

    >>> Context(position=0.5).updates
    0
    """

    position: float | Tensor = 0.0
    updates: int | Tensor = 0
    epoch: float | Tensor = 0.0
    step: int | Tensor = 0
    key: Tensor | None = None
    loss: float | Tensor = 0.0
    weight: float | Tensor = 1.0


@attrs.frozen
class Transform:
    """A pure function of gradients with state; `chain` composes them.

    Attributes:
        init: params -> the state, a tree of tensors; `()` for none.
        update: (updates, state, params, context) -> (updates, state). The last updates are *added* to the parameters.
        hypers: its hyperparameters by name, each a number or a schedule.
        move: None, or a shortcut (updates, state, params, context) -> (params, state): `update` with its result added
            to the parameters in one operation, and like `apply_updates` it refuses other structures and shapes. See
            `moved`.
        made: None where each call of `update` makes an update of the parameters; or state -> how many were made up to
            this state, an int64 scalar, where a call may make none, as in `accumulate`. A call that makes none gives
            updates of zero. See `updates_made`.
    """

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any, Context], tuple[Any, Any]]
    hypers: Mapping[str, Hyper] = attrs.field(factory=dict)
    move: Callable[[Any, Any, Any, Context], tuple[Any, Any]] | None = None
    made: Callable[[Any], Tensor] | None = None


def stateless(f: Callable[[Any, Any, Context], Any], hypers: Mapping[str, Hyper] | None = None) -> Transform:
    """Return the transform of a pure function that keeps nothing.

    Args:
        f: (updates, params, context) -> updates.
        hypers: the hyperparameters that it reads, by name.

    >>> signs = stateless(lambda updates, params, context: tree.map(torch.sign, updates))
    >>> signs.update({"w": torch.tensor([-3.0, 2.0])}, (), {"w": torch.zeros(2)}, Context())
    ({'w': tensor([-1.,  1.])}, ())
    """

    def update(updates: Any, state: Any, params: Any, context: Context) -> tuple[Any, Any]:
        return f(updates, params, context), state

    return Transform(lambda params: (), update, dict(hypers or {}))


identity: Transform = stateless(lambda updates, params, context: updates)
"""The transform that changes nothing: chained before or after another one it makes no difference."""


def chain(*transforms: Transform) -> Transform:
    """Return the transforms one after another as one: the updates of each go into the next.

    Chaining is associative, and `identity` (or `chain()`) is its identity. The state is the tuple of their states.
    Where a piece makes no update (see `updates_made`), the pieces after it do not run: their states stay, and the
    updates are zero, so that weight decay or momentum after `accumulate` counts its updates and not its batches.

    Args:
        *transforms: the pieces, in the order in which the gradients pass them.

    Raises:
        DuplicateName: two pieces have a hyperparameter of one name; `named` tells them apart.
        InvalidArgument: something is no transform.
        TreeMismatch: in `update`, when the gradients have not the structure and the shapes of the parameters.

    See also: `by_path`, which is the other way to compose: side by side.

    >>> from functrain import optim
    >>> both = chain(optim.add_decayed_weights(0.5), optim.scale_by_learning_rate(0.1))
    >>> params = {"w": torch.tensor([2.0])}
    >>> both.update({"w": torch.tensor([1.0])}, both.init(params), params, Context())
    ({'w': tensor([-0.2000])}, ((), ()))
    """
    for index, transform in enumerate(transforms):
        _check_transform(transform, f"piece {index} of the chain")

    def init(params: Any) -> tuple:
        return tuple(transform.init(params) for transform in transforms)

    def update(updates: Any, state: tuple, params: Any, context: Context) -> tuple[Any, tuple]:
        check_form(updates, params, "the gradients")
        if gate is None:
            return _through(updating, updates, state, params, context)
        return _through_gates(transforms, updates, state, params, context)

    def move(updates: Any, state: tuple, params: Any, context: Context) -> tuple[Any, tuple]:
        if len(ending) > 1:  # one that is alone looks at what it is given itself
            check_form(updates, params, "the gradients")
        return _through(ending, updates, state, params, context)

    updating = tuple(transform.update for transform in transforms)
    gate = max((index for index, transform in enumerate(transforms) if transform.made is not None), default=None)
    last = transforms[-1].move if transforms and gate is None else None
    ending: Any = (*updating[:-1], last)
    counted = None if gate is None else transforms[gate].made
    made = None if gate is None or counted is None else lambda state: counted(state[gate])
    return Transform(init, update, _merge_hypers(transforms), None if last is None else move, made)


def _through(
    pieces: tuple[Callable, ...], updates: Any, state: tuple, params: Any, context: Context
) -> tuple[Any, tuple]:
    states = []
    for piece, before in zip(pieces, state, strict=True):
        updates, after = piece(updates, before, params, context)
        states.append(after)
    return updates, tuple(states)


def _through_gates(
    pieces: tuple[Transform, ...], updates: Any, state: tuple, params: Any, context: Context
) -> tuple[Any, tuple]:
    if not pieces:
        return updates, ()
    updates, after = pieces[0].update(updates, state[0], params, context)
    happened = has_updated(pieces[0], state[0], after)

    def rest() -> tuple[Any, tuple]:
        return _through_gates(pieces[1:], updates, state[1:], params, context)

    changed, others = rest() if happened is None else only_where(happened, rest, updates, state[1:])
    return changed, (after, *others)


def only_where(happens: Tensor, f: Callable[[], tuple[Any, Any]], updates: Any, state: Any) -> tuple[Any, Any]:
    """Return f(), a pair (updates, state), where a condition holds; elsewhere updates of zero, and the state as it is.

    >>> only_where(torch.tensor(False), lambda: ({"w": torch.ones(1)}, ()), {"w": torch.ones(1)}, ())
    ({'w': tensor([0.])}, ())
    """
    if is_plain() and happens.device.type == "cpu" and not happens:
        return tree.zeros_like(updates), state  # spares the computation; the same bits as the choice below
    made, after = f()
    return (
        tree.map(lambda u: torch.where(happens, u, torch.zeros_like(u)), made),
        tree.map(lambda new, old: torch.where(happens, new, old), after, state),
    )


def updates_made(transform: Transform, opt_state: Any) -> Tensor | None:
    """Return how many updates of the parameters a transform made up to this state; None where each call makes one.

    What one call made is the difference between the state after it and the state before it. A training loop counts
    `TrainState.updates` so, and gives that count to all pieces as `Context.updates`: schedules by updates, inside and
    outside of `accumulate`, read the updates that were made.

    Args:
        transform: the transform, the whole optimizer or a piece of it.
        opt_state: its state.

    >>> from functrain import optim
    >>> transform, params = optim.accumulate(2, optim.sgd(0.1)), {"w": torch.ones(1)}
    >>> state = transform.init(params)
    >>> for batch in range(5):
    ...     _, state = transform.update(params, state, params, Context(updates=updates_made(transform, state)))
    >>> updates_made(transform, state), updates_made(optim.sgd(0.1), ((),))
    (tensor(2), None)
    """
    return None if transform.made is None else transform.made(opt_state)


def has_updated(transform: Transform, before: Any, after: Any) -> Tensor | None:
    """Return whether the call between two states made an update, a boolean scalar; None where each call makes one.

    >>> has_updated(identity, (), ()) is None
    True
    """
    return None if transform.made is None else transform.made(after) != transform.made(before)


def named(name: str, transform: Transform) -> Transform:
    """Return the transform with its hyperparameters called `name.hyper`, so that two like it fit into one chain.

    >>> from functrain import optim
    >>> sorted(chain(named("first", optim.scale(0.5)), named("second", optim.scale(0.1))).hypers)
    ['first.factor', 'second.factor']
    """
    hypers = {f"{name}.{hyper}": value for hyper, value in transform.hypers.items()}
    return attrs.evolve(transform, hypers=hypers)


def moved(transform: Transform, updates: Any, state: Any, params: Any, context: Context) -> tuple[Any, Any]:
    """Return the parameters after an update, and the state: what a training step does with gradients.

    >>> from functrain import optim
    >>> moved(optim.sgd(lr=0.5), {"w": torch.tensor([2.0])}, ((),), {"w": torch.tensor([4.0])}, Context())
    ({'w': tensor([3.])}, ((),))
    """
    if transform.move is not None:
        return transform.move(updates, state, params, context)
    updates, state = transform.update(updates, state, params, context)
    return apply_updates(params, updates), state


def apply_updates(params: Any, updates: Any) -> Any:
    """Return the parameters with the updates added, each in its parameter's dtype.

    Raises:
        TreeMismatch: the updates have not the structure and the shapes of the parameters.

    >>> apply_updates({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([0.5, -0.5])})
    {'w': tensor([1.5000, 1.5000])}
    """
    return stepped(params, updates, 1, "the updates")


def stepped(params: Any, updates: Any, factor: Number, what: str) -> Any:
    """Return the tree of params + factor * updates, each in its parameter's dtype; `what` names the updates in errors.

    >>> stepped({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([2.0, 2.0])}, -0.5, "the gradients")
    {'w': tensor([0., 1.])}
    """
    try:
        return tree.map(moving(factor), params, updates)
    except TreeMismatch:
        check_form(updates, params, what)
        raise


def hyperparameters(transform: Transform, progress: Any = None) -> dict[str, Any]:
    """Return the current value of every hyperparameter of a transform by name.

    Args:
        transform: the transform.
        progress: a `Context` or a `schedule.Progress`; None for the beginning of training.

    >>> from functrain import optim
    >>> hyperparameters(optim.sgd(lr=schedule.linear(0.1, 0.3), momentum=0.9), Context(position=0.5))
    {'momentum': 0.9, 'lr': 0.2}
    """
    progress = Context() if progress is None else progress
    return {name: schedule.value(hyper, progress) for name, hyper in transform.hypers.items()}


def check_form(updates: Any, params: Any, what: str) -> None:
    """Raise `TreeMismatch` unless the updates have the structure of the parameters, and its shapes.

    >>> check_form({"w": torch.zeros(2, 1)}, {"w": torch.zeros(2)}, "the gradients")
    Traceback (most recent call last):
        ...
    functrain.errors.TreeMismatch: the gradients must have the structure of the parameters, but:
      w: expected float32(2,), got float32(2, 1)
    """
    # Shapes as well: those that broadcast would pass through the arithmetic and give wrong parameters silently.
    if not _same_form(updates, params):
        tree.check_same(params, updates, what, "the parameters")
        raise TreeMismatch(f"{what} differ from the parameters in the types of their branches")


def _same_form(a: Any, b: Any) -> bool:
    if type(a) is dict:
        return type(b) is dict and a.keys() == b.keys() and False not in [_same_form(a[key], b[key]) for key in a]
    if type(a) is Tensor:
        return isinstance(b, Tensor) and a.shape == b.shape
    try:
        same = tree.map(lambda x, y: getattr(x, "shape", None) == getattr(y, "shape", None), a, b)
    except TreeMismatch:
        return False
    return all(tree.leaves(same))


def with_state(f: Callable, updates: Any, state: Any) -> Any:
    """Return `tree.map(f, updates, state)`, where a difference is explained as one of the optimizer's state."""
    try:
        return tree.map(f, updates, state)
    except TreeMismatch:
        tree.check_same(
            updates, state, "the optimizer state", "the gradients (was it made by init for other parameters?)"
        )
        raise


def with_params(f: Callable, updates: Any, params: Any) -> Any:
    """Return `tree.map(f, updates, params)`, where a difference is explained as one of gradients and parameters."""
    try:
        return tree.map(f, updates, params)
    except TreeMismatch:
        tree.check_same(params, updates, "the gradients", "the parameters")
        raise


def counter(params: Any) -> Tensor:
    """Return a zero to count from, an int64 scalar on the device of the parameters.

    >>> counter({"w": torch.ones(2)})
    tensor(0)
    """
    return torch.zeros((), dtype=torch.int64, device=device(params))


def device(params: Any) -> torch.device | None:
    """Return the device of the first tensor of a tree, None when there is none."""
    return next((leaf.device for leaf in tree.leaves(params) if isinstance(leaf, Tensor)), None)


def _check_transform(transform: Any, what: str) -> None:
    if not isinstance(transform, Transform):
        hint = "; call it to make one" if callable(transform) else ""
        raise InvalidArgument(f"{what} must be a Transform, got {transform!r}{hint}")


def _merge_hypers(transforms: tuple[Transform, ...]) -> dict[str, Hyper]:
    owner, merged = {}, {}
    for index, transform in enumerate(transforms):
        for name, hyper in transform.hypers.items():
            if name in owner:
                raise DuplicateName(
                    f"pieces {owner[name]} and {index} of the chain both have a hyperparameter {name!r}; "
                    "wrap one of them: named('some name', piece)"
                )
            owner[name], merged[name] = index, hyper
    return merged
