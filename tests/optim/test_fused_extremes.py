"""What is not finite, next to nothing or huge takes the same way by a fast path as by `update` and then adding.

Where an update is finite the parameters are alike. Where it is not, neither hides it: a kernel that multiplies and adds
at once may leave an infinite parameter infinite, where adding makes it NaN; and where nothing but the update overflows,
which a learning rate makes small again, it may be finite.
"""

import itertools

import pytest
import torch
from every_optimizer import OPTIMIZERS

import functrain as ft
from functrain import optim, random, schedule, tree
from functrain.optim.context import BEGINNING

INF, NAN = float("inf"), float("nan")
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64]
FAST = {
    "adam": optim.adam(0.1),
    "adam, l2": optim.adam(0.1, b1=0.8, b2=0.9, eps=1e-3, weight_decay=0.3),
    "adamw": optim.adamw(schedule.linear(0.1, 0.01), weight_decay=0.3),
    "momentum": optim.sgd(0.1, momentum=0.9),
    "nesterov, l2, climbing": optim.sgd(0.1, momentum=0.9, nesterov=True, weight_decay=0.3, maximize=True),
}


def numbers(dtype, negative=True):
    """Zeros, what has no leading digit, what is usual, what has a square that overflows, and what is not finite."""
    info = torch.finfo(dtype)
    sizes = [0.0, info.tiny / 8, info.tiny, 1.5, 0.5 * info.max**0.5, 4 * info.max**0.5, info.max / 2, INF]
    return [*sizes, *((-size for size in sizes) if negative else ()), NAN]


def real(a):
    return torch.view_as_real(a) if a.is_complex() else a


def alike(got, wanted, sizes, where):
    """Assert that two tensors are one but for rounding of numbers of some sizes, and NaN where either is."""
    got, wanted = real(got), real(wanted)
    where = where[..., None].expand_as(got) if where.dim() < got.dim() else where
    info = torch.finfo(got.dtype)
    bound = 32 * info.eps * torch.stack([real(size).abs() for size in (wanted, *sizes)]).amax(0) + 8 * info.tiny
    near = got.isfinite() & wanted.isfinite() & ((got - wanted).abs() <= bound)
    assert (near | (got == wanted) | (got.isnan() & wanted.isnan()))[where].all()


def check(step, transform, gradients, state, params, context=BEGINNING):
    """Assert that a step is an update and then adding."""
    updates, state_after = transform.update(gradients, state, params, context)
    added = optim.apply_updates(params, updates)["w"]
    after, state_got = step(transform, gradients, state, params, context)
    after, update = after["w"], updates["w"]
    alike(after, added, (params["w"], update), update.isfinite())
    assert (after.isfinite() <= (update.isfinite() | update.isinf())).all(), "a NaN is hidden"
    inputs = [leaf for leaf in tree.leaves((params, gradients, state)) if leaf.shape == after.shape]
    usual = torch.stack([leaf.isfinite() for leaf in inputs]).all(0)
    assert (after.isfinite() <= (added.isfinite() | usual)).all(), "what is not finite is hidden"
    for got, wanted in zip(tree.leaves(state_got), tree.leaves(state_after), strict=True):
        if wanted.is_floating_point() or wanted.is_complex():
            alike(got, wanted, (), torch.ones_like(wanted, dtype=torch.bool))


# --- all that have one ---

HAVING = [name for name, (make, _) in OPTIMIZERS.items() if make(0.1).fused is not None]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", HAVING)
def test_two_steps_from_the_beginning(name, dtype):
    transform = OPTIMIZERS[name][0](0.1)
    signed = numbers(torch.float32 if dtype.is_complex else dtype)
    rows = torch.tensor(list(itertools.product(signed, signed)), dtype=torch.float64).to(dtype)
    side = len(signed)  # matrices, for what looks at those
    params, gradients = {"w": rows[:, 0].reshape(side, side)}, {"w": rows[:, 1].reshape(side, side)}
    try:
        state = transform.init(params)
    except ft.errors.DtypeMismatch:
        pytest.skip("it is for real parameters")
    context = optim.Context(key=random.key(0), loss=1.0, evaluate=lambda params: (torch.ones(()), gradients))
    for _ in range(2):
        check(optim.step, transform, gradients, state, params, context)
        params, state = optim.step(transform, gradients, state, params, context)


# --- the kernels, from any state ---


def compiled(transform, gradients, state, params, context):
    """A step that overwrites parameters and state."""
    run = ft.jit(lambda carry, gradients: optim.step(transform, gradients, carry[1], carry[0], context), donate=0)
    return run(tree.clone((params, state)), gradients)


def fill(state, columns):
    """Return a state with these columns in place of its slots, three updates on."""
    if isinstance(state, dict):
        return {key: slot + 3 if key == "count" else {"w": columns[key]} for key, slot in state.items()}
    return tuple(fill(one, columns) for one in state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", FAST)
def test_one_step_of_a_kernel(name, dtype):
    transform, signed = FAST[name], numbers(dtype)
    sides = {"mean": signed, "square": numbers(dtype, negative=False), "buffer": signed}
    began = transform.init({"w": torch.zeros(1, dtype=dtype)})
    kept = [key for key in sides if any(path.endswith(f"{key}.w") for path in tree.paths(began))]
    rows = torch.tensor(list(itertools.product(signed, signed, *(sides[key] for key in kept))), dtype=torch.float64)
    params, gradients, *columns = (column.contiguous() for column in rows.to(dtype).unbind(1))
    state = fill(began, dict(zip(kept, columns, strict=True)))
    for step in (optim.step, compiled):
        check(step, transform, {"w": gradients}, state, {"w": params})
