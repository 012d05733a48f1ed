"""Every optimizer of torch.optim, option by option, against PyTorch's own: 200 steps of a small network."""

import contextlib

import pytest
import torch

import functrain as ft
from functrain import optim, tree

STEPS = 200
DOUBLE, COMPLEX = torch.float64, torch.complex128


def cases():
    """(ours, theirs) by name and options, both of them functions of nothing, and of parameters."""
    t = torch.optim
    rows = {
        "adam": (optim.adam, t.Adam, [{}, {"amsgrad": True}, {"weight_decay": 0.1}, {"maximize": True}]),
        "adamw": (optim.adamw, t.AdamW, [{}, {"amsgrad": True}, {"weight_decay": 0.1, "maximize": True}]),
        "adamax": (optim.adamax, t.Adamax, [{}, {"weight_decay": 0.1}, {"maximize": True}, {"eps": 0.1}]),
        "nadam": (optim.nadam, t.NAdam, [{}, {"weight_decay": 0.1}, {"maximize": True}, {"momentum_decay": 0.1}]),
        "radam": (optim.radam, t.RAdam, [{}, {"weight_decay": 0.1}, {"maximize": True}]),
        "adagrad": (optim.adagrad, t.Adagrad, [{}, {"lr_decay": 0.1}, {"weight_decay": 0.1}, {"maximize": True}]),
        "adadelta": (optim.adadelta, t.Adadelta, [{}, {"rho": 0.5, "eps": 1e-3}, {"weight_decay": 0.1}]),
        "rmsprop": (
            optim.rmsprop,
            t.RMSprop,
            [
                {},
                {"centered": True},
                {"momentum": 0.9},
                {"centered": True, "momentum": 0.5, "weight_decay": 0.1, "eps": 1e-3},
                {"maximize": True},
            ],
        ),
        "asgd": (optim.asgd, t.ASGD, [{}, {"lambd": 0.1, "alpha": 0.5}, {"weight_decay": 0.1}, {"maximize": True}]),
        "adafactor": (optim.adafactor, t.Adafactor, [{}, {"weight_decay": 0.1}, {"maximize": True}, {"lr": 0.5}]),
        "rprop": (optim.rprop, t.Rprop, [{}, {"lr": 0.1}, {"maximize": True}]),
    }
    for name, (ours, theirs, grid) in rows.items():
        for options in grid:
            lr = {} if "lr" in options else {"lr": 1.0 if name == "adadelta" else 0.02}
            yield f"{name} {options}", ours, theirs, lr | options, {}, {}
    for b1, b2, eps in ((0.5, 0.9, 1e-3), (0.0, 0.99, 1e-6)):
        for name in ("adam", "adamw", "adamax", "nadam", "radam"):
            ours, theirs, _ = rows[name]
            both = {"betas": (b1, b2), "eps": eps}
            yield f"{name} {b1} {b2}", ours, theirs, {"lr": 0.02}, {"b1": b1, "b2": b2, "eps": eps}, both
    own = {"adafactor": ({"decay_power": -0.5, "threshold": 1.5}, {"beta2_decay": -0.5, "d": 1.5})}
    own["adafactor eps"] = ({"eps": 1e-3, "least": 0.1}, {"eps": (1e-3, 0.1)})
    own["rprop"] = (
        {"shrink": 0.3, "grow": 1.5, "least": 1e-3, "most": 0.05},
        {"etas": (0.3, 1.5), "step_sizes": (1e-3, 0.05)},
    )
    own["rmsprop"] = ({"decay": 0.5}, {"alpha": 0.5})
    own["asgd"] = ({"start": 50}, {"t0": 50})
    own["adagrad"] = ({"initial": 0.5}, {"initial_accumulator_value": 0.5})
    own["nadam"] = ({}, {"decoupled_weight_decay": True})
    for name, (mine, yours) in own.items():
        ours, theirs, _ = rows[name.split()[0]]
        ours, more = (optim.nadamw, {"weight_decay": 0.1}) if name == "nadam" else (ours, {})
        yield f"{name}, its own", ours, theirs, {"lr": 0.02} | more, mine, yours
    decoupled = {"decoupled": True}, {"decoupled_weight_decay": True}
    yield "radam decoupled", optim.radam, t.RAdam, {"lr": 0.02, "weight_decay": 0.1}, *decoupled
    yield "amsgrad", optim.amsgrad, t.Adam, {"lr": 0.02, "weight_decay": 0.1}, {}, {"amsgrad": True}


CASES = {name: case for name, *case in cases()}
INPUTS = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
TARGETS = torch.randn(20, 2, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)


def begin(dtype):
    generator = torch.Generator().manual_seed(2)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=COMPLEX if dtype.is_complex else DOUBLE).to(dtype)

    return {"0": {"weight": draw(4, 3), "bias": draw(4)}, "2": {"weight": draw(2, 4)}, "gain": draw(1)[0]}


def loss(params, step):
    """Of another batch at each step: where all gradients vanish, Adam and its like divide rounding by rounding."""
    dtype, rows = params["gain"].dtype, slice(step % 5 * 4, step % 5 * 4 + 4)
    hidden = (INPUTS[rows].to(dtype) @ params["0"]["weight"].T + params["0"]["bias"]) * params["gain"]
    hidden = hidden if dtype.is_complex else hidden.tanh()  # which has poles in the complex plane
    return (hidden @ params["2"]["weight"].T - TARGETS[rows].to(dtype)).abs().square().mean()


