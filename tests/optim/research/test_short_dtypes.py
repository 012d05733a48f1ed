"""Loss scales against torch.amp's, and rounding by chance against the neighbours of each number."""

import math

import pytest
import torch

import functrain as ft
from functrain import optim, random, tree
from functrain.errors import InvalidArgument
from functrain.optim.precision.rounding import round_by_chance

SHORT = [torch.bfloat16, torch.float16]

# --- rounding ---


@pytest.mark.parametrize("dtype", SHORT)
def test_a_number_is_rounded_to_a_neighbour(dtype):
    generator = torch.Generator().manual_seed(0)
    size = 2.0 ** torch.randint(-30, 15, (4000,), generator=generator)
    x = torch.cat([size * torch.randn(4000, generator=generator), torch.tensor([0.0, 1e-42, -3e-41, 1e-8, 6e-8])])
    got = round_by_chance(random.key(1), x, dtype)
    near = x.to(dtype)
    infinity = torch.full_like(near, math.inf)
    if dtype is torch.float16:  # of which PyTorch has no nextafter
        unit = torch.where(
            x.abs() < 2.0**-14, torch.tensor(2.0**-24), torch.ldexp(torch.ones_like(x), torch.frexp(x).exponent - 11)
        )
        assert ((got.float() - x).abs() <= unit).all()
    else:
        above, below = torch.nextafter(near, infinity), torch.nextafter(near, -infinity)
        assert ((got == near) | (got == above) | (got == below)).all()
        assert ((got.float() - x).abs() < (above.float() - below.float()).clamp(min=1e-44)).all()
    exact = near.float()
    assert torch.equal(round_by_chance(random.key(2), exact, dtype), near)


def test_what_is_not_finite_stays():
    x = torch.tensor([math.inf, -math.inf, math.nan])
    assert torch.equal(round_by_chance(random.key(0), x, torch.bfloat16)[:2].float(), x[:2])
    assert round_by_chance(random.key(0), x, torch.bfloat16)[2].isnan()
    assert round_by_chance(random.key(0), torch.tensor([1e6]), torch.float16)[0] == math.inf


@pytest.mark.parametrize("dtype", SHORT)
@pytest.mark.parametrize("value", [1.001, -3.14159, 2.0**-24 * 1.3, 1.9999])
def test_it_is_right_on_average(dtype, value):
    n = 40000
    some = round_by_chance(random.key(3), torch.full((n,), value), dtype).double()
    error = some.mean().item() - torch.tensor(value).double().item()
    assert abs(error) <= 5 * some.std().item() / math.sqrt(n)  # five standard errors
    assert some.unique().numel() == 2


def test_a_gradient_goes_through_it():
    assert (
        ft.grad(lambda x: (round_by_chance(random.key(0), x, torch.bfloat16).float() ** 2).sum())(torch.tensor([3.0]))[
            0
        ]
        == 6.0
    )


@pytest.mark.parametrize("jit", [False, True])
def test_small_updates_add_up_in_bfloat16(jit):
    """Ten thousandth of a parameter, a thousand times: to the nearest, nothing would ever happen."""
    params = {
        "w": torch.ones(2000, dtype=torch.bfloat16),
        "wide": torch.ones(3),
        "s": torch.ones((), dtype=torch.bfloat16),
    }
    grads = tree.map(torch.ones_like, params)
    fine = optim.round_stochastically(optim.sgd(1e-4))

    def step(params, key):
        return optim.step(fine, grads, fine.init(params), params, optim.Context(key=key))[0]

    step = ft.jit(step) if jit else step
    here, root = params, random.key(5)
    for t in range(300):
        here = step(here, random.fold_in(root, t))
    assert tree.map(tree.describe, here) == tree.map(tree.describe, params)
    assert here["w"].float().mean().item() == pytest.approx(0.97, abs=1e-3)
    assert here["wide"][0].item() == pytest.approx(0.97, abs=1e-5)


def test_updates_of_parameters_in_float32_are_those_inside():
    params, grads = {"w": torch.randn(3)}, {"w": torch.randn(3)}
    plain, fine = optim.adam(0.1), optim.round_stochastically(optim.adam(0.1))
    context = optim.Context(key=random.key(0))
    assert tree.equal(
        plain.update(grads, plain.init(params), params, context), fine.update(grads, fine.init(params), params, context)
    )


