"""Transforms: what is refused, in words."""

import inspect
import math
import re

import pytest
import torch
from every_transform import KEY, RISE, TRANSFORMS, draw

from functrain import optim, schedule
from functrain.errors import DuplicateName, InvalidArgument, TreeMismatch

SGD = optim.sgd(0.1)

# --- bad input ---

TAKES_A_TREE = ["sgd", "sgd with all", "adamw", "chain", "partition"]


@pytest.mark.parametrize("name", TAKES_A_TREE)
@pytest.mark.parametrize(
    "change, line",
    [
        ({"temperature": torch.ones(1)}, r"temperature: expected float32\(\), got float32\(1,\)"),
        ({"0": {"weight": torch.ones(3, 2)}}, r"0\.bias: expected float32\(3,\), got nothing"),
        ({"0": {"weight": torch.ones(3, 2), "bias": torch.ones(3, 1)}}, r"0\.bias: expected .*, got float32\(3, 1\)"),
        ({"extra": torch.ones(1)}, r"extra: expected nothing, got float32\(1,\)"),
    ],
)
def test_gradients_unlike_the_parameters_are_named(name, change, line):
    transform, params = TRANSFORMS[name], draw(0)
    with pytest.raises(TreeMismatch, match=rf"the gradients must have the structure of the parameters, but:\n  {line}"):
        transform.update({**draw(1), **change}, transform.init(params), params, optim.Context(loss=1.0))
    with pytest.raises(TreeMismatch, match=rf"the gradients must have the structure of the parameters, but:\n  {line}"):
        optim.step(transform, {**draw(1), **change}, transform.init(params), params, optim.Context(loss=1.0))
    with pytest.raises(TreeMismatch, match=rf"the updates must have the structure of the parameters, but:\n  {line}"):
        optim.apply_updates(params, {**draw(1), **change})


def test_a_sequence_where_a_dict_is_expected_is_a_mismatch():
    with pytest.raises(TreeMismatch, match="the updates"):
        optim.apply_updates({"0": torch.ones(2)}, [torch.ones(2)])


@pytest.mark.parametrize("name", ["trace", "scale by adam", "accumulate"])
def test_a_state_of_other_parameters_is_named(name):
    transform = TRANSFORMS[name]
    state = transform.init({"other": torch.ones(2)})
    with pytest.raises(
        TreeMismatch, match=r"the optimizer state must have the structure of the gradients \(was it made"
    ):
        transform.update(draw(1), state, draw(0), optim.Context(loss=1.0))


def test_weight_decay_alone_names_the_gradients():
    with pytest.raises(TreeMismatch, match="the gradients must have the structure of the parameters"):
        TRANSFORMS["weight decay"].update({"w": torch.ones(2)}, (), draw(0), optim.Context())


@pytest.mark.parametrize("momentum, dampening", [(0.0, 0.0), (0.9, 0.1), (0, 0.5), (0.9, RISE)])
def test_nesterov_needs_momentum_and_no_dampening(momentum, dampening):
    for make in (lambda: optim.trace(momentum, dampening, True), lambda: optim.sgd(0.1, momentum, dampening, True)):
        with pytest.raises(InvalidArgument, match="nesterov needs a momentum and no dampening, got momentum="):
            make()


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: optim.sgd(-0.1), "lr"),
        (lambda: optim.sgd(lambda position: 0.1), "lr"),
        (lambda: optim.sgd(0.1, momentum=-0.1), "momentum"),
        (lambda: optim.sgd(0.1, momentum=0.9, dampening="a"), "dampening"),
        (lambda: optim.sgd(0.1, weight_decay=-1), "weight_decay"),
        (lambda: optim.adam(b1=1.0), "b1"),
        (lambda: optim.adam(b2=-0.1), "b2"),
        (lambda: optim.adamw(eps=-1e-8), "eps"),
        (lambda: optim.clip_by_global_norm(-1.0), "max_norm"),
        (lambda: optim.scale(float("nan")), "factor"),
    ],
)
def test_a_hyperparameter_out_of_range_is_named(make, name):
    with pytest.raises(InvalidArgument, match=f"^{name} must be a number"):
        make()


