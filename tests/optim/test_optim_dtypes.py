"""All transforms in every dtype against the same in float64, PyTorch's optimizers for complex numbers, and what is not
finite.
"""

import math

import pytest
import torch
from every_transform import KEY, PARAMETERS, REAL, TRANSFORMS

import functrain as ft
from functrain import optim, tree
from functrain.errors import DtypeMismatch

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.complex64]
INF, NAN = math.inf, math.nan


def draw(seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    leaves = {"0": {"weight": (3, 2), "bias": (3,)}, "temperature": ()}
    assert leaves == PARAMETERS
    return {
        "0": {k: torch.randn(s, generator=generator, dtype=wide).to(dtype) for k, s in leaves["0"].items()},
        "temperature": torch.randn((), generator=generator, dtype=wide).to(dtype),
    }


def context(step, steps=4):
    return optim.Context(position=step / steps, updates=step, step=step, key=KEY, loss=1.0, weight=2.0)


def wider(values):
    return tree.map(lambda t: t.to(torch.complex128 if t.is_complex() else torch.float64), values)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_updates_are_those_in_float64_rounded(name, dtype):
    """The same gradients and parameters in float64: what differs is the rounding of the updates, not of the state."""
    transform, params = TRANSFORMS[name], draw(0, dtype)
    if name in REAL and dtype.is_complex:
        with pytest.raises(DtypeMismatch, match=r"must be real floating-point tensors, but .* with partition"):
            transform.init(params)
        return
    state, exact = transform.init(params), transform.init(wider(params))
    eps = torch.finfo(dtype).eps
    for step in range(12):
        gradients = draw(100 + step, dtype)
        updates, state = transform.update(gradients, state, params, context(step, 12))
        expected, exact = transform.update(wider(gradients), exact, wider(params), context(step, 12))
        assert all(leaf.dtype == dtype for leaf in tree.leaves(updates))
        assert not tree.differences(wider(updates), expected, rtol=8 * eps, atol=8 * eps)
        params = optim.apply_updates(params, updates)


@pytest.mark.parametrize("name", ["adam", "adamw", "trace", "accumulated adam"])
def test_small_gradients_in_half_precision_are_not_lost(name):
    # The squares of such gradients, and their sums with what is larger, are nothing in float16.
    transform, params = TRANSFORMS[name], {"w": torch.ones(3, dtype=torch.float16)}
    state, exact = transform.init(params), transform.init(wider(params))
    for step in range(6):
        gradients = {"w": torch.tensor([1e-4, -3e-4, 2e-3 if step else 1.0], dtype=torch.float16)}
        updates, state = transform.update(gradients, state, params, context(step, 6))
        expected, exact = transform.update(wider(gradients), exact, wider(params), context(step, 6))
        assert not tree.differences(wider(updates), expected, rtol=4e-3, atol=6e-8)


COMPLEX = {
    "sgd": (optim.sgd, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    "nesterov": (optim.sgd, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (optim.adam, torch.optim.Adam, {"weight_decay": 0.1}),
    "adamw": (optim.adamw, torch.optim.AdamW, {"weight_decay": 0.1}),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", COMPLEX)
def test_complex_parameters_go_where_pytorchs_go(name, jit):
    make, theirs, options = COMPLEX[name]
    goal = torch.tensor([3j, 1 - 2j, 0.5 + 0j], dtype=torch.complex128)
    transform, params = make(0.1, **options), {"w": torch.zeros(3, dtype=torch.complex128)}

    def step(params, state):
        gradients = ft.grad(lambda p: (p["w"] - goal).abs().square().sum())(params)
        return optim.step(transform, gradients, state, params, optim.Context(loss=1.0))

    run, state = ft.jit(step) if jit else step, transform.init(params)
    weight = torch.zeros(3, dtype=torch.complex128, requires_grad=True)
    optimizer = theirs([weight], lr=0.1, **options)
    for _ in range(60):
        params, state = run(params, state)
        optimizer.zero_grad()
        (weight - goal).abs().square().sum().backward()
        optimizer.step()
        torch.testing.assert_close(params["w"], weight.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("values", [[1e30, 1e30], [3e38] * 4, [1e-30, 1e-30], [6e4, 6e4], [1e-7, 2e-7], [0.0, 0.0]])
@pytest.mark.parametrize("jit", [False, True])
def test_clipping_has_no_limits_of_size(values, dtype, jit):
    gradients = {"w": torch.tensor(values, dtype=torch.float64).to(dtype), "b": torch.zeros(0, dtype=dtype)}
    if not gradients["w"].isfinite().all():
        gradients = tree.map(lambda g: torch.full_like(g, torch.finfo(dtype).max), gradients)
    transform = optim.clip_by_global_norm(1e-3)
    update = (
        ft.jit(lambda g: transform.update(g, (), g, optim.Context())[0])
        if jit
        else (lambda g: transform.update(g, (), g, optim.Context())[0])
    )
    exact = wider(gradients)["w"]
    norm = exact.abs().max() * torch.linalg.vector_norm(exact / exact.abs().max().clamp(min=1e-300))
    expected = exact * min(1.0, 1e-3 / max(float(norm), 1e-300))
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(wider(update(gradients))["w"], expected, rtol=4 * eps, atol=4 * torch.finfo(dtype).tiny)


@pytest.mark.parametrize("size", [1e308, 1e200, 1e-200, 5e-324])
def test_norms_in_float64_do_not_overflow(size):
    gradients = {"a": torch.tensor([size, size], dtype=torch.float64), "b": torch.tensor([1e-3])}
    clipped, _ = optim.clip_by_global_norm(1.0).update(gradients, (), gradients, optim.Context())
    expected = [0.5**0.5] * 2 if size > 1 else [size] * 2
    assert clipped["a"].tolist() == pytest.approx(expected, rel=1e-12)
    assert float(tree.global_norm({"a": gradients["a"][:1]})) == size


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("bad", [INF, -INF, NAN])
def test_clipping_makes_all_of_it_nan_where_anything_is_not_finite(bad, dtype):
    gradients = {"a": torch.tensor([1.0, bad, 2.0], dtype=dtype), "b": torch.ones(2, dtype=torch.float32)}
    clipped, _ = optim.clip_by_global_norm(1.0).update(gradients, (), gradients, optim.Context())
    assert all(leaf.isnan().all() for leaf in tree.leaves(clipped))


CLOSED = ("skip", "freeze", "gate", "unfreeze gradually", "apply if finite", "zero nans")
HIDES_NOTHING = [name for name in TRANSFORMS if name not in CLOSED]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("bad", [INF, NAN])
@pytest.mark.parametrize("name", HIDES_NOTHING)
def test_what_is_not_finite_is_passed_on(name, bad, jit):
    """The element of the bad gradient is not finite in the first update that is made of it."""
    transform, params = TRANSFORMS[name], draw(0, torch.float32)
    update = ft.jit(transform.update) if jit else transform.update
    state = transform.init(params)
    for step in range(6):
        gradients = draw(step, torch.float32)
        if step == 0:
            gradients["0"]["bias"][1] = bad
        updates, state = update(gradients, state, params, context(0))
        if any(leaf.abs().sum() != 0 for leaf in tree.leaves(updates)):
            break
    assert not updates["0"]["bias"][1].isfinite()


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", ["scale by adam", "adam", "adamw", "accumulated adam", "partition"])
def test_a_square_that_overflows_is_not_hidden(name, jit):
    transform, params = optim.scale_by_adam(), {"w": torch.zeros(2)}
    transform = {"partition": optim.partition({"all": transform}, {"all": "*"})}.get(
        name, transform if "scale" in name else TRANSFORMS[name]
    )
    update = ft.jit(transform.update) if jit else transform.update
    state = transform.init(params)
    for step in range(3):
        updates, state = update({"w": torch.tensor([1e30, 1.0])}, state, params, context(step))
    assert updates["w"][0].isnan() and updates["w"][1].isfinite() and updates["w"][1] != 0
