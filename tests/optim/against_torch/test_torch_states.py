"""A run that begins in torch.optim and goes on with ours, and the reverse, is the whole run of either."""

import math
from functools import partial

import pytest
import torch

import functrain as ft
from functrain import optim, schedule, tree
from functrain.errors import InvalidArgument, TreeMismatch

BEGIN = {
    "0": {"weight": torch.tensor([[1.0, -2.0], [0.5, 3.0]]).double(), "bias": torch.tensor([0.5]).double()},
    "scale": torch.tensor(2.0).double(),
}
T = torch.optim
LR, MOMENTUM, DECAY = {"lr": 0.05}, {"momentum": 0.9}, {"weight_decay": 0.1}
SAME = {
    "sgd": (optim.sgd, T.SGD, [{}, MOMENTUM, MOMENTUM | DECAY | {"nesterov": True}, MOMENTUM | {"dampening": 0.3}]),
    "asgd": (optim.asgd, T.ASGD, [{}, {"lambd": 0.1, "alpha": 0.5} | DECAY]),
    "adam": (optim.adam, T.Adam, [DECAY, {"amsgrad": True}]),
    "adamw": (optim.adamw, T.AdamW, [{}, {"amsgrad": True}]),
    "adamax": (optim.adamax, T.Adamax, [{}]),
    "nadam": (optim.nadam, T.NAdam, [{}]),
    "radam": (optim.radam, T.RAdam, [DECAY]),
    "adagrad": (optim.adagrad, T.Adagrad, [{}, {"lr_decay": 0.1}]),
    "adadelta": (optim.adadelta, T.Adadelta, [{}]),
    "rmsprop": (optim.rmsprop, T.RMSprop, [{}, MOMENTUM, MOMENTUM | {"centered": True}]),
    "rprop": (optim.rprop, T.Rprop, [{}]),
    "adafactor": (optim.adafactor, T.Adafactor, [{}]),
}
PAIRS = {
    f"{name} {options}": (ours(**LR, **options), partial(theirs, **LR, **options))
    for name, (ours, theirs, grid) in SAME.items()
    for options in grid
}
CLIP = optim.clip_by_global_norm(1e6)
TWO = optim.partition({"w": optim.adamw(0.05), "others": optim.adamw(0.01)}, {"w": "*.weight", "others": ...})
PAIRS |= {
    "asgd t0": (optim.asgd(0.05, start=3), partial(T.ASGD, lr=0.05, t0=3)),
    "amsgrad": (optim.amsgrad(0.05), partial(T.Adam, lr=0.05, amsgrad=True)),
    "nadamw": (optim.nadamw(0.05), partial(T.NAdam, lr=0.05, weight_decay=0.01, decoupled_weight_decay=True)),
    "clipped": (optim.chain(CLIP, optim.named("adamw", optim.adamw(0.05))), partial(T.AdamW, lr=0.05)),
    "stochastically rounded": (optim.round_stochastically(optim.adamw(0.05)), partial(T.AdamW, lr=0.05)),
    "by name": (optim.named_chain({"clip": CLIP, "adamw": optim.adamw(0.05)}), partial(T.AdamW, lr=0.05)),
    "lbfgs": (optim.lbfgs(0.05, line_search=None), partial(T.LBFGS, lr=0.05, max_iter=1, history_size=10)),
    "groups": (TWO, lambda leaves: T.AdamW([{"params": [p], "lr": 0.05 if p.dim() == 2 else 0.01} for p in leaves])),
}
KEY = ft.random.key(0)
pairs = pytest.mark.parametrize("name", PAIRS)


def gradients(params, step):
    return tree.map(lambda p: p.sin() + math.sin(step), params)


def torch_steps(optimizer, leaves, steps):
    for step in steps:
        for leaf, grad in zip(leaves, tree.leaves(gradients([x.detach() for x in leaves], step)), strict=True):
            leaf.grad = grad
        optimizer.step(*[lambda: torch.zeros(())] * isinstance(optimizer, torch.optim.LBFGS))