def test_what_is_no_transform_is_refused():
    with pytest.raises(InvalidArgument, match=r"piece 1 of the chain must be a Transform, got .*; call it to make one"):
        optim.chain(optim.identity, optim.sgd)
    with pytest.raises(InvalidArgument, match=r"piece 0 of the chain must be a Transform, got 0.1"):
        optim.chain(0.1)


# --- what a docstring says of a number is what is checked ---

ENOUGH = {
    "lr": 0.1, "max_norm": 1.0, "noise_multiplier": 1.0, "momentum": 0.9, "transform": SGD, "optimizer": SGD,
    "piece": optim.scale_by_adam(), "make": optim.sgd, "k": 2, "most": 2, "weight_decay": 0.1, "threshold": 1.0,
    "max_delta": 1.0, "factor": 0.5, "lr_decay": 0.1, "lower": -1.0, "upper": 1.0, "rank": 2, "is_open": 1.0,
    "start": 0.1, "end": 0.2, "peak": 1.0, "part": 0.3, "schedule": RISE, "low": 0.1, "high": 1.0, "stairs": 3,
    "every": 0.25, "width": 8, "warmup": 4, "value": 0.1, "power": 2.0, "milestones": [0.5], "values": [1.0, 2.0],
    "parts": [0.5, 0.5], "schedules": [RISE, RISE], "n": 4, "minimum": 0.1, "maximum": 0.5,
}  # fmt: skip
"""Arguments that have no default -> what fits."""

OUTSIDE = {
    r"at least 0(?!\.)": [-1],
    "above 0|positive": [0, -1],
    r"in \[0, 1\)": [1.0, -0.1],
    r"in \(0, 1\)": [0.0, 1.0],
    r"at least 1(?!\d)": [0],
    "at most 0": [0.5],
}
"""What a docstring says -> what is not so."""


def documented():
    """Of each factory all numbers that it takes: (its name, the arguments that fit, the number's name, what is out)."""
    for module in (optim, schedule):
        for name in module.__all__:
            make = getattr(module, name)
            if not inspect.isfunction(make) or "Args:" not in (make.__doc__ or ""):
                continue
            needed = [p.name for p in inspect.signature(make).parameters.values() if p.default is p.empty]
            if not set(needed) <= ENOUGH.keys() or name in ("inject", "interpolate"):
                continue
            said = re.sub(r"\s+", " ", make.__doc__.split("Args:")[1].split("Raises:")[0])
            for argument in inspect.signature(make).parameters:
                text = re.search(rf" {argument}: (.*?)(?= \w+: |$)", said)
                bad = [
                    value for words, values in OUTSIDE.items() if text and re.search(words, text[1]) for value in values
                ]
                if bad:
                    yield pytest.param(
                        make, {key: ENOUGH[key] for key in needed}, argument, bad, id=f"{name} {argument}"
                    )


