"""Transforms: the laws that hold for every one of them, how they compose, and bad input."""

import itertools

import pytest
import torch
from every_transform import KEY, NEVER_STILL, RISE, TRANSFORMS, draw, run, tensors
from torch.fx.experimental.proxy_tensor import make_fx

from functrain import optim, schedule, tree
from functrain.errors import DuplicateName, TreeMismatch

PRIMITIVES = [
    optim.identity,
    optim.scale(0.5),
    optim.trace(0.9),
    optim.clip_by_global_norm(0.5),
    optim.add_decayed_weights(0.1),
    optim.scale_by_adam(),
]
every = pytest.mark.parametrize("name", TRANSFORMS)


# --- laws of every transform ---


@every
def test_inputs_are_not_mutated_and_the_same_input_gives_the_same_output(name):
    transform, params, gradients = TRANSFORMS[name], draw(0), draw(1)
    _, _, state = run(transform, 3)
    inputs = gradients, state, params
    copies = tree.map(torch.clone, inputs)
    once = transform.update(*inputs, optim.Context(key=KEY, loss=1.0, position=0.5))
    assert tree.equal(inputs, copies)
    assert tree.equal(once, transform.update(*inputs, optim.Context(key=KEY, loss=1.0, position=0.5)))


@every
@pytest.mark.parametrize("tensor_context", [False, True])
def test_structure_shapes_and_dtypes_stay(name, tensor_context):
    transform, params = TRANSFORMS[name], draw(0)
    state = transform.init(params)
    tree.check_tensors(state, "the state")
    context = tensors(1, 4) if tensor_context else optim.Context(key=KEY, loss=1.0, position=0.25)
    updates, after = transform.update(draw(1), state, params, context)
    assert tree.map(tree.describe, updates) == tree.map(tree.describe, params)
    assert tree.map(tree.describe, after) == tree.map(tree.describe, state)


@every
def test_the_state_shares_no_tensor_with_itself_or_the_parameters(name):
    params = draw(0)
    leaves = [leaf for leaf in tree.leaves((params, TRANSFORMS[name].init(params))) if leaf.numel()]
    assert len({leaf.untyped_storage().data_ptr() for leaf in leaves}) == len(leaves)


@every
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_traced_is_eager_bit_for_bit(name, steps):
    transform, params = TRANSFORMS[name], draw(0)
    _, _, state = run(transform, steps)
    traced = make_fx(lambda g, s, p, c: transform.update(g, s, p, c), tracing_mode="fake")(
        draw(7), transform.init(params), draw(8), tensors(0, 4)
    )
    arguments = draw(1), state, params, tensors(steps, 4)
    assert tree.equal(traced(*arguments), transform.update(*arguments))


@every
def test_numbers_and_tensors_in_the_context_agree(name):
    transform, params = TRANSFORMS[name], draw(0)
    _, _, state = run(transform, 1)
    numbers = optim.Context(0.25, 1, 0.25, 1, KEY, 1.0, 1.25)
    a = transform.update(draw(1), state, params, numbers)
    b = transform.update(draw(1), state, params, tensors(1, 4))
    assert not tree.differences(a, b, rtol=1e-5, atol=1e-7)


@every
def test_vmap_is_a_loop(name):
    transform = TRANSFORMS[name]
    rows = [(draw(seed), run(transform, 3, seed=seed)[2], draw(seed + 5)) for seed in (1, 2)]
    batch = tree.map(lambda *leaves: torch.stack(leaves), *rows)
    context = tensors(2, 4)
    mapped = torch.func.vmap(lambda *row: transform.update(*row, context))(*batch)
    looped = tree.map(lambda *leaves: torch.stack(leaves), *[transform.update(*row, context) for row in rows])
    assert not tree.differences(mapped, looped, rtol=1e-5, atol=1e-7)


@every
def test_vmap_over_the_position_keeps_dtypes(name):
    transform, params, gradients = TRANSFORMS[name], draw(0), draw(1)
    positions = torch.tensor([0.0, 0.5], dtype=torch.float64)

    def update(position):
        return transform.update(
            gradients, transform.init(params), params, optim.Context(key=KEY, loss=1.0, position=position)
        )

    mapped = torch.func.vmap(update)(positions)
    looped = tree.stack([update(position) for position in positions])
    assert not tree.differences(mapped, looped, rtol=1e-5, atol=1e-7)