def our_steps(transform, params, state, steps):
    for step in steps:
        params, state = optim.step(transform, gradients(params, step), state, params, optim.Context(key=KEY))
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
    again = optim.from_torch(transform, optimizer.state_dict(), params)
    if "dampening" in name:  # of whose count it matters that it is not 0
        again, state = again[0]["buffer"], state[0]["buffer"]
    # torch.optim keeps NAdam's product in float32, and of a step of L-BFGS how long it was.
    assert not tree.differences(again, state, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_parameters_that_torch_was_given_by_name_are_found_by_name(order):
    """In any order, in several groups, though all are of one shape."""
    square = [torch.eye(2).double() * k for k in (1.0, 2.0, 3.0)]
    params = {"0": {"weight": square[0]}, "1": {"weight": square[1]}, "2": {"weight": square[2]}}
    leaves = leaves_of(params)
    named = list(zip(tree.paths(params), leaves, strict=True))
    groups = [{"params": [named[k] for k in order[:1]]}, {"params": [named[k] for k in order[1:]]}]
    optimizer = T.Adam(groups, lr=0.05)
    torch_steps(optimizer, leaves, range(4))
    params = tree.unflatten(tree.structure(params), [leaf.detach().clone() for leaf in leaves])
    transform = optim.adam(0.05)
    after, _ = our_steps(transform, params, optim.from_torch(transform, optimizer.state_dict(), params), range(4, 8))
    torch_steps(optimizer, leaves, range(4, 8))
    close(tree.leaves(after), [leaf.detach() for leaf in leaves])


COMPLEX = tree.map(lambda p: torch.complex(p, p.flip(0) / 4 if p.dim() else p / 4), BEGIN)


@pytest.mark.parametrize("name", [name for name in PAIRS if not name.startswith("adafactor")])
def test_complex_parameters_move_there_and_on(name):
    transform, make = PAIRS[name]
    leaves = leaves_of(COMPLEX)
    optimizer = make(leaves)
    torch_steps(optimizer, leaves, range(4))
    params = tree.unflatten(tree.structure(COMPLEX), [leaf.detach().clone() for leaf in leaves])
    state = optim.from_torch(transform, optimizer.state_dict(), params)
    params, state = our_steps(transform, params, state, range(4, 7))
    torch_steps(optimizer, leaves, range(4, 7))
    close(tree.leaves(params), [leaf.detach() for leaf in leaves])
    others = leaves_of(params)
    other = make(others)
    other.load_state_dict({**other.state_dict(), "state": optim.to_torch(transform, state, params)})
    for one, its_leaves in ((optimizer, leaves), (other, others)):
        torch_steps(one, its_leaves, range(7, 10))
    close([leaf.detach() for leaf in others], [leaf.detach() for leaf in leaves])


def test_what_is_frozen_has_no_state_there_either():
    transform, leaves = optim.freeze("scale", optim.adamw(0.05)), leaves_of(BEGIN)
    optimizer = T.AdamW([*leaves[:2], leaves[2].requires_grad_(False)], lr=0.05)
    torch_steps(optimizer, leaves[:2], range(4))
    params = tree.unflatten(tree.structure(BEGIN), [leaf.detach().clone() for leaf in leaves])
    state = optim.from_torch(transform, optimizer.state_dict(), params)
    assert optim.to_torch(transform, state, params)[2] == {}
    params, _ = our_steps(transform, params, state, range(4, 8))
    torch_steps(optimizer, leaves[:2], range(4, 8))
    close(tree.leaves(params), [leaf.detach() for leaf in leaves])


def height(params):
    return sum((p.cosh() + (p - 1).square() / 4).sum() for p in tree.leaves(params))


EVALUATE = ft.value_and_grad(height)


def descend(optimizer, leaves, steps):
    def closure():
        optimizer.zero_grad()
        loss = height(leaves)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)


def ours_down(transform, params, state, steps):
    for _ in range(steps):
        loss, grads = EVALUATE(params)
        params, state = optim.step(transform, grads, state, params, optim.Context(loss=loss, evaluate=EVALUATE))
    return params, state


def test_lbfgs_with_its_line_search_moves_either_way():
    transform = optim.lbfgs(0.5, history_size=3)
    leaves = leaves_of(BEGIN)
    options = {"lr": 0.5, "max_iter": 1, "history_size": 3, "line_search_fn": "strong_wolfe"}
    optimizer = T.LBFGS(leaves, **options)
    descend(optimizer, leaves, 3)
    params = tree.unflatten(tree.structure(BEGIN), [leaf.detach().clone() for leaf in leaves])
    params, state = ours_down(transform, params, optim.from_torch(transform, optimizer.state_dict(), params), 2)
    descend(optimizer, leaves, 2)
    close(tree.leaves(params), [leaf.detach() for leaf in leaves])
    other_leaves = leaves_of(params)
    other = T.LBFGS(other_leaves, **options)
    other.load_state_dict({**other.state_dict(), "state": optim.to_torch(transform, state, params)})
    descend(other, other_leaves, 3)
    descend(optimizer, leaves, 3)
    close([leaf.detach() for leaf in other_leaves], [leaf.detach() for leaf in leaves])


def test_muon_moves_either_way_where_all_are_matrices():
    params = {"a": BEGIN["0"]["weight"], "b": torch.linspace(-1, 2, 6).double().reshape(3, 2)}
    transform, leaves = optim.muon(0.05, dtype=torch.float64), leaves_of(params)
    optimizer = T.Muon(leaves, lr=0.05)
    torch_steps(optimizer, leaves, range(5))
    params = tree.unflatten(tree.structure(params), [leaf.detach().clone() for leaf in leaves])
    params, state = our_steps(
        transform, params, optim.from_torch(transform, optimizer.state_dict(), params), range(5, 8)
    )
    torch_steps(optimizer, leaves, range(5, 8))
    wanted = [optimizer.state[leaf]["momentum_buffer"] for leaf in leaves]
    got = optim.to_torch(transform, state, params)
    for number, buffer in enumerate(wanted):  # torch.optim.Muon iterates in bfloat16
        torch.testing.assert_close(got[number]["momentum_buffer"], buffer, rtol=2e-2, atol=2e-2)


