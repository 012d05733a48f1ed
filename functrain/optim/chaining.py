"""Transforms one after another."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from functrain.errors import DuplicateName, InvalidArgument
from functrain.optim.context import Context
from functrain.optim.counting import has_updated, only_where
from functrain.optim.fused import fast_path
from functrain.optim.shapes import check_gradients
from functrain.optim.transform import Transform, check_transform, named
from functrain.optim.wrappers.accumulation import refuse_sums
from functrain.schedule import Hyper


def chain(*transforms: Transform) -> Transform:
    """Return the transforms one after another as one: the updates of each go into the next.

    Chaining is associative, and `identity` (or `chain()`) is its identity. The state is the tuple of their states.
    Where a piece makes no update (see `updates_made`), the pieces after it do not run: their states stay, and the
    updates are zero, so that weight decay or momentum after `accumulate` counts its updates and not its batches.

    Args:
        *transforms: the pieces, in the order in which the gradients pass them.

    Raises:
        DuplicateName: two pieces have a hyperparameter of one name; `named` tells them apart.
        InvalidArgument: something is no transform. In `init`, a piece needs the loss, `evaluate` or the examples of a
            batch after another one accumulates.
        TreeMismatch: in `update`, when the gradients have not the structure and the shapes of the parameters.

    See also: `partition`, which is the other way to compose: side by side.

    >>> import torch
    >>> from functrain import optim
    >>> both = chain(optim.add_decayed_weights(0.5), optim.scale_by_learning_rate(0.1))
    >>> params = {"w": torch.tensor([2.0])}
    >>> both.update({"w": torch.tensor([1.0])}, both.init(params), params)
    ({'w': tensor([-0.2000])}, ((), ()))
    """
    for index, transform in enumerate(transforms):
        check_transform(transform, f"piece {index} of the chain")

    def init(params: Any) -> tuple:
        states = tuple(transform.init(params) for transform in transforms)
        _check_sums(transforms, states)
        return states

    def update(updates: Any, state: tuple, params: Any, context: Context) -> tuple[Any, tuple]:
        check_gradients(updates, params)
        if gate is None:
            return _through(updating, updates, state, params, context)
        return _through_gates(transforms, updates, state, params, context)

    def fused(updates: Any, state: tuple, params: Any, context: Context) -> tuple[Any, tuple]:
        if len(state) != len(transforms):
            raise ValueError("the state is not of so many pieces")  # in words: `explain_failure`
        if begin:
            check_gradients(updates, params)
        updates, before = _through(updating[:begin], updates, state[:begin], params, context)
        done = None if path is None else path(updates, state[begin:], params, context)
        if done is None:
            if len(ending) > 1:  # one that is alone looks at the gradients itself
                check_gradients(updates, params)
            done = _through(ending[begin:], updates, state[begin:], params, context)
        return done[0], (*before, *done[1])

    updating = tuple(transform.update for transform in transforms)
    gate = max((index for index, transform in enumerate(transforms) if transform.made is not None), default=None)
    last = transforms[-1].fused if transforms and gate is None else None
    ending: Any = (*updating[:-1], last)
    begin, path = (0, None) if last is None else fast_path(transforms)
    counted = None if gate is None else transforms[gate].made
    return Transform(
        init,
        update,
        _merge_hypers(transforms),
        fused=None if last is None else fused,
        made=None if gate is None or counted is None else lambda state: counted(state[gate]),
        needs=tuple(need for transform in transforms for need in transform.needs),
        label=lambda: f"chain({', '.join(map(repr, transforms))})",
        pieces=transforms,
    )


def named_chain(transforms: Mapping[str, Transform]) -> Transform:
    """Return the transforms one after another, as `chain` does, with names.

    The state is a dict by name, and the hyperparameter "lr" of the piece "sgd" is called "sgd.lr"; so pieces with
    hyperparameters of one name need no `named`.

    Args:
        transforms: the pieces by name, in the order in which the gradients pass them.

    Raises:
        InvalidArgument: a name is no string, or a piece no transform.

    >>> from functrain import optim
    >>> both = named_chain({"clip": optim.clip_by_global_norm(1.0), "descent": optim.sgd(0.1, momentum=0.9)})
    >>> list(both.hypers), list(both.init({}))
    (['clip.max_norm', 'descent.momentum', 'descent.lr'], ['clip', 'descent'])
    """
    if not isinstance(transforms, Mapping):
        raise InvalidArgument(f"named_chain needs a dict of transforms by name, got {transforms!r}")
    for name, transform in transforms.items():
        if not isinstance(name, str):
            raise InvalidArgument(f"the pieces of named_chain must have strings as names, got {name!r}")
        check_transform(transform, f"piece {name!r} of named_chain")
    names, pieces = list(transforms), chain(*(named(name, piece) for name, piece in transforms.items()))
    fused, made = pieces.fused, pieces.made

    def by_name(f: Callable[..., tuple[Any, tuple]]) -> Callable[..., tuple[Any, dict]]:
        def call(updates: Any, state: dict, params: Any, context: Context) -> tuple[Any, dict]:
            after, states = f(updates, _in_order(names, state), params, context)
            return after, dict(zip(names, states, strict=True))

        return call

    return attrs.evolve(
        pieces,
        init=lambda params: dict(zip(names, pieces.init(params), strict=True)),
        update=by_name(pieces.update),
        fused=None if fused is None else by_name(fused),
        made=None if made is None else lambda state: made(_in_order(names, state)),
        label=lambda: f"named_chain({', '.join(f'{name}={t!r}' for name, t in transforms.items())})",
        pieces=dict(transforms),
    )


def _in_order(names: list[str], state: dict) -> tuple:
    return tuple(state[name] for name in names)


def alias(label: str, *pieces: Transform | None) -> Transform:
    """Return the chain of the pieces that are not None, as an optimizer with a name of its own.

    >>> from functrain import optim
    >>> alias("signs", optim.trace(0.9), None, optim.scale_by_learning_rate(0.1))
    signs(lr=0.1, momentum=0.9)
    """
    return attrs.evolve(chain(*(piece for piece in pieces if piece is not None)), label=label)


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


_OF_ONE_BATCH = {"evaluate": "the loss of other parameters", "examples": "the examples", "loss": "the loss"}


def _check_sums(transforms: tuple[Transform, ...], states: tuple) -> None:
    """Refuse a piece that looks at more than the gradient after one whose updates are of several batches."""
    for index, state in enumerate(states):
        for later in transforms[index + 1 :]:
            seen = [what for need, what in _OF_ONE_BATCH.items() if need in later.needs]
            if seen:
                refuse_sums(
                    state,
                    f"chain: {later!r} looks at {seen[0]} of a batch, and after {transforms[index]!r} that is the last "
                    "one alone, beside the gradient of several; put it inside: accumulate(k, chain(...))",
                )


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
