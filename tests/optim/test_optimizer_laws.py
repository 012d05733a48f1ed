"""The laws of every named optimizer: it converges, is one trace, and has no trouble with what is empty or frozen."""

import ast
import inspect
import math
import re

import pytest
import torch
from every_optimizer import FIRST, OPTIMIZERS, STEPS

import functrain as ft
from functrain import losses, nn, optim, random, testing, tree
from functrain.errors import InvalidArgument
from functrain.optim import optimizers, primitives

DOUBLE, KEY = torch.float64, random.key(0)
every = pytest.mark.parametrize("name", OPTIMIZERS)


def step_of(transform, f):
    evaluate = ft.value_and_grad(f)

    def step(carry, _=None):
        params, state = carry
        loss, grads = evaluate(params)
        return optim.step(transform, grads, state, params, optim.Context(key=KEY, loss=loss, evaluate=evaluate)), loss

    return step


def minimized(transform, f, params, steps):
    """The parameters after some updates, in one compiled call."""
    step = step_of(transform, f)
    run = ft.jit(lambda carry: ft.scan(step, carry, torch.zeros(steps))[0])
    return run((params, transform.init(params)))[0]


def made(name, problem):
    make, rates = OPTIMIZERS[name]
    return make(rates[problem])


def steps(name, problem):
    return STEPS.get(name, (1000, 2000, 300))[problem]


# --- it converges ---


def quadratic(params):
    curvature = torch.tensor([[1.0, 2.0, 5.0], [1.0, 3.0, 10.0]], dtype=DOUBLE)
    goal = torch.tensor([[1.0, -1.0, 0.5], [0.3, -0.7, 2.0]], dtype=DOUBLE)
    return 0.5 * (curvature * (params["w"] - goal).square()).sum() + 0.5 * (params["b"] - 1).square()


@every
def test_it_finds_the_minimum_of_a_quadratic(name):
    start = {"w": torch.zeros(2, 3, dtype=DOUBLE), "b": torch.zeros((), dtype=DOUBLE)}
    end = minimized(made(name, 0), quadratic, start, steps(name, 0))
    assert quadratic(end) < 1e-5 * quadratic(start)


def valley(params):
    x, y = params["x"][0, 0], params["x"][0, 1]
    return (1 - x).square() + 100 * (y - x * x).square()


@every
def test_it_goes_along_rosenbrocks_valley(name):
    start = {"x": torch.tensor([[-1.2, 1.0]], dtype=DOUBLE)}
    end = minimized(made(name, 1), valley, start, steps(name, 1))
    # RAdam's first steps are not divided by anything, and the valley is steep; DoG has no momentum to go along it.
    assert valley(end) < (4.0 if name in ("radam", "ranger", "dog") else 0.3)


@every
def test_it_learns_to_classify(name):
    labels = torch.arange(60) % 3
    centres = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
    inputs = centres[labels] + 0.5 * torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    model = nn.serial(nn.dense(8), nn.relu, nn.dense(3))
    params, _ = model.init(random.key(0), inputs)

    def loss(params):
        return losses.cross_entropy(model.apply(params, {}, inputs)[0], labels).mean()

    end = minimized(made(name, 2), loss, params, steps(name, 2))
    assert (model.apply(end, {}, inputs)[0].argmax(1) == labels).double().mean() >= 0.95
    assert loss(end) < 0.15


# --- it is a pure function that compiles once ---


@every
def test_it_obeys_the_laws_of_every_transform(name):
    testing.check_transform(made(name, 0))


@every
def test_it_is_traced_once_for_any_number_of_updates(name):
    transform, params = made(name, 0), {"w": torch.zeros(2, 3, dtype=DOUBLE), "b": torch.zeros((), dtype=DOUBLE)}
    step = step_of(transform, quadratic)
    fast = ft.jit(step)
    eager = compiled = (params, transform.init(params))
    for _ in range(8):
        eager, compiled = step(eager)[0], fast(compiled)[0]
    assert len(fast.traces) == 1
    assert not tree.differences(eager, compiled, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "lbfgs"])
def test_vmap_over_the_rate_is_a_loop(name):
    make, rates = OPTIMIZERS[name]
    lrs = torch.tensor([0.5, 1.0, 2.0], dtype=DOUBLE) * rates[0]
    start = {"w": torch.zeros(2, 3, dtype=DOUBLE), "b": torch.zeros((), dtype=DOUBLE)}

    def run(lr):
        transform = make(lr)
        carry, step = (start, transform.init(start)), step_of(transform, quadratic)
        for _ in range(FIRST.get(name, 6)):
            carry, _ = step(carry)
        return carry[0]

    looped = tree.stack([run(lr) for lr in lrs])
    numbers = tree.stack([run(float(lr)) for lr in lrs])
    for got in (ft.vmap(run)(lrs), ft.jit(ft.vmap(run))(lrs), numbers):
        assert not tree.differences(got, looped, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "lbfgs"])
