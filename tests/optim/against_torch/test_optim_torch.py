"""The named optimizers against torch.optim, over 100 steps of a small problem."""

import itertools

import pytest
import torch

from functrain import optim, schedule, tree

STEPS = 100
INPUTS = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = torch.randn(20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def begin(dtype):
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    return {"weight": weight.to(dtype), "bias": torch.zeros(2, dtype=dtype), "gain": torch.ones((), dtype=dtype)}


def loss(params):
    dtype = params["weight"].dtype
    hidden = (INPUTS.to(dtype) @ params["weight"].T + params["bias"]).tanh() * params["gain"]
    return (hidden - TARGETS.to(dtype)).square().mean()


def ours(transform, dtype, steps=STEPS, sign=1.0):
    params = begin(dtype)
    state = transform.init(params)
    for step in range(steps):
        gradients = torch.func.grad(lambda p: sign * loss(p))(params)
        updates, state = transform.update(gradients, state, params, optim.Context(step / steps, step))
        params = optim.apply_updates(params, updates)
    return params


def theirs(make, dtype, steps=STEPS, settings=None, sign=1.0):
    params = {name: value.requires_grad_() for name, value in begin(dtype).items()}
    optimizer = make(params.values())
    for step in range(steps):
        for group in optimizer.param_groups:
            group.update(settings(step / steps) if settings else {})
        optimizer.zero_grad()
        (sign * loss(params)).backward()
        optimizer.step()
    return tree.map(torch.detach, params)


def assert_same(a, b, dtype):
    tolerance = 1e-11 if dtype == torch.float64 else 1e-4
    found = tree.differences(a, b, rtol=tolerance, atol=tolerance)
    assert not found, found
    assert tree.differences(a, begin(dtype), rtol=1e-3, atol=1e-3), "nothing was learnt"


SGD = [
    (momentum, dampening, nesterov, decay, maximize)
    for momentum, dampening, nesterov, decay, maximize in itertools.product(
        (0.0, 0.9), (0.0, 0.3), (False, True), (0.0, 0.05), (False, True)
    )
    if not nesterov or (momentum > 0 and dampening == 0)  # the rest is an error in both
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("momentum, dampening, nesterov, decay, maximize", SGD)
def test_sgd_is_pytorchs_for_every_combination(momentum, dampening, nesterov, decay, maximize, dtype):
    options = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov, "weight_decay": decay}
    sign = -1.0 if maximize else 1.0
    a = ours(optim.sgd(0.05, maximize=maximize, **options), dtype, sign=sign)
    b = theirs(lambda p: torch.optim.SGD(p, 0.05, maximize=maximize, **options), dtype, sign=sign)
    assert_same(a, b, dtype)


def test_sgd_with_everything_scheduled_is_pytorchs():
    lr, momentum, dampening, decay = (
        schedule.cosine(0.05, 0.01),
        schedule.linear(0.95, 0.85),
        schedule.linear(0.1, 0.5),
        schedule.linear(0.0, 0.05),
    )
    transform = optim.sgd(lr, momentum=momentum, dampening=dampening, weight_decay=decay)

    def settings(at):
        return {"lr": lr(at), "momentum": momentum(at), "dampening": dampening(at), "weight_decay": decay(at)}

    b = theirs(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), torch.float64, settings=settings)
    assert_same(ours(transform, torch.float64), b, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@pytest.mark.parametrize(
    "betas, eps, decay", [((0.9, 0.999), 1e-8, 0.0), ((0.5, 0.9), 1e-3, 0.1), ((0.0, 0.0), 1.0, 0.1)]
)
def test_adam_is_pytorchs(name, betas, eps, decay, dtype):
    make = {"Adam": optim.adam, "AdamW": optim.adamw}[name]
    a = ours(make(0.01, *betas, eps, decay), dtype)
    b = theirs(lambda p: getattr(torch.optim, name)(p, 0.01, betas, eps, decay), dtype)
    assert_same(a, b, dtype)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_adam_has_pytorchs_defaults(name):
    make = {"Adam": optim.adam, "AdamW": optim.adamw}[name]
    assert_same(ours(make(), torch.float64), theirs(getattr(torch.optim, name), torch.float64), torch.float64)


def test_adam_with_a_schedule_of_the_momentum_is_pytorchs_one_cycle():
    lr, b1 = schedule.cosine(0.05, 0.01), schedule.linear(0.95, 0.85)
    b = theirs(
        lambda p: torch.optim.AdamW(p),
        torch.float64,
        settings=lambda at: {"lr": lr(at), "betas": (b1(at), 0.999)},
    )
    assert_same(ours(optim.adamw(lr, b1=b1), torch.float64), b, torch.float64)


def test_groups_are_pytorchs_parameter_groups():
    lr = schedule.linear(0.1, 0.01)
    transform = optim.partition(
        {"weight": optim.sgd(lr, 0.9, weight_decay=0.1), "others": optim.sgd(0.05, nesterov=True, momentum=0.5)},
        {"weight": "weight", "others": "[!w]*"},
    )

    def make(params):
        weight, *rest = params
        return torch.optim.SGD(
            [
                {"params": [weight], "momentum": 0.9, "weight_decay": 0.1},
                {"params": rest, "lr": 0.05, "momentum": 0.5, "nesterov": True},
            ],
            lr=0.1,
        )

    params = {name: value.requires_grad_() for name, value in begin(torch.float64).items()}
    optimizer = make(params.values())
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = lr(step / STEPS)
        optimizer.zero_grad()
        loss(params).backward()
        optimizer.step()
    assert_same(ours(transform, torch.float64), tree.map(torch.detach, params), torch.float64)
