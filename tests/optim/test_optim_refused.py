"""Transforms: what is refused, in words."""

import pytest
import torch
from every_transform import RISE, TRANSFORMS, draw

from functrain import optim
from functrain.errors import InvalidArgument, TreeMismatch

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