@contextlib.contextmanager
def counting_in(dtype):
    """PyTorch keeps its counts, and NAdam its product, in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(DOUBLE if dtype in (DOUBLE, COMPLEX) else before)
    yield
    torch.set_default_dtype(before)


def ours(transform, dtype, sign):
    params, gradient = begin(dtype), ft.grad(lambda p, step: sign * loss(p, step))
    state = transform.init(params)
    for step in range(STEPS):
        params, state = optim.step(transform, gradient(params, step), state, params)
    return params, state


def theirs(make, dtype, sign):
    params = tree.map(lambda leaf: leaf.requires_grad_(), begin(dtype))
    optimizer = make(tree.leaves(params))
    with counting_in(dtype):
        for step in range(STEPS):
            optimizer.zero_grad()
            (sign * loss(params, step)).backward()
            optimizer.step()
    return tree.map(torch.detach, params), optimizer


# In float32 200 steps make of a rounding what the problem makes of it; the bound is of the slowest to forget.
TOLERANCE = {DOUBLE: 1e-9, COMPLEX: 1e-9, torch.float32: 2e-3}
COMPLEX_CASES = [name for name in CASES if "adafactor" not in name]


def compare(name, dtype):
    make, other, both, mine, yours = CASES[name]
    sign = -1.0 if both.get("maximize") else 1.0
    got, state = ours(make(**both, **mine), dtype, sign)
    expected, optimizer = theirs(lambda params: other(params, **both, **yours), dtype, sign)
    differences = tree.differences(got, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert not differences, differences
    assert tree.differences(got, begin(dtype), rtol=1e-3, atol=1e-3), "nothing was learnt"
    return state, optimizer


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_it_is_pytorchs(name, dtype):
    compare(name, dtype)


@pytest.mark.parametrize("name", COMPLEX_CASES)
def test_with_complex_parameters_it_is_pytorchs(name):
    compare(name, COMPLEX)


@pytest.mark.parametrize("dtype", [DOUBLE, COMPLEX], ids=str)
def test_the_mean_of_asgd_is_pytorchs(dtype):
    state, optimizer = compare("asgd, its own", dtype)
    means = [optimizer.state[p]["ax"] for p in optimizer.param_groups[0]["params"]]
    for got, expected in zip(tree.leaves(state[-1]["average"]), means, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


# --- Muon ---

SHAPES = {"wide": (2, 5), "tall": (5, 2), "square": (3, 3)}


def pull(params, step):
    """A gradient that does not depend on the parameters: Muon iterates in bfloat16, which magnifies differences."""
    generator = torch.Generator().manual_seed(step)
    return tree.map(lambda p: torch.randn(p.shape, generator=generator, dtype=p.dtype), params)


@pytest.mark.parametrize(
    "mine, yours",
    [
        ({}, {}),
        ({"nesterov": False, "momentum": 0.5}, {"nesterov": False, "momentum": 0.5}),
        ({"rule": "match_rms_adamw", "weight_decay": 0.0}, {"adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.0}),
        (
            {"coefficients": (2.0, -1.5, 0.5), "steps": 3, "eps": 1e-3},
            {"ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 3, "eps": 1e-3},
        ),
    ],
)
def test_muon_is_pytorchs(mine, yours):
    params = {name: torch.ones(shape) for name, shape in SHAPES.items()}
    weights = [leaf.clone().requires_grad_() for leaf in params.values()]
    transform, optimizer = optim.muon(0.02, **mine), torch.optim.Muon(weights, 0.02, **yours)
    state = transform.init(params)
    for step in range(STEPS):
        gradients = pull(params, step)
        params, state = optim.step(transform, gradients, state, params)
        for weight, gradient in zip(weights, gradients.values(), strict=True):
            weight.grad = gradient
        optimizer.step()
    for got, weight in zip(params.values(), weights, strict=True):
        torch.testing.assert_close(got, weight.detach(), rtol=1e-4, atol=1e-4)
        assert (got - 1).abs().max() > 0.05


def test_muon_gives_what_is_no_matrix_to_the_others():
    params = {"w": torch.ones(2, 2), "b": torch.ones(2), "conv": torch.ones(2, 2, 3)}
    gradients = pull(params, 0)
    transform = optim.muon(0.1, weight_decay=0.3, others=optim.sgd(0.5))
    after, _ = optim.step(transform, gradients, transform.init(params), params)
    for name in ("b", "conv"):
        torch.testing.assert_close(after[name], params[name] - 0.5 * gradients[name])
    default, adamw = optim.muon(0.1, weight_decay=0.3), optim.adamw(0.1, weight_decay=0.3)
    rest = {name: params[name] for name in ("b", "conv")}
    got, _ = optim.step(default, gradients, default.init(params), params)
    expected, _ = optim.step(adamw, {name: gradients[name] for name in rest}, adamw.init(rest), rest)
    assert tree.equal({name: got[name] for name in rest}, expected)


def test_muon_of_chosen_matrices():
    transform = optim.muon(0.1, matrices="0.*", others=optim.sgd(0.0))
    params = {"0": {"w": torch.ones(2, 2)}, "1": {"w": torch.ones(2, 2)}}
    after, _ = optim.step(transform, pull(params, 0), transform.init(params), params)
    assert torch.equal(after["1"]["w"], params["1"]["w"]) and not torch.equal(after["0"]["w"], params["0"]["w"])