def test_the_derivative_by_the_rate_is_a_difference_quotient(name):
    make, rates = OPTIMIZERS[name]
    # Numbers from which no step of a whole rate comes to where a gradient is 0, and signs turn.
    start = {"w": torch.linspace(-1.037, 0.911, 6, dtype=DOUBLE).reshape(2, 3), "b": torch.tensor(0.317, dtype=DOUBLE)}

    def after(lr):
        transform = make(lr)
        carry, step = (start, transform.init(start)), step_of(transform, quadratic)
        for _ in range(3):
            carry, _ = step(carry)
        return quadratic(carry[0])

    lr, away = torch.tensor(rates[0], dtype=DOUBLE), 1e-6 * rates[0]
    slope = ft.grad(after)(lr)
    assert slope.isfinite()
    torch.testing.assert_close(slope, (after(lr + away) - after(lr - away)) / (2 * away), rtol=1e-5, atol=1e-6)


# --- what is of another dtype ---


@pytest.mark.parametrize("dtype", [torch.bfloat16, DOUBLE, torch.complex64], ids=str)
@every
def test_structure_and_dtypes_stay_or_are_refused(name, dtype):
    transform = made(name, 0)
    params = {"w": torch.ones(2, 3, dtype=dtype), "b": torch.ones(2, dtype=dtype), "s": torch.ones((), dtype=dtype)}
    try:
        state = transform.init(params)
    except ft.errors.DtypeMismatch as error:
        assert dtype.is_complex and "with partition" in str(error)
        return
    kinds = tree.map(tree.describe, (params, state))
    for _ in range(3):
        context = optim.Context(key=KEY, loss=1.0, evaluate=lambda p: (torch.ones(()), p))
        params, state = optim.step(transform, params, state, params, context)
        assert tree.map(tree.describe, (params, state)) == kinds
        assert all(leaf.isfinite().all() for leaf in tree.leaves((params, state)))


# --- what is empty, scalar, frozen ---


@every
def test_empty_trees_and_leaves_of_no_elements(name):
    transform = made(name, 0)
    for params in ({}, {"w": torch.zeros(0), "m": torch.zeros(0, 3), "n": torch.zeros(3, 0), "s": torch.ones(())}):
        state = transform.init(params)
        for _ in range(3):
            context = optim.Context(
                key=KEY, loss=0.0, evaluate=lambda p: (torch.zeros(()), tree.map(torch.ones_like, p))
            )
            gradients = tree.map(torch.ones_like, params)
            after, state = optim.step(transform, gradients, state, params, context)
            assert tree.map(tree.describe, after) == tree.map(tree.describe, params)
            assert all(leaf.isfinite().all() for leaf in tree.leaves((after, state)))


def loss_of(params):
    """Of which the gradients where all is 1 are 1."""
    return sum((params[key].square() / 2).sum() for key in ("w", "b"))


@every
def test_nan_in_a_frozen_leaf_does_no_harm(name):
    make = OPTIMIZERS[name][0]
    params = {"frozen": torch.ones(2, 2), "w": torch.ones(2, 2), "b": torch.ones(2)}
    gradients = {"frozen": torch.full((2, 2), math.nan), "w": torch.ones(2, 2), "b": torch.ones(2)}
    frozen, alone = optim.freeze("frozen", make(0.1)), make(0.1)
    rest = {"w": params["w"], "b": params["b"]}

    def context(p):  # the loss must have those gradients, for what looks at it
        return optim.Context(key=KEY, loss=loss_of(p), evaluate=ft.value_and_grad(loss_of))

    got, state = optim.step(frozen, gradients, frozen.init(params), params, context(params))
    expected, _ = optim.step(alone, {"w": gradients["w"], "b": gradients["b"]}, alone.init(rest), rest, context(rest))
    assert tree.equal(got, {"frozen": params["frozen"], **expected})
    assert all(leaf.isfinite().all() for leaf in tree.leaves(state))


# --- what is refused ---


def options(name):
    return [key for key in inspect.signature(getattr(optim, name)).parameters if key != "self"]


NAMED = sorted({name.split()[0] for name in OPTIMIZERS})