@every
def test_no_gradient_gives_finite_updates(name):
    transform, params = TRANSFORMS[name], draw(0)
    state = transform.init(params)
    for _ in range(3):
        updates, state = transform.update(tree.zeros_like(params), state, params, optim.Context(key=KEY, loss=1.0))
        assert all(leaf.isfinite().all() for leaf in tree.leaves((updates, state)))
        if name not in NEVER_STILL and not any(h.endswith(("weight_decay", "lambd")) for h in transform.hypers):
            assert tree.equal(tree.map(torch.abs, updates), tree.zeros_like(params))


@every
def test_hypers_are_read_by_name(name):
    transform = TRANSFORMS[name]
    values = optim.hyperparameters(transform, optim.Context(position=0.5))
    assert set(values) == set(transform.hypers)
    assert all(isinstance(value, (int, float)) for value in values.values())
    assert all(values[key] == 0.5 for key, hyper in transform.hypers.items() if hyper is RISE)


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name != "identity"])
def test_a_tensor_in_half_precision_stays_so(name):
    transform, params = TRANSFORMS[name], draw(0, torch.bfloat16)
    updates, _ = transform.update(draw(1, torch.bfloat16), transform.init(params), params, tensors(1, 4))
    assert all(leaf.dtype == torch.bfloat16 for leaf in tree.leaves(updates))


# --- composition ---


@pytest.mark.parametrize("a, b, c", list(itertools.permutations(PRIMITIVES, 3)))
def test_chain_is_associative(a, b, c):
    flat, left, right = (optim.chain(a, b, c), optim.chain(optim.chain(a, b), c), optim.chain(a, optim.chain(b, c)))
    expected = run(flat, 2)
    for other in (left, right):
        got = run(other, 2)
        assert tree.equal(got[:2], expected[:2])
        assert tree.equal(tree.leaves(got[2]), tree.leaves(expected[2]))
        assert other.hypers == flat.hypers


@every
def test_chain_has_an_identity(name):
    transform = TRANSFORMS[name]
    expected = run(transform)
    for same in (
        optim.chain(transform),
        optim.chain(optim.identity, transform),
        optim.chain(transform, optim.chain()),
    ):
        got = run(same)
        assert tree.equal(got[:2], expected[:2])
        assert tree.equal(tree.leaves(got[2]), tree.leaves(expected[2]))
        assert dict(same.hypers) == dict(transform.hypers)


def test_the_order_of_a_chain_matters():
    clip, enlarge = optim.clip_by_global_norm(1.0), optim.scale(10.0)
    gradients, params = {"w": torch.tensor([3.0, 4.0])}, {"w": torch.zeros(2)}
    norms = [
        tree.global_norm(pair.update(gradients, pair.init(params), params, optim.Context())[0]).item()
        for pair in (optim.chain(clip, enlarge), optim.chain(enlarge, clip))
    ]
    assert norms == pytest.approx([10.0, 1.0])


def test_two_hypers_of_one_name_need_names():
    with pytest.raises(DuplicateName, match=r"pieces 0 and 2 .* hyperparameter 'factor'; wrap one of them: named\("):
        optim.chain(optim.scale(1.0), optim.identity, optim.scale(2.0))
    both = optim.chain(optim.scale(1.0), optim.named("late", optim.scale(2.0)))
    assert optim.hyperparameters(both) == {"factor": 1.0, "late.factor": 2.0}


def test_what_is_void_is_left_out():
    assert set(optim.sgd(0.1).hypers) == {"lr"}
    assert set(optim.sgd(0.1, momentum=0.9).hypers) == {"lr", "momentum"}
    assert set(optim.sgd(0.1, momentum=0.9, dampening=0.1).hypers) == {"lr", "momentum", "dampening"}
    assert set(optim.sgd(0.1, momentum=RISE, weight_decay=RISE).hypers) == {"lr", "momentum", "weight_decay"}
    assert not tree.leaves(optim.sgd(0.1).init(draw(0)))


def test_hyperparameters_begin_at_the_beginning():
    transform = optim.sgd(RISE, momentum=schedule.over_updates(10, schedule.linear(0.0, 1.0)))
    assert optim.hyperparameters(transform) == {"momentum": 0.0, "lr": 0.1}
    assert optim.hyperparameters(transform, schedule.Progress(0.5, updates=5)) == {"momentum": 0.5, "lr": 0.5}


