"""The laws of an optimizer, or of a piece of one."""

import tempfile
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from functrain import checkpoint, optim, random, tree
from functrain.errors import LawBroken, TreeMismatch
from functrain.optim import Context, Transform
from functrain.testing.functions import check_jit, check_pure
from functrain.testing.laws import Laws, break_law, hold, same

STEPS = 4


def check_transform(
    transform: Transform, params: Any = None, *, key: Tensor | None = None, skip: Collection[str] = ()
) -> tuple[str, ...]:
    """Check the laws of an optimizer or a piece of one, and return their names.

    - "init": `init` is pure; the leaves of the state are tensors, which share no memory with each other or with
      the parameters.
    - "update": `update` is pure: no gradient, state or parameter is changed, and the same key gives the same bits.
    - "structure": updates have the structure, shapes and dtypes of the parameters; the state keeps its own.
    - "jit": several steps are the same eager and compiled.
    - "identity": chained with `identity`, before or after, it makes the same updates.
    - "fused": its shortcut, if it has one, gives what `update` and then adding gives.
    - "resume": stopped after any step, saved and restored, it goes on with the same bits.

    Args:
        transform: the optimizer or the piece.
        params: the parameters to try it on, nested dicts of tensors; a matrix and a vector by default.
        key: a random key, for gradients and draws; `random.key(0)` by default.
        skip: the names of laws that it need not obey.

    Raises:
        LawBroken: a law does not hold; the message says which, and where.

    >>> check_transform(optim.adam(lr=0.1))
    ('init', 'update', 'structure', 'jit', 'identity', 'fused', 'resume')
    """
    key = random.key(0) if key is None else key
    if params is None:
        params = {"0": {"weight": random.normal(random.fold_in(key, "w"), (3, 2)), "bias": torch.zeros(2)}}
    return hold(repr(transform), transform_laws(transform, params, key), skip)


def transform_laws(transform: Transform, params: Any, key: Tensor) -> Laws:
    """Return the laws of `check_transform` by name, to be checked one by one.

    >>> transform_laws(optim.sgd(lr=0.1), {"w": torch.ones(2)}, random.key(0))["fused"]()
    """
    return {
        "init": partial(_init, transform, params),
        "update": partial(_update, transform, params, key),
        "structure": partial(_structure, transform, params, key),
        "jit": partial(_jit, transform, params, key),
        "identity": partial(_identity, transform, params, key),
        "fused": partial(_fuse, transform, params, key),
        "resume": partial(_resume, transform, params, key),
    }


def _gradients(params: Any, key: Tensor, step: int) -> Any:
    def draw(path: str, leaf: Tensor) -> Tensor:
        return random.normal(random.fold_in(key, path, step), tuple(leaf.shape)).to(leaf.dtype)

    return tree.map_with_path(draw, params)


def _context(key: Tensor, step: int, params: Any, gradients: Any) -> Context:
    loss = 1.0 / (step + 1)

    def evaluate(other: Any) -> tuple[Tensor, Any]:
        # A paraboloid with these gradients at these parameters.
        away = tree.map(lambda b, a: b - a, other, params)
        heights = tree.map(lambda d, g: (d * (g + d / 2).conj()).real.double().sum(), away, gradients)
        total = sum(tree.leaves(heights), torch.zeros((), dtype=torch.float64, device=key.device))
        return loss + total, tree.map(lambda d, g: g + d, away, gradients)

    return Context(
        position=step / STEPS,
        updates=step,
        epoch=step / 2,
        step=step,
        key=random.fold_in(key, step),
        loss=loss,
        evaluate=evaluate,
        examples=_examples(key, gradients),
        loss_scale=torch.ones((), device=key.device),
    )


def _examples(key: Tensor, gradients: Any) -> optim.Examples:
    """Return the gradients of three examples whose mean is this one."""

    def draw(path: str, g: Tensor) -> Tensor:
        noise = random.normal(random.fold_in(key, "examples", path), (2, *g.shape)).to(g.dtype)
        return torch.cat([g + noise, (g - noise.sum(0))[None]])

    return optim.Examples(tree.map_with_path(draw, gradients), torch.tensor(3.0, device=key.device), gradients)


