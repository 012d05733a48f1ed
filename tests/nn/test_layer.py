"""`layer`, `stateful_layer`, `composite` and the door for functions: what they promise, and what they refuse."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from functrain import engine, initializers, losses, nn, optim, random, train, tree
from functrain.errors import (
    HiddenRandomness,
    InvalidArgument,
    NotATensor,
    ShapeMismatch,
    SideEffect,
    TreeMismatch,
)

KEY = random.key(5)
X = torch.linspace(-1, 1, 12).reshape(4, 3)


def scale():
    return nn.layer("scale", lambda x: {"scale": torch.ones(x.shape[-1])}, lambda p, x: x * p["scale"])


def bias(initializer):
    return nn.layer("bias", lambda x: {"bias": (x.shape[1:], initializer)}, lambda p, x: x + p["bias"])


def counter():
    return nn.stateful_layer(
        "counter", None, lambda x: {"calls": torch.tensor(0)}, lambda p, b, x, mode: (x, {"calls": b["calls"] + 1})
    )


# A layer of a formula.


def test_a_declared_parameter_is_drawn_from_the_key_and_its_name():
    params, buffers = bias(initializers.normal()).init(KEY, X)
    assert tree.equal(params, {"bias": initializers.normal()(random.fold_in(KEY, "bias"), (3,))})
    assert buffers == {}


def test_a_declared_parameter_has_the_dtype_of_the_example():
    assert bias(initializers.ones()).init(KEY, X.double())[0]["bias"].dtype == torch.float64
    assert bias(initializers.ones()).init(KEY, X.long())[0]["bias"].dtype == torch.float32


def test_a_layer_trains_in_a_model_like_those_of_the_library():
    model = nn.serial(nn.dense(5), scale(), torch.tanh, counter(), nn.dense(2))
    learner = train.Learner(model, losses.mse, optim.sgd(lr=0.1))
    batch = X, X[:, :2]
    state = train.init(learner, KEY, batch)
    step = train.train_step(learner)
    eager, _ = step(state, batch)
    compiled, _ = engine.jit(step)(state, batch)
    assert not torch.equal(eager.params["1"]["scale"], state.params["1"]["scale"])
    assert int(eager.buffers["3"]["calls"]) == 1
    assert tree.differences(eager.params, compiled.params, rtol=1e-6, atol=1e-7) == []


def test_the_formula_of_a_layer_runs_under_vmap():
    layer = bias(initializers.normal())
    params = engine.vmap(lambda key: layer.init(key, X)[0])(random.split(KEY, 3))
    found = engine.vmap(lambda p: layer.apply(p, {}, X)[0])(params)
    assert torch.equal(found, torch.stack([X + row for row in params["bias"]]))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.layer("mine", None, 3), InvalidArgument, r"apply must be a function of \(params, x\), got 3"),
        (
            lambda: nn.layer("mine", {}, torch.relu),
            InvalidArgument,
            r"params must be a function of the example, got {}",
        ),
        (
            lambda: nn.stateful_layer("mine", None, {}, lambda p, b, x, m: (x, b)),
            InvalidArgument,
            r"buffers must be a function of the example",
        ),
        (
            lambda: nn.layer("mine", lambda x: {"a": 1.0}, lambda p, x: x).init(KEY, X),
            NotATensor,
            r"mine: a must be a tensor or a pair \(shape, initializer\), got float",
        ),
        (
            lambda: nn.layer("mine", lambda x: {"a": ((2,), lambda *_: torch.ones(3))}, lambda p, x: x).init(KEY, X),
            ShapeMismatch,
            r"mine: a: the initializer must return shape \(2,\), got \(3,\)",
        ),
        (
            lambda: nn.stateful_layer("mine", None, lambda x: {"n": 0}, lambda p, b, x, m: (x, b)).init(KEY, X),
            NotATensor,
            r"mine: the buffer n must be a tensor, got int; .*torch.tensor\(number\)",
        ),
    ],
)
def test_what_a_layer_cannot_be_made_of_is_an_error(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.dense(2, bias=False), X),
        (nn.layer_norm(bias=False), X),
        (nn.conv(2, 1, bias=False), X[:, :, None, None]),
        (nn.embedding(4, 2), torch.tensor([1])),
        (nn.batch_norm(affine=False), X),
        (nn.dropout(0.5), X),
        (nn.max_pool(1), X[:, :, None, None]),
        (scale(), X),
        (counter(), X),
    ],
    ids=str,
)
def test_a_surplus_parameter_is_an_error_and_not_ignored(layer, x):
    params, buffers = layer.init(KEY, x)
    layer.apply(params, buffers, x)
    with pytest.raises(TreeMismatch, match=r"params must hold .*got other too"):
        layer.apply({**params, "other": torch.zeros(2)}, buffers, x)
    with pytest.raises(TreeMismatch, match=r"buffers must hold .*got other too"):
        layer.apply(params, {**buffers, "other": torch.zeros(2)}, x)


@pytest.mark.parametrize("model", [nn.serial(nn.dense(3)), nn.residual(nn.dense(3)), nn.parallel(nn.dense(3))], ids=str)
def test_a_surplus_layer_is_an_error(model):
    params, buffers = model.init(KEY, X)
    with pytest.raises(TreeMismatch, match=r"params hold head, but the layers are"):
        model.apply({**params, "head": {}}, buffers, X)
    with pytest.raises(TreeMismatch, match=r"buffers hold head, but the layers are"):
        model.apply(params, {**buffers, "head": {}}, X)


def test_a_failure_of_the_formula_that_is_no_misfit_stays_what_it_is():
    def apply(p, x):
        raise ZeroDivisionError("of the formula")

    with pytest.raises(ZeroDivisionError, match="of the formula"):
        nn.serial(nn.layer("mine", None, apply)).apply({}, {}, X)


def test_takes_says_why_the_formula_failed():
    def takes(label, x, params):
        if params is not None and x.shape[-1] != len(params["scale"]):
            raise ShapeMismatch(f"{label}: as many as at init")

    layer = nn.layer("mine", lambda x: {"scale": torch.ones(x.shape[-1])}, lambda p, x: x * p["scale"], takes=takes)
    with pytest.raises(ShapeMismatch, match="mine: as many as at init"):
        layer.apply(*layer.init(KEY, X), X[:, :2])


def test_a_wrong_input_of_a_layer_without_takes_is_explained_by_its_own_declarations():
    layer = nn.layer("low", lambda x: {"down": ((2, x.shape[-1]), initializers.ones())}, lambda p, x: x @ p["down"].T)
    params, buffers = layer.init(KEY, X)
    with pytest.raises(ShapeMismatch, match=r"low: .*with float32\(4, 2\) the parameter down would have shape"):
        layer.apply(params, buffers, X[:, :2])


# Models by hand.


def test_a_call_of_a_model_says_how_it_is_applied():
    with pytest.raises(InvalidArgument, match=r"a model is not called.*model.apply\(params, buffers, x\).*dense\(2\)"):
        nn.dense(2)(X)


def test_an_apply_without_mode_is_an_error_in_words():
    model = nn.Model(lambda key, x: ({}, {}), lambda params, buffers, x: (x, buffers), label="mine")
    with pytest.raises(InvalidArgument, match=r"in layer 0: mine: apply must take \(params, buffers, x, mode\)"):
        nn.serial(model).init(KEY, X)


@pytest.mark.parametrize("y", [X[:2], X, [X, {}]])
def test_an_apply_that_returns_only_y_is_an_error_even_where_y_unpacks(y):
    model = nn.Model(lambda key, x: ({}, {}), lambda params, buffers, x, mode: y, label="mine")
    with pytest.raises(NotATensor, match=r"in layer 0: mine: apply must return the pair \(y, buffers\), got"):
        nn.serial(model).apply({}, {}, X)


@pytest.mark.parametrize("held", [({"a": 1}, {}), ({}, {"deep": {"n": 0}}), (None, {})])
def test_what_is_no_tensor_in_a_state_is_an_error(held):
    model = nn.Model(lambda key, x: held, lambda params, buffers, x, mode: (x, buffers), label="mine")
    with pytest.raises(NotATensor, match=r"in layer 0: mine: (params|buffers)( at [a-z.]+)? must be a"):
        nn.serial(model).init(KEY, X)


# Functions as layers.


@pytest.mark.parametrize(
    ("f", "label"),
    [
        (torch.relu, "relu"),
        (partial(F.leaky_relu, negative_slope=0.2), "leaky_relu"),
        (lambda x: 2 * x, "lambda"),
        (nn.flatten, "flatten"),
    ],
)
def test_a_plain_function_is_a_layer(f, label):
    model = nn.serial(nn.dense(2), f)
    params, buffers = model.init(KEY, X)
    y, after = model.apply(params, buffers, X)
    assert torch.equal(y, f(F.linear(X, params["0"]["weight"], params["0"]["bias"])))
    assert list(params) == ["0"]
    assert (buffers, after) == ({}, {})
    assert repr(model) == f"serial(dense(2), {label})"


def impure(kind):
    weight = torch.ones(3, requires_grad=True)
    return {
        "draws": lambda x: F.dropout(x, 0.5),
        "writes": lambda x: x.mul_(2),
        "writes to a view": lambda x: x[:1].zero_(),
        "closes over a parameter": lambda x: x * weight,
        "returns a layer": lambda x: nn.dense(3),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("draws", HiddenRandomness, r"in layer 0: the function lambda draws from PyTorch's global generator"),
        ("writes", SideEffect, r"in layer 0: the function lambda writes to its input"),
        ("writes to a view", SideEffect, r"in layer 0: the function lambda writes to its input"),
        ("closes over a parameter", SideEffect, r"closes over a tensor that requires gradients"),
        ("returns a layer", InvalidArgument, r"returned a layer, dense\(3\); call it where the model is made"),
    ],
)
def test_a_function_that_is_not_pure_is_refused_at_init(kind, error, message):
    example, generator = X.clone(), torch.get_rng_state()
    with pytest.raises(error, match=message):
        nn.serial(impure(kind)).init(KEY, example)
    assert torch.equal(example, X)
    assert torch.equal(generator, torch.get_rng_state())


# Composites.


def gated(out):
    return nn.composite(
        "gated", lambda child, x: child.value(x) * torch.sigmoid(child.gate(x)), value=nn.dense(out), gate=nn.dense(out)
    )


def test_a_composite_is_its_formula():
    params, buffers = gated(2).init(KEY, X)
    value, gate = (F.linear(X, params[name]["weight"], params[name]["bias"]) for name in ("value", "gate"))
    assert torch.equal(gated(2).apply(params, buffers, X)[0], value * torch.sigmoid(gate))
    assert not torch.equal(params["value"]["weight"], params["gate"]["weight"])
    assert list(nn.serial(gated(2)).init(KEY, X)[0]["0"]) == ["value", "gate"]


def test_each_use_of_a_child_shares_parameters_passes_buffers_on_and_draws_otherwise():
    def forward(child, x):
        return torch.stack([child.noisy(x), child.noisy(x), child.noisy(x)])

    model = nn.composite("thrice", forward, noisy=nn.serial(counter(), nn.dropout(0.5)))
    x = torch.ones(4, 32)
    _, buffers = model.init(KEY, x)
    assert int(buffers["noisy"]["0"]["calls"]) == 0
    y, after = model.apply({}, buffers, x, nn.training(KEY))
    assert int(after["noisy"]["0"]["calls"]) == 3
    assert int(buffers["noisy"]["0"]["calls"]) == 0
    assert all(not torch.equal(y[i], y[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert torch.equal(y, model.apply({}, buffers, x, nn.training(KEY))[0])


def test_a_composite_gives_its_mode():
    model = nn.composite("mine", lambda child, x: child.one(x) if child.mode.train else x, one=lambda x: 2 * x)
    with pytest.raises(InvalidArgument, match=r"mine: forward must apply each child to the example, but not one"):
        model.init(KEY, X)
    assert torch.equal(model.apply({}, {}, X, nn.training(KEY))[0], 2 * X)
    assert torch.equal(model.apply({}, {}, X)[0], X)


def test_the_children_of_a_composite_have_their_hyperparameters_and_names():
    model = nn.serial(nn.composite("mine", lambda child, x: child.drop(x), drop=nn.dropout(0.25)))
    assert model.hypers == {"0.drop.rate": 0.25}
    assert repr(model) == "serial(mine)"
    with pytest.raises(AttributeError, match=r"mine has no child 'other', only drop"):
        nn.composite("mine", lambda child, x: child.other(x), drop=nn.dropout(0.25)).init(KEY, X)


def test_an_error_inside_a_composite_names_the_layer():
    model = nn.serial(block=gated(2))
    params, buffers = model.init(KEY, X)
    with pytest.raises(ShapeMismatch, match=r"^in layer block\.value: dense\(2\): the input must"):
        model.apply(params, buffers, X[:, :1])


# Reprs.


def test_a_model_reads_as_it_was_made():
    block = nn.residual(nn.serial(nn.dense(3), nn.relu), nn.dense(3, bias=False))
    model = nn.serial(nn.repeat(2, block), nn.parallel(nn.relu, nn.tanh, combine="concat"), head=nn.dropout(0.1))
    assert repr(model) == (
        "serial(repeat(2, residual(serial(dense(3), relu), dense(3))), parallel(relu, tanh, combine='concat'), "
        "head=dropout(0.1))"
    )