def test_means_in_bfloat16_follow_those_in_float32():
    """A mean square that decays by a thousandth: to the nearest, it would stay where it is."""
    params = {"w": torch.zeros(3000), "s": torch.zeros(())}
    plain, small = optim.scale_by_adam(), optim.short_state(optim.scale_by_adam())
    a, b = plain.init(params), small.init(params)
    assert b.inner["square"]["w"].dtype is torch.bfloat16 and b.inner["count"].dtype is torch.int64
    for t in range(200):
        size = 1.0 if t < 100 else 0.1
        grads = {"w": torch.full((3000,), size), "s": torch.tensor(size)}
        context = optim.Context(key=random.key(t))
        _, a = plain.update(grads, a, params, context)
        updates, b = small.update(grads, b, params, context)
    for slot in ("mean", "square"):
        assert b.inner[slot]["w"].float().mean().item() == pytest.approx(a[slot]["w"][0].item(), rel=4e-3)
    assert updates["w"].dtype is torch.float32


def test_what_rounds_says_what_it_needs():
    with pytest.raises(InvalidArgument, match=r"dtype must be one of torch.bfloat16, torch.float16, got torch.float32"):
        optim.short_state(optim.adam(), torch.float32)
    for make in (optim.round_stochastically, optim.short_state):
        with pytest.raises(InvalidArgument, match="transform must be a Transform"):
            make(0.1)
        params = {"w": torch.ones(1)}
        with pytest.raises(InvalidArgument, match="needs the random key of this step"):
            make(optim.adam()).update(params, make(optim.adam()).init(params), params)


# --- the loss scale ---


def test_the_scale_is_that_of_torchs_scaler():
    generator = torch.Generator().manual_seed(0)
    transform = optim.dynamic_loss_scale(optim.sgd(0.1), initial=2.0**100, growth=4.0, backoff=0.25, every=3)
    params = {"w": torch.ones(2)}
    state, scale, tracker = transform.init(params), torch.tensor(2.0**100), torch.tensor(0, dtype=torch.int32)
    skipped = 0
    for _ in range(120):
        bad = bool(torch.rand((), generator=generator) < 0.1)
        grads = {"w": torch.tensor([1.0, math.nan if bad else 1.0])}
        assert optim.loss_scale(state) == scale
        updates, state = transform.update(grads, state, params, optim.Context(loss_scale=state.scale))
        torch._amp_update_scale_(scale, tracker, torch.tensor(float(bad)), 4.0, 0.25, 3)
        skipped += bad
        assert bool((updates["w"] == 0).all()) == bad
        assert state.good == tracker
    assert state.scale.item() < math.inf and (int(state.skipped), int(state.updates)) == (skipped, 120 - skipped)
    assert optim.updates_made(transform, state) == 120 - skipped


def test_a_scale_never_becomes_zero():
    transform, params = optim.dynamic_loss_scale(optim.sgd(0.1), backoff=1e-9), {"w": torch.ones(1)}
    state = transform.init(params)
    for _ in range(20):
        _, state = transform.update(
            {"w": torch.tensor([math.inf])}, state, params, optim.Context(loss_scale=state.scale)
        )
    assert state.scale > 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"initial": 0.0}, "initial must be a number above 0"),
        ({"growth": 1.0}, "growth must be a number above 1"),
        ({"backoff": 1.0}, "backoff must be a number above 0 and below 1"),
        ({"every": 0}, "every must be a whole number of batches, at least 1"),
        ({"initial": math.inf}, "initial must be a number above 0"),
    ],
)
def test_arguments_of_the_scale_out_of_range_are_named(options, message):
    with pytest.raises(InvalidArgument, match=message):
        optim.dynamic_loss_scale(optim.sgd(0.1), **options)


def test_a_scale_that_is_not_there_is_an_error():
    params = {"w": torch.ones(1)}
    transform = optim.dynamic_loss_scale(optim.sgd(0.1))
    with pytest.raises(InvalidArgument, match="needs the number by which the loss was multiplied"):
        transform.update(params, transform.init(params), params)
    with pytest.raises(InvalidArgument, match="this state has 0"):
        optim.loss_scale(optim.sgd(0.1).init(params))
