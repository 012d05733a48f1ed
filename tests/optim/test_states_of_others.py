"""A state of another optimizer, gradients of another kind, and parameters that are none: refused, and in words."""

import pytest
import torch
from every_optimizer import OPTIMIZERS

import functrain as ft
from functrain import optim, random, tree
from functrain.errors import DtypeMismatch, FunctrainError, NotATensor, TreeMismatch

PARAMS = {"w": torch.ones(3, 2), "b": torch.ones(2)}
GRADS = {"w": torch.full((3, 2), 0.1), "b": torch.full((2,), 0.2)}
WITHOUT_SLOTS = {"noisy_sgd", "polyak_sgd"}
"""Whose state says nothing of the parameters, or does not exist."""

OTHERS = {
    "nothing": lambda params: (),
    "None": lambda params: None,
    "a dict": lambda params: {},
    "sgd": optim.sgd(0.1, momentum=0.9).init,
    "adam": optim.adam().init,
    "a bare piece": optim.scale_by_adam().init,
    "adafactor": optim.adafactor().init,
    "a wrapper": optim.lookahead(2, 0.5, optim.adam()).init,
}


def step(optimizer, state, grads=GRADS, params=PARAMS, jit=False):
    def one(params, state, grads):
        evaluate = ft.value_and_grad(lambda p: sum(leaf.square().sum() for leaf in tree.leaves(p)))
        context = optim.Context(key=random.key(0), loss=1.0, evaluate=evaluate)
        return optim.step(optimizer, grads, state, params, context)

    return (ft.jit(one) if jit else one)(params, state, grads)


def around(make):
    optimizer = make(0.1)
    return optimizer, optim.chain(optim.clip_by_global_norm(1.0), optimizer), optim.freeze("b", optimizer)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_of_another_optimizer_is_refused(name, other):
    for optimizer in around(OPTIMIZERS[name][0]):
        state = OTHERS[other](PARAMS)
        try:
            after = step(optimizer, state)
        except TreeMismatch as error:
            assert "state must" in str(error), str(error)
        else:  # then it is no other one's, or nothing is kept
            own = optimizer.init(PARAMS)
            assert tree.structure(own) == tree.structure(state) or name in WITHOUT_SLOTS
            assert tree.structure(after[1]) == tree.structure(state)


def test_the_message_names_the_transform_and_what_differs():
    with pytest.raises(TreeMismatch) as error:
        step(optim.adam(0.1), optim.sgd(0.1, momentum=0.9).init(PARAMS))
    lines = str(error.value).splitlines()
    assert lines[0] == (
        "the optimizer state must have the structure of that of adam(lr=0.1, b1=0.9, b2=0.999, eps=1e-08) (was it made "
        "by its init, for these parameters?), but:"
    )
    assert "  0.mean.w: expected float32(3, 2), got nothing" in lines
    assert "  0.buffer.w: expected nothing, got float32(3, 2)" in lines


def test_a_state_without_tensors_is_named_too():
    with pytest.raises(TreeMismatch, match=r"that of chain\(clip_by.* and differs in its branches"):
        step(optim.chain(optim.clip_by_global_norm(1.0), optim.scale(-0.1)), ())


def test_compiled_refuses_it_as_well():
    with pytest.raises(TreeMismatch, match="the optimizer state must have the structure of that of"):
        step(optim.adam(0.1), optim.sgd(0.1, momentum=0.9).init(PARAMS), jit=True)


def test_what_a_users_function_raises_is_passed_on():
    def fails(updates, params, context):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        step(optim.chain(optim.stateless(fails), optim.adam(0.1)), ((), optim.adam(0.1).init(PARAMS)))


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "sam"])  # which takes gradients of its own
def test_a_complex_gradient_of_a_real_parameter_is_refused(name):
    grads = {"w": GRADS["w"].to(torch.complex64), "b": GRADS["b"]}
    for optimizer in around(OPTIMIZERS[name][0]):
        with pytest.raises(DtypeMismatch, match=r"must be of the kind of their parameters, but w is complex64\(3, 2\)"):
            step(optimizer, optimizer.init(PARAMS), grads)


def test_what_cannot_take_whole_numbers_says_which_they_are():
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.sgd(0.1))
    with pytest.raises(DtypeMismatch, match=r"but b is int64\(2,\), and the parameter float32\(2,\)"):
        step(optimizer, optimizer.init(PARAMS), {**GRADS, "b": torch.ones(2, dtype=torch.int64)})


@pytest.mark.parametrize("leaf", [None, 1.0, "w", torch.nn.Linear(1, 1)], ids=["None", "number", "word", "module"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_that_is_no_tensor_is_named(name, leaf):
    for optimizer in around(OPTIMIZERS[name][0]):
        with pytest.raises((DtypeMismatch, NotATensor), match=r"parameters.*w"):
            optimizer.init({"w": leaf, "b": torch.ones(2)})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: optim.accumulate(2, inner),
        lambda inner: optim.lookahead(2, 0.5, inner),
        lambda inner: optim.mechanize(inner),
        lambda inner: optim.schedule_free(lambda lr: inner, 0.1),
        lambda inner: optim.skip_nonfinite(inner),
        lambda inner: optim.short_state(inner),
        lambda inner: optim.round_stochastically(inner),
        lambda inner: optim.low_rank(inner, 1),
    ],
)
def test_nor_does_a_wrapper_fail_without_words(wrap):
    for inner in (optim.sgd(0.1, momentum=0.9), optim.identity):
        wrapped = wrap(inner)
        for leaf in (None, 1.0):
            try:
                wrapped.init({"w": leaf, "b": torch.ones(2)})
            except FunctrainError:
                continue
            assert inner is optim.identity  # which keeps nothing
