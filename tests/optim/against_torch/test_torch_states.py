"""A run that begins in torch.optim and goes on with ours, and the reverse, is the whole run of either."""

import math

import pytest
import torch

from functrain import optim, tree
from functrain.errors import InvalidArgument, TreeMismatch

BEGIN = {
    "0": {"weight": torch.tensor([[1.0, -2.0], [0.5, 3.0]]), "bias": torch.tensor([0.5])},
    "scale": torch.tensor(2.0),
}
PAIRS = {
    "sgd": (optim.sgd(0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (optim.sgd(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    "nesterov": (
        optim.sgd(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    ),
    "adam": (optim.adam(0.1, weight_decay=0.1), lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1)),
    "adamw": (optim.adamw(0.1), lambda p: torch.optim.AdamW(p, lr=0.1)),
    "clipped adamw": (
        optim.chain(optim.clip_by_global_norm(1e6), optim.adamw(0.1)),
        lambda p: torch.optim.AdamW(p, lr=0.1),
    ),
}
pairs = pytest.mark.parametrize("name", PAIRS)


def gradients(params, step):
    return tree.map(lambda p: p.sin() + math.sin(step), params)


def torch_steps(optimizer, leaves, steps):
    for step in steps:
        for leaf, grad in zip(leaves, tree.leaves(gradients([x.detach() for x in leaves], step)), strict=True):
            leaf.grad = grad
        optimizer.step()


def our_steps(transform, params, state, steps):
    for step in steps:
        params, state = optim.step(transform, gradients(params, step), state, params)
    return params, state


def leaves_of(params):
    return [leaf.clone().requires_grad_() for leaf in tree.leaves(params)]


def close(a, b):
    assert not tree.differences(a, b, rtol=1e-5, atol=1e-6)


@pairs
@pytest.mark.parametrize("before", [0, 5])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_run_moves_from_torch(name, before, backwards):
    transform, make = PAIRS[name]
    leaves = leaves_of(BEGIN)
    optimizer = make(leaves[::-1] if backwards else leaves)
    torch_steps(optimizer, leaves, range(before))
    params = tree.unflatten(tree.structure(BEGIN), [leaf.detach().clone() for leaf in leaves])
    paths = tree.paths(BEGIN)[::-1] if backwards else None
    state = optim.from_torch(transform, optimizer.state_dict(), params, paths)
    assert tree.map(tree.describe, state) == tree.map(tree.describe, transform.init(params))
    after, _ = our_steps(transform, params, state, range(before, 12))
    torch_steps(optimizer, leaves, range(before, 12))
    close(tree.leaves(after), [leaf.detach() for leaf in leaves])


@pairs
@pytest.mark.parametrize("backwards", [False, True])
def test_a_run_moves_to_torch(name, backwards):
    transform, make = PAIRS[name]
    params, state = our_steps(transform, BEGIN, transform.init(BEGIN), range(5))
    leaves = leaves_of(params)
    optimizer = make(leaves[::-1] if backwards else leaves)
    paths = tree.paths(BEGIN)[::-1] if backwards else None
    optimizer.load_state_dict({**optimizer.state_dict(), "state": optim.to_torch(transform, state, params, paths)})
    torch_steps(optimizer, leaves, range(5, 12))
    after, _ = our_steps(transform, params, state, range(5, 12))
    close(tree.leaves(after), [leaf.detach() for leaf in leaves])


@pairs
def test_there_and_back_is_the_same(name):
    transform, make = PAIRS[name]
    params, state = our_steps(transform, BEGIN, transform.init(BEGIN), range(3))
    optimizer = make(leaves_of(params))
    optimizer.load_state_dict({**optimizer.state_dict(), "state": optim.to_torch(transform, state, params)})
    assert tree.equal(optim.from_torch(transform, optimizer.state_dict(), params), state)


def stepped(make, steps=1):
    leaves = leaves_of(BEGIN)
    optimizer = make(leaves)
    torch_steps(optimizer, leaves, range(steps))
    return optimizer.state_dict()


def test_dtypes_are_those_of_init():
    params = tree.map(lambda p: p.bfloat16(), BEGIN)
    state = optim.from_torch(optim.adam(), stepped(torch.optim.Adam), params)
    assert tree.map(tree.describe, state) == tree.map(tree.describe, optim.adam().init(params))


SKIPPING = optim.skip_nonfinite(optim.adam())
ADAM = stepped(torch.optim.Adam)
UNEVEN = {**ADAM, "state": {**ADAM["state"], 1: {**ADAM["state"][1], "step": torch.tensor(7.0)}}}
PARTIAL = {**ADAM, "state": {0: ADAM["state"][0]}}
BACKWARDS = tree.paths(BEGIN)[::-1]
REFUSED = [
    (lambda: optim.from_torch(optim.sgd(0.1), ADAM, BEGIN), InvalidArgument, "keeps nothing, and the torch"),
    (lambda: optim.from_torch(optim.sgd, ADAM, BEGIN), InvalidArgument, "transform must be a Transform"),
    (lambda: optim.from_torch(optim.adam(), {}, BEGIN), InvalidArgument, r"state must be the state_dict\(\)"),
    (
        lambda: optim.from_torch(optim.adam(), ADAM, {"a": torch.ones(1)}),
        InvalidArgument,
        "has 3 parameters.*has 1",
    ),
    (lambda: optim.from_torch(optim.adam(), UNEVEN, BEGIN), InvalidArgument, r"different steps.*\[1, 7\]"),
    (lambda: optim.from_torch(optim.adam(), PARTIAL, BEGIN), InvalidArgument, "some of its parameters only"),
    (lambda: optim.from_torch(optim.adam(), ADAM, BEGIN, BACKWARDS), TreeMismatch, "has the shape .*give `paths`"),
    (lambda: optim.from_torch(optim.adam(), ADAM, BEGIN, ["a"]), InvalidArgument, "paths must be those of params"),
    (
        lambda: optim.from_torch(optim.adam(), stepped(lambda p: torch.optim.Adam(p, amsgrad=True)), BEGIN),
        InvalidArgument,
        "this state keeps 'max_exp_avg_sq'",
    ),
    (
        lambda: optim.to_torch(optim.lion(), optim.lion().init(BEGIN), BEGIN),
        InvalidArgument,
        "SGD, with or without momentum, Adam and AdamW, and lion",
    ),
    (
        lambda: optim.to_torch(optim.adam(), (optim.adam().init(BEGIN),) * 2, BEGIN),
        InvalidArgument,
        "twice, and a torch optimizer once",
    ),
    (
        lambda: optim.to_torch(SKIPPING, SKIPPING.init(BEGIN), BEGIN),
        InvalidArgument,
        "this holds Skipped; take the optimizer inside",
    ),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED)
def test_what_does_not_fit_is_refused_in_words(make, error, message):
    with pytest.raises(error, match=message):
        make()