def _update_at(
    transform: Transform, params: Any, state: Any, key: Tensor, step: int, gradients: Any = None
) -> tuple[Any, Any]:
    gradients = _gradients(params, key, step) if gradients is None else gradients
    return transform.update(gradients, state, params, _context(key, step, params, gradients))


def _steps(transform: Transform, params: Any, state: Any, key: Tensor, steps: range) -> tuple[Any, Any]:
    for step in steps:
        updates, state = _update_at(transform, params, state, key, step)
        params = optim.apply_updates(params, updates)
    return params, state


def _init(transform: Transform, params: Any) -> None:
    state = check_pure(transform.init, params)
    memories = {leaf.untyped_storage().data_ptr() for leaf in tree.leaves(params)}
    for path, leaf in tree.leaves_with_path(state):
        if not isinstance(leaf, Tensor):
            break_law(f"the state must be tensors, {path} is a {type(leaf).__name__}")
        memory = leaf.untyped_storage().data_ptr()
        if leaf.numel() and memory in memories:
            break_law(f"{path} shares its memory with the parameters or with the state; return a copy")
        memories.add(memory)


def _update(transform: Transform, params: Any, key: Tensor) -> None:
    state = transform.init(params)
    for step in range(STEPS):
        gradients = _gradients(params, key, step)

        def call(gradients: Any, state: Any, params: Any, step: int = step) -> Any:
            return _update_at(transform, params, state, key, step, gradients)

        updates, state = check_pure(call, gradients, state, params)
        params = optim.apply_updates(params, updates)


def _structure(transform: Transform, params: Any, key: Tensor) -> None:
    state = transform.init(params)
    updates, later = _update_at(transform, params, state, key, 0)
    same(_kinds(params), _kinds(updates), "parameters and updates")
    same(_kinds(state), _kinds(later), "the state before and after")


def _kinds(value: Any) -> Any:
    return tree.map(lambda leaf: str(tree.describe(leaf)), value)


def _jit(transform: Transform, params: Any, key: Tensor) -> None:
    state = transform.init(params)
    check_jit(lambda params, state: _steps(transform, params, state, key, range(2)), params, state)


def _identity(transform: Transform, params: Any, key: Tensor) -> None:
    alone, _ = _steps(transform, params, transform.init(params), key, range(STEPS))
    for chained in (optim.chain(optim.identity, transform), optim.chain(transform, optim.identity)):
        result, _ = _steps(chained, params, chained.init(params), key, range(STEPS))
        same(alone, result, "the parameters with and without `identity`")


def _fuse(transform: Transform, params: Any, key: Tensor) -> None:
    if transform.fused is None:
        return
    state = transform.init(params)
    gradients = _gradients(params, key, 0)
    context = _context(key, 0, params, gradients)
    updates, expected_state = transform.update(gradients, state, params, context)
    expected = optim.apply_updates(params, updates), expected_state
    fast = transform.fused(gradients, state, params, context)
    same(expected, tuple(fast), "`update` and then adding, and `fused`,", rtol=1e-5, atol=1e-7)


def _resume(transform: Transform, params: Any, key: Tensor) -> None:
    start = transform.init(params)
    whole = _steps(transform, params, start, key, range(STEPS))
    with tempfile.TemporaryDirectory() as folder:
        for step in range(STEPS):
            file = Path(folder) / "state.safetensors"
            checkpoint.save(file, _steps(transform, params, start, key, range(step)))
            saved_params, saved_state = _restore(file, (params, start), step)
            resumed = _steps(transform, saved_params, saved_state, key, range(step, STEPS))
            same(whole, resumed, f"uninterrupted and resumed at step {step}")


def _restore(file: Path, like: tuple[Any, Any], step: int) -> tuple[Any, Any]:
    try:
        return checkpoint.load(file, like)
    except TreeMismatch as error:
        raise LawBroken(f"what was saved after {step} steps is of another structure: {error}") from None