def stepped(make, steps=1):
    leaves = leaves_of(BEGIN)
    optimizer = make(leaves)
    torch_steps(optimizer, leaves, range(steps))
    return optimizer.state_dict()


def test_dtypes_are_those_of_init():
    params = tree.map(lambda p: p.bfloat16(), BEGIN)
    state = optim.from_torch(optim.adam(), stepped(torch.optim.Adam), params)
    assert tree.map(tree.describe, state) == tree.map(tree.describe, optim.adam().init(params))


def sparse_adam():
    weight = torch.ones(3, 2, requires_grad=True)
    optimizer = torch.optim.SparseAdam([weight])
    weight.grad = torch.sparse_coo_tensor([[1]], torch.ones(1, 2), (3, 2), check_invariants=True)
    optimizer.step()
    return optimizer.state_dict()


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # PyTorch 2.11's own
@pytest.mark.parametrize("name", ["adam", "lion", "adagrad", "lbfgs", "sam"])
def test_sparse_gradients_are_refused_in_words(name):
    params = {"w": torch.ones(3, 2)}
    grads = {"w": torch.sparse_coo_tensor([[1]], torch.ones(1, 2), (3, 2), check_invariants=True)}
    transform = optim.sam(optim.adam()) if name == "sam" else getattr(optim, name)()
    context = optim.Context(loss=1.0, evaluate=lambda params: (torch.ones(()), grads))
    for call in (optim.step, lambda t, g, s, p, c: t.update(g, s, p, c)):
        with pytest.raises(InvalidArgument, match=r"gradients must be dense, but w is sparse_coo.*SparseAdam"):
            call(transform, grads, transform.init(params), params, context)
    with pytest.raises(ft.errors.NotTraceable, match=r"jit takes dense tensors.*to_dense\(\)"):
        ft.jit(lambda g: optim.step(transform, g, transform.init(params), params, context))(grads)


def test_sparse_adam_is_named_where_it_is_looked_for():
    with pytest.raises(AttributeError, match=r"functrain\.optim has no SparseAdam: gradients are dense"):
        optim.SparseAdam  # noqa: B018
    with pytest.raises(AttributeError, match=r"functrain\.optim has no 'no_such_thing'"):
        optim.no_such_thing  # noqa: B018


LBFGS = stepped(lambda leaves: torch.optim.LBFGS(leaves, lr=0.1, max_iter=1), 6)
TWICE = optim.chain(optim.named("first", optim.scale_by_adam()), optim.scale_by_adam())
FALLING = optim.asgd(schedule.linear(0.1, 0.0))
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
        "torch.optim has the states of SGD, ASGD, .* and scale_by_lion.* keeps mean",
    ),
    (
        lambda: optim.to_torch(optim.adam(), (optim.adam().init(BEGIN),) * 2, BEGIN),
        InvalidArgument,
        "the state is not of scale_by_adam",
    ),
    (
        lambda: optim.to_torch(optim.adam(), optim.sgd(0.1, momentum=0.9).init(BEGIN), BEGIN),
        InvalidArgument,
        "the state is not of scale_by_adam.*; give the one that its init or its last step returned",
    ),
    (lambda: optim.to_torch(optim.adam(), (), BEGIN), InvalidArgument, "the state is not of adam"),
    (
        lambda: optim.from_torch(optim.flatten(optim.adam()), ADAM, BEGIN),
        InvalidArgument,
        r"this holds that of flatten\(adam.*; take the optimizer inside",
    ),
    (
        lambda: optim.to_torch(TWICE, TWICE.init(BEGIN), BEGIN),
        InvalidArgument,
        "keeps 'exp_avg' twice, and a torch optimizer once",
    ),
    (
        lambda: optim.from_torch(optim.lbfgs(), ADAM, BEGIN),
        InvalidArgument,
        "keeps a history of steps, which torch.optim.LBFGS alone has",
    ),
    (lambda: optim.from_torch(optim.sgd(0.1), LBFGS, BEGIN), InvalidArgument, "which optim.lbfgs alone goes on with"),
    (
        lambda: optim.from_torch(optim.lbfgs(history_size=1), LBFGS, BEGIN),
        InvalidArgument,
        r"remembers (\d) steps and the transform 1; make that with history_size=\1",
    ),
    (
        lambda: optim.from_torch(optim.adam(), sparse_adam(), {"w": torch.ones(3, 2)}),
        InvalidArgument,
        "torch.optim.SparseAdam, whose moments stand still in rows",
    ),
    (
        lambda: optim.from_torch(optim.amsgrad(), ADAM, BEGIN),
        InvalidArgument,
        "keeps what torch.optim calls 'max_exp_avg_sq', and this state has exp_avg, exp_avg_sq, step",
    ),
    (
        lambda: optim.to_torch(FALLING, FALLING.init(BEGIN), BEGIN),
        InvalidArgument,
        r"lr must be a number, for torch.optim.ASGD keeps what follows from it; got linear\(0.1, 0.0\)",
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