@pytest.mark.parametrize(("make", "fits", "argument", "bad"), list(documented()))
def test_what_is_outside_of_what_the_docstring_says_is_refused(make, fits, argument, bad):
    make(**fits)
    for value in [*bad, math.nan, "a", object()]:
        with pytest.raises(InvalidArgument, match=argument):
            make(**{**fits, argument: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.step(optim.sgd, {}, (), {}), "transform must be a Transform, got the function sgd; call it"),
        (lambda: optim.step(SGD, {}, ((),), {}, 0.5), "context must be an optim.Context, such as .*, got 0.5"),
        (lambda: optim.hyperparameters(optim.sgd), "transform must be a Transform, got the function sgd; call it"),
        (lambda: optim.updates_made(optim.sgd, ()), "transform must be a Transform, got the function sgd; call it"),
        (lambda: optim.named(1, SGD), "name must be a string, got 1"),
        (lambda: optim.named_chain([SGD]), "needs a dict of transforms by name, got"),
        (lambda: optim.per_leaf("x", 3), r"formula must be a function of \(now, gradient, parameter, \*slots\), got 3"),
        (lambda: optim.unfreeze_gradually(SGD, ["a", "b"], 0.5), "milestones must be a list, got 0.5"),
        (lambda: optim.unfreeze_gradually(SGD, "a", []), "groups must be a list, got 'a'"),
        (lambda: optim.lbfgs(c1="a"), "c1 and c2 must be numbers with 0 < c1 < c2 < 1, got 'a' and 0.9"),
        (lambda: optim.rprop(least=2.0, most=1.0), "least must be at most most, got least=2.0, most=1.0"),
        (lambda: optim.rprop(grow=math.inf), "grow must be a finite number"),
        (lambda: optim.muon(coefficients=("a", 1, 2)), "coefficients must be three numbers"),
        (lambda: optim.muon(coefficients=3.0), "coefficients must be three numbers, got 3.0"),
        (lambda: optim.muon(dtype="float32"), "dtype must be a floating-point torch.dtype, .* got 'float32'"),
        (lambda: optim.muon(dtype=torch.int64), "dtype must be a floating-point torch.dtype, .* got torch.int64"),
        (lambda: schedule.multistep(0.1, 0.5), "milestones must be a list, got 0.5"),
        (lambda: schedule.multistep("0.1", [0.5]), "start must be a finite number, got '0.1'"),
        (lambda: schedule.piecewise_constant(0.5, [1, 2]), "milestones must be a list, got 0.5"),
        (lambda: schedule.piecewise_constant([0.5], 1), "values must be a list, got 1"),
        (lambda: schedule.interpolate([0.5], None), "values must be a list, got None"),
        (lambda: schedule.join(1.0, [RISE]), "parts must be a list, got 1.0"),
        (lambda: schedule.join([1.0], RISE), "schedules must be a list, got linear"),
        (lambda: schedule.cosine_restarts(None), "start must be a finite number, got None"),
        (lambda: schedule.exp_range("a", 1.0), "low must be a finite number, got 'a'"),
        (lambda: schedule.triangular2(0.0, math.inf), "high must be a finite number, got inf"),
    ],
)
def test_what_is_of_another_kind_is_refused_in_words(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()


# --- leaves that have one path ---

TWINS = {"a.b": torch.ones(3), "a": {"b": torch.full((3,), 5.0)}}
OF_PATHS = {
    "partition": optim.partition({"x": SGD, "y": SGD}, {"x": lambda path, leaf: True, "y": ...}),
    "freeze": optim.freeze("a.*", SGD),
    "noise": optim.noisy_sgd(0.1),
    "private noise": optim.add_private_noise(1.0, 1.0, lot_size=4),
    "rounding": optim.round_stochastically(SGD),
    "short state": optim.short_state(optim.adam()),
    "sophia": optim.sophia(0.1, every=1),
}


@pytest.mark.parametrize("name", OF_PATHS)
def test_leaves_of_one_path_are_refused_where_paths_tell_them_apart(name):
    # One of them got the other's update, or both the same noise.
    transform = OF_PATHS[name]
    with pytest.raises(DuplicateName, match=r"two leaves have the path '.*a\.b'"):
        context = optim.Context(key=KEY, evaluate=lambda p: (torch.ones(()), p))
        optim.step(transform, TWINS, transform.init(TWINS), TWINS, context)


def test_leaves_of_one_path_have_no_state_of_torchs_and_no_average():
    free = optim.schedule_free_sgd(0.1)
    with pytest.raises(DuplicateName, match=r"two leaves have the path 'a\.b'"):
        optim.to_torch(SGD, SGD.init(TWINS), TWINS)
    with pytest.raises(DuplicateName, match=r"two leaves have the path 'a\.b'"):
        optim.evaluation_params(free.init(TWINS), TWINS)
    assert optim.step(SGD, TWINS, SGD.init(TWINS), TWINS)[0]["a"]["b"][0] == 4.5  # where places do