def required(name):
    """What a call cannot do without."""
    parameters = inspect.signature(getattr(optim, name)).parameters
    needed = [key for key, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
    return {key: optim.sgd(0.1) if key in ("optimizer", "piece", "transform") else 0.1 for key in needed}


def test_all_named_optimizers_are_in_the_table():
    assert set(optimizers.__all__) <= set(NAMED)


RATES = {
    "lr": (-0.1, math.inf, math.nan, "fast", None, [0.1], lambda position: 0.1),
    "b1": (1.0, -0.1, math.nan, 1.5),
    "b2": (1.0, -0.1, math.nan),
    "b3": (1.0, -0.1, math.nan),
    "rho": (1.0, -0.1),
    "eps": (-1e-8, math.inf),
    "momentum": (-0.1, math.inf),
    "weight_decay": (-0.1, math.inf),
    "momentum_decay": (-0.1,),
    "lr_decay": (-0.1,),
    "initial": (-0.1, math.inf),
    "lambd": (-0.1,),
    "alpha": (-0.1,),
    "eta": (-0.1, math.inf),
    "gamma": (-0.1, math.inf),
    "eps_root": (-1e-8, math.inf),
    "slow_lr": (-0.1,),
    "k": (0, -1, 1.5),
    "trust_coefficient": (-0.1, math.inf),
    "start": (-1,),
    "shrink": (1.0, -0.1),
    "grow": (0.9,),
    "least": (-0.1,),
    "most": (-0.1, math.inf),
    "decay_power": (0.1,),
    "threshold": (-0.1,),
    "dampening": (math.inf, "a"),
}
PIECES = [name for name in primitives.__all__ if inspect.isfunction(getattr(optim, name))] + ["scale_by_caution"]
NUMBERS = RATES | {
    "clipping": (-0.1, math.inf),
    "decay": (1.0, -0.1),
    "factor": (math.inf, math.nan),
    "max_delta": (-0.1, math.nan),
    "max_norm": (-0.1, math.nan),
    "radius": (-0.1, math.nan),
    "total": (-0.1, math.nan),
}
BAD = [(name, key, value) for name in [*NAMED, *PIECES] for key in options(name) for value in NUMBERS.get(key, ())]
BAD.remove(("sam", "rho", 1.0))  # which is a distance there


@pytest.mark.parametrize("name, key, value", BAD)
def test_a_number_out_of_range_is_named(name, key, value):
    wrong = rf"^({key}|momentum) must be a" if name == "muon" else rf"^{key} must be a"
    with pytest.raises(InvalidArgument, match=wrong):
        getattr(optim, name)(**{**required(name), key: value})


@pytest.mark.parametrize("name", NAMED)
def test_a_repr_names_arguments(name):
    """So do `inject` and messages, which call a hyperparameter as the repr does; one of a group has its name before."""
    shown = re.sub(r"(\w+)\.(\w+)=", r"\1_\2_=", repr(getattr(optim, name)(**required(name))))
    keys = {key.arg for key in ast.parse(shown, mode="eval").body.keywords}
    assert {key for key in keys if not key.endswith("_")} <= set(options(name))


@pytest.mark.parametrize("name", NAMED)
def test_an_unknown_hyperparameter_is_named(name):
    with pytest.raises(TypeError, match="unexpected keyword argument 'betta'"):
        getattr(optim, name)(**required(name), betta=0.1)


def test_a_schedule_where_a_number_is_wanted_is_refused():
    rise = ft.schedule.linear(0, 1)
    for make, key in ((optim.rprop, "lr"), (lambda s: optim.adagrad(initial=s), "initial")):
        with pytest.raises(
            InvalidArgument, match=f"{key} must be a number that stays as it is, got the schedule linear"
        ):
            make(rise)
    with pytest.raises(InvalidArgument, match="start must be a number that stays as it is"):
        optim.asgd(start=rise)


@every
def test_parameters_of_integers_are_named(name):
    with pytest.raises(ft.errors.DtypeMismatch, match=r"but a\.steps is int64"):
        made(name, 0).init({"a": {"steps": torch.tensor(1), "w": torch.ones(1)}})


@every
def test_parameters_that_changed_since_init_are_named(name):
    transform = made(name, 0)
    state, params = (
        transform.init({"w": torch.ones(2, 2), "b": torch.ones(2)}),
        {"w": torch.ones(2, 3), "b": torch.ones(2)},
    )
    if tree.map(tree.describe, state) == tree.map(tree.describe, transform.init(params)):
        return  # it keeps nothing that depends on the shapes
    context = optim.Context(key=KEY, loss=0.0, evaluate=lambda p: (torch.zeros(()), p))
    with pytest.raises(
        ft.errors.TreeMismatch, match=r"(?s)the optimizer state must have .*((w|float32): expected|of 6 num)"
    ):
        optim.step(transform, params, state, params, context)


def test_matrices_are_wanted_by_what_makes_them_orthogonal():
    params = {"w": torch.ones(2)}
    for piece, message in (
        (optim.orthogonalize(), "orthogonalize needs"),
        (optim.scale_by_shape(), "scale_by_shape needs"),
    ):
        with pytest.raises(ft.errors.ShapeMismatch, match=rf"{message} matrices, got shape \(2,\)"):
            piece.update(params, (), params)
    with pytest.raises(InvalidArgument, match="coefficients must be three numbers"):
        optim.orthogonalize((1.0, 2.0))
    with pytest.raises(InvalidArgument, match="steps must be a whole number"):
        optim.muon(steps=-1)
    with pytest.raises(InvalidArgument, match="rule must be one of 'original', 'match_rms_adamw', got 'x'"):
        optim.muon(rule="x")