def test_a_hyperparameter_can_be_a_tensor_to_vmap_over_or_differentiate_by():
    start, gradients = draw(0), [draw(1), draw(2)]

    def after(lr):
        transform, params = optim.sgd(lr, momentum=0.9), start
        state = transform.init(params)
        for gradient in gradients:
            updates, state = transform.update(gradient, state, params, optim.Context())
            params = optim.apply_updates(params, updates)
        return params["0"]["weight"]

    lrs = torch.tensor([0.1, 0.2])
    torch.testing.assert_close(torch.func.vmap(after)(lrs), torch.stack([after(lr) for lr in lrs]))
    torch.testing.assert_close(after(lrs[0]), after(0.1))
    slope = torch.func.grad(lambda lr: after(lr).sum())(lrs[0])
    torch.testing.assert_close(slope, ((after(0.2) - after(0.1)).sum() / 0.1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_step_is_the_update_added_to_the_parameters(name, dtype):
    transform, params, gradients = TRANSFORMS[name], draw(0, dtype), draw(1, dtype)
    for context in (optim.Context(0.5, 5, 1.0, 5, KEY, 1.0, 2.0), tensors(2, 4)):
        state = transform.init(params)
        updates, after = transform.update(gradients, state, params, context)
        got, got_after = optim.step(transform, gradients, state, params, context)
        tolerance = {"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-6}
        assert not tree.differences(got, optim.apply_updates(params, updates), **tolerance)
        assert tree.equal(got_after, after)


def test_a_step_keeps_the_dtype_of_the_parameters():
    after, _ = optim.step(optim.sgd(0.5), {"w": torch.ones(2)}, ((),), {"w": torch.ones(2).bfloat16()}, optim.Context())
    assert tree.equal(after, {"w": torch.full((2,), 0.5, dtype=torch.bfloat16)})


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("shape", [(2, 1), (1,), ()])
def test_a_step_refuses_gradients_that_would_broadcast(momentum, shape):
    optimizer, params = optim.sgd(0.1, momentum), {"w": torch.ones(2)}
    with pytest.raises(TreeMismatch, match="the gradients must have the structure of the parameters"):
        optim.step(optimizer, {"w": torch.ones(shape)}, optimizer.init(params), params, optim.Context())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("value", [1.0, None])
def test_gradients_that_are_no_tensors_are_named(momentum, value):
    optimizer, params = optim.sgd(0.1, momentum), {"w": torch.ones(2)}
    with pytest.raises(
        TreeMismatch, match="the gradients must have the structure of the parameters, but:\n  w: expect"
    ):
        optim.step(optimizer, {"w": value}, optimizer.init(params), params, optim.Context())
    with pytest.raises(TreeMismatch, match="the updates must have the structure of the parameters, but:\n  w: expect"):
        optim.apply_updates(params, {"w": value})


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_apply_updates_takes_any_dtype(dtype):
    one = torch.ones(2, dtype=dtype)
    assert torch.equal(optim.apply_updates({"w": one}, {"w": one})["w"], one + one)


def test_apply_updates_keeps_the_dtype_of_the_parameters():
    params = {"w": torch.ones(2, dtype=torch.bfloat16)}
    assert optim.apply_updates(params, {"w": torch.ones(2)})["w"].dtype == torch.bfloat16


@pytest.mark.parametrize("max_norm", [0.0, 0.1, 1.0, 1e6])
def test_clipping_is_pytorchs(max_norm):
    gradients, params = draw(1, torch.float64), draw(0, torch.float64)
    clipped, _ = optim.clip_by_global_norm(max_norm).update(gradients, (), params, optim.Context())
    theirs = [torch.nn.Parameter(leaf.clone()) for leaf in tree.leaves(params)]
    for parameter, gradient in zip(theirs, tree.leaves(gradients), strict=True):
        parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    for ours, parameter in zip(tree.leaves(clipped), theirs, strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-5, atol=0)  # PyTorch adds 1e-6 to the norm


def test_clipping_leaves_short_gradients_as_they_are():
    gradients = draw(1)
    assert tree.equal(optim.clip_by_global_norm(1e3).update(gradients, (), gradients, optim.Context())[0], gradients)


@pytest.mark.parametrize("max_norm", [0.0, 1.0, RISE])
def test_clipping_nothing_is_nothing(max_norm):
    nothing = tree.zeros_like(draw(0))
    assert tree.equal(optim.clip_by_global_norm(max_norm).update(nothing, (), nothing, optim.Context())[0], nothing)


def test_clipping_does_not_hide_nan():
    gradients = {"a": torch.tensor([float("nan")]), "b": torch.ones(2)}
    clipped, _ = optim.clip_by_global_norm(1.0).update(gradients, (), gradients, optim.Context())
    assert all(leaf.isnan().all() for leaf in tree.leaves(clipped))
