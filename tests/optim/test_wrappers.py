"""The wrappers: what each adds to the transform inside, and what it refuses."""

import math
from collections import OrderedDict, defaultdict, namedtuple
from functools import partial

import pytest
import torch
from every_transform import draw, run

import functrain as ft
from functrain import losses, nn, optim, schedule, tree
from functrain.errors import InvalidArgument

SGD = optim.sgd(0.1, momentum=0.9)


def test_a_named_chain_is_a_chain_with_a_state_by_name():
    clip = optim.clip_by_global_norm(0.5)
    plain, by_name = run(optim.chain(clip, SGD)), run(optim.named_chain({"clip": clip, "descent": SGD}))
    assert tree.equal(plain[:2], by_name[:2])
    assert tree.equal(dict(zip(["clip", "descent"], plain[2], strict=True)), by_name[2])
    params = draw(0)
    both = optim.named_chain({"first": SGD, "second": SGD})
    assert set(both.hypers) == {"first.lr", "first.momentum", "second.lr", "second.momentum"}
    stepped, _ = optim.step(both, draw(1), both.init(params), params)  # by its fast path
    updates, _ = both.update(draw(1), both.init(params), params)
    assert not tree.differences(stepped, optim.apply_updates(params, updates), rtol=1e-6, atol=1e-7)


def test_a_named_chain_counts_the_updates_of_its_gates():
    gated = optim.named_chain({"sum": optim.accumulate(2, optim.identity), "descent": SGD})
    assert int(optim.updates_made(gated, run(gated, 5)[2])) == 2


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_masked_is_the_transform_there_and_nothing_elsewhere(name):
    masked = optim.masked(f"*.{name}", optim.add_decayed_weights(0.5))
    params, grads = draw(0), draw(1)
    after, _ = masked.update(grads, masked.init(params), params)
    for path, leaf in tree.leaves_with_path(after):
        parameter, gradient = (dict(tree.leaves_with_path(one))[path] for one in (params, grads))
        assert torch.equal(leaf, gradient + 0.5 * parameter if path.endswith(name) else gradient)
    assert set(masked.hypers) == {"weight_decay"}


def test_gradual_unfreezing_trains_one_more_group_at_each_milestone():
    tuned = optim.unfreeze_gradually(optim.adam(0.1), ["a*", "b*", "c*"], [0.2, 0.6])
    params = {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(2)}
    state, moved = tuned.init(params), []
    for step in range(10):
        grads = {name: torch.full((2,), math.nan) for name in params}
        begins = {"a": 6, "b": 2, "c": 0}
        grads = {name: grads[name] if step < begins[name] else torch.ones(2) for name in params}
        after, state = optim.step(tuned, grads, state, params, optim.Context(position=step / 10, updates=step))
        moved.append("".join(name for name in params if not torch.equal(after[name], params[name])))
        params = after
    assert moved == ["c"] * 2 + ["bc"] * 4 + ["abc"] * 4
    assert all(leaf.isfinite().all() for leaf in tree.leaves((params, state)))
    assert int(optim.updates_made(tuned, state)) == 10


@pytest.mark.parametrize("factor", [1 / 2.6, 2.0])
def test_rates_spread_geometrically(factor):
    lrs = optim.spread(list("abc"), 0.1, factor)
    assert list(lrs.values()) == pytest.approx([0.1 * factor**2, 0.1 * factor, 0.1])
    assert optim.spread(["a"], 0.1, first=0.01) == {"a": 0.1}
    rise = schedule.over_updates(10, schedule.linear(0, 1))
    assert schedule.value(optim.spread(["a", "b"], rise, 0.5)["a"], schedule.Progress(updates=5)) == 0.25


def test_what_is_left_of_a_group_waits_in_the_state():
    halves, params = optim.accumulate(4, optim.sgd(1.0)), {"w": torch.zeros(1)}
    state = halves.init(params)
    for k in range(6):
        params, state = optim.step(halves, {"w": torch.full((1,), float(k))}, state, params)
    assert params["w"].item() == -1.5 and (int(state.batches), int(state.updates)) == (2, 1)
    for k in (6, 7):
        params, state = optim.step(halves, {"w": torch.full((1,), float(k))}, state, params)
    assert params["w"].item() == -1.5 - 5.5 and (int(state.batches), int(state.updates)) == (0, 2)


def test_lookahead_counts_updates_and_not_batches():
    ahead = optim.lookahead(2, 0.5, optim.accumulate(2, optim.sgd(1.0)))
    params, course = {"w": torch.zeros(1)}, []
    state = ahead.init(params)
    for _ in range(8):
        params, state = optim.step(ahead, {"w": torch.ones(1)}, state, params)
        course.append(params["w"].item())
    assert course == [0.0, -1.0, -1.0, -1.0, -1.0, -2.0, -2.0, -2.0]
    assert int(optim.updates_made(ahead, state)) == 4 and torch.equal(state.slow["w"], params["w"])


@pytest.mark.parametrize("most", [0, 2])
def test_apply_if_finite_gives_up_after_some_in_a_row(most):
    careful, params = optim.apply_if_finite(most, SGD), {"w": torch.ones(1)}
    state = careful.init(params)
    good, bad = {"w": torch.ones(1)}, {"w": torch.full((1,), math.inf)}
    for grads in [bad] * most + [good] + [bad] * most:
        params, state = optim.step(careful, grads, state, params)
    assert params["w"].item() == pytest.approx(0.9)
    assert (int(state.updates), int(state.rejected), int(state.in_a_row)) == (1, 2 * most, most)
    params, state = optim.step(careful, bad, state, params)
    assert not params["w"].isfinite() and int(state.updates) == 2


def test_apply_if_finite_sees_what_only_the_update_shows():
    overflow = optim.stateless(lambda updates, params, context: tree.map(lambda g: g * 1e30 * 1e30, updates))
    params = {"w": torch.ones(1)}
    for wrapper, finite in ((optim.apply_if_finite(1), True), (optim.skip_nonfinite, False)):
        transform = wrapper(overflow)
        updates, _ = transform.update(params, transform.init(params), params)
        assert updates["w"].isfinite().item() is finite


@pytest.mark.parametrize("dtypes", [[torch.float32] * 3, [torch.float32, torch.bfloat16, torch.float64]])
@pytest.mark.parametrize("inside", [SGD, optim.adamw(0.1)])
def test_flattened_is_the_same(inside, dtypes):
    leaves = zip(tree.leaves(draw(0)), dtypes, strict=True)
    params = tree.unflatten(tree.structure(draw(0)), [leaf.to(dtype) for leaf, dtype in leaves])
    a = b = params
    flat = optim.flatten(inside)
    one, other = inside.init(a), flat.init(b)
    for step in range(3):
        grads = tree.map(lambda p, g: g.to(p.dtype), params, draw(step))
        a, one = optim.step(inside, grads, one, a)
        b, other = optim.step(flat, grads, other, b)
    assert not tree.differences(a, b, rtol=1e-6, atol=1e-7)
    assert len({leaf.untyped_storage().data_ptr() for leaf in tree.leaves(b)}) == len(tree.leaves(b))


def test_an_empty_tree_is_flattened():
    flat = optim.flatten(SGD)
    assert flat.update({}, flat.init({}), {})[0] == {}


def test_evaluate_sees_the_parameters_and_not_the_vector():
    def update(updates, state, params, context):
        return context.evaluate(params)[1], state

    ascent = optim.Transform(lambda params: (), update, needs=("evaluate",))
    params = draw(0)
    updates, _ = optim.flatten(ascent).update(
        draw(1), (), params, optim.Context(evaluate=lambda p: (torch.zeros(()), tree.map(torch.neg, p)))
    )
    assert tree.equal(updates, tree.map(torch.neg, params))


# --- inject ---


def test_an_edit_is_a_run_with_that_rate_and_traces_nothing_again():
    edited, traces = optim.inject(optim.sgd, lr=0.1, momentum=0.9), []

    @ft.jit
    def step(grads, state, params):
        traces.append(1)
        return optim.step(edited, grads, state, params)

    params = plain = draw(0)
    state, other = edited.init(params), SGD.init(plain)
    for k in range(4):
        if k == 2:
            state = optim.edit_injected(state, lr=0.02)
        params, state = step(draw(k), state, params)
        plain, other = optim.step(SGD if k < 2 else optim.sgd(0.02, momentum=0.9), draw(k), other, plain)
    assert len(traces) == 1 and not tree.differences(params, plain, rtol=1e-6, atol=1e-7)
    assert {name: value.item() for name, value in optim.read_injected(state).items()} == {"lr": 0.02, "momentum": 0.9}


def test_many_rates_by_vmap_are_a_loop():
    edited, params, rates = optim.inject(optim.adam, lr=0.1), draw(0), torch.tensor([0.1, 0.01]).double()
    state, grads = edited.init(params), draw(1)

    def one(lr):
        return optim.step(edited, grads, optim.edit_injected(state, lr=lr), params)[0]

    assert not tree.differences(
        torch.func.vmap(one)(rates), tree.stack([one(lr) for lr in rates]), rtol=1e-5, atol=1e-7
    )


def test_numbers_are_found_anywhere_in_a_state_and_the_learner():
    inside = optim.chain(optim.clip_by_global_norm(1.0), optim.accumulate(2, optim.inject(optim.sgd, lr=0.5)))
    learner = ft.Learner(nn.dense(2), losses.cross_entropy, optim.skip_nonfinite(inside))
    state = ft.init(learner, ft.random.key(0), (torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)))
    edited = optim.edit_injected(state.opt_state, lr=0.25)
    assert {name: value.item() for name, value in optim.read_injected(edited).items()} == {"lr": 0.25}
    assert optim.read_injected(state.opt_state)["lr"].item() == 0.5
    assert tree.structure(edited) == tree.structure(state.opt_state)


Pair = namedtuple("Pair", "weight bias")


@pytest.mark.parametrize(
    "kind", [Pair, OrderedDict, lambda **leaves: defaultdict(dict, leaves), lambda **p: [*p.values()]]
)
def test_what_is_edited_leaves_the_branches_of_the_parameters(kind):
    params = kind(weight=torch.ones(2, 1), bias=torch.ones(2))
    edited = optim.chain(optim.clip_by_global_norm(9.0), optim.inject(optim.adam, lr=0.1))
    state = edited.init(params)
    after = optim.edit_injected(state, lr=0.25)
    assert tree.structure(after) == tree.structure(state) and optim.read_injected(after)["lr"] == 0.25
    moved, _ = optim.step(edited, params, after, params)
    assert not tree.differences(moved, tree.map(lambda p: p - 0.25, params), atol=1e-6)


def test_an_edited_number_out_of_range_is_refused_in_the_next_update():
    edited, params = optim.inject(optim.sgd, lr=0.1), draw(0)
    state = optim.edit_injected(edited.init(params), lr=-1.0)
    with pytest.raises(InvalidArgument, match="lr must be a number of at least 0"):
        edited.update(draw(1), state, params)


def test_the_repr_says_what_is_inside():
    assert repr(optim.inject(optim.adam, lr=0.1)) == "inject(adam, lr=0.1)"
    assert repr(optim.lookahead(5, 0.5, optim.sgd(0.1))) == "lookahead(k=5, slow_lr=0.5, transform=sgd(lr=0.1))"
    assert repr(optim.unfreeze_gradually(optim.sgd(0.1), [lambda path, leaf: True, "b"], [0.5])) == (
        "unfreeze_gradually(sgd(lr=0.1), groups=[lambda, 'b'], milestones=[0.5])"
    )
    assert repr(optim.gate(torch.tensor(1.0), optim.sgd(0.1))) == "gate(is_open=float32(), transform=sgd(lr=0.1))"
    assert repr(optim.flatten(optim.sgd(0.1))) == "flatten(sgd(lr=0.1))"
    assert repr(optim.masked("a", optim.sgd(0.1))) == "masked('a', sgd(lr=0.1))"


LR = optim.inject(optim.sgd, lr=0.1).init({})
IN_A_GROUP = optim.partition({"a": optim.lookahead(2, 0.5, optim.accumulate(2, SGD))}, {"a": "a"})
REFUSED = [
    (partial(optim.named_chain, {1: SGD}), "must have strings as names, got 1"),
    (partial(optim.named_chain, {"a": optim.sgd}), "piece 'a' of named_chain must be a Transform"),
    (partial(optim.masked, 3, SGD), "masked must claim a pattern"),
    (partial(optim.gate, "open", SGD), "is_open must be a number"),
    (partial(optim.gate, 1.0, optim.sgd), "transform must be a Transform"),
    (partial(optim.unfreeze_gradually, SGD, ["a"], [0.5]), "one milestone fewer than groups, got 1 groups and 1"),
    (partial(optim.unfreeze_gradually, SGD, ["a", "b", "c"], [0.5, 0.2]), "milestones must ascend"),
    (partial(optim.unfreeze_gradually, SGD, ["a", 1], [0.5]), "group 1 must claim a pattern"),
    (partial(optim.spread, [], 0.1, 0.5), "names must be the groups' names, each once"),
    (partial(optim.spread, ["a", "a"], 0.1, 0.5), "names must be the groups' names, each once"),
    (partial(optim.spread, ["a", "b"], 0.1), "needs either factor or first, got factor=None and first=None"),
    (partial(optim.spread, ["a", "b"], 0.1, 0.5, 0.1), "needs either factor or first"),
    (partial(optim.spread, ["a", "b"], 0.1, -1), "factor must be a positive number, got -1"),
    (partial(optim.spread, ["a", "b"], 0.1, first=0), "first must be a positive number, got 0"),
    (partial(optim.spread, ["a", "b"], schedule.constant(1), first=0.1), "with a schedule give factor"),
    (partial(optim.spread, ["a", "b"], -0.1, 0.5), "lr must be a number of at least 0"),
    (partial(optim.lookahead, 0), "k must be a whole number of updates, at least 1, got 0"),
    (partial(optim.lookahead, 5, -0.5), "slow_lr must be a number of at least 0"),
    (partial(optim.lookahead, 5, 0.5, optim.sgd), "transform must be a Transform"),
    (partial(optim.apply_if_finite, -1), "most must be a whole number of calls, at least 0, got -1"),
    (partial(optim.apply_if_finite(1, optim.accumulate(2, SGD)).init, {}), "accumulate.* adds gradients up"),
    (partial(optim.apply_if_finite(1, optim.chain(optim.accumulate(2, SGD))).init, {}), "it inside, accumulate"),
    (partial(optim.apply_if_finite(1, IN_A_GROUP).init, {"a": torch.ones(1)}), "or skip_nonfinite around"),
    (partial(optim.flatten, optim.sgd), "transform must be a Transform"),
    (partial(optim.inject, optim.sgd, lr=schedule.constant(1)), "inject needs an argument that is a float"),
    (partial(optim.inject, optim.sgd, lr=-0.1), "lr must be a number of at least 0"),
    (
        partial(optim.inject, optim.sgd, lr=0.1, mom=0.9),
        "sgd: got an unexpected keyword argument 'mom'; it takes lr, momentum",
    ),
    (
        partial(optim.inject, SGD, lr=0.1),
        "make must be a function that returns a transform, such as optim.sgd, got sgd",
    ),
    (partial(optim.schedule_free, SGD, lr=0.1), "make must be a function that returns a transform"),
    (partial(optim.discriminative, SGD, {"a": 0.1}, {"a": ...}), "make must be a function that returns a transform"),
    (partial(optim.inject, lambda lr: lr, lr=0.1), "what make returns must be a Transform"),
    (partial(optim.edit_injected, LR, rate=0.1), "holds no hyperparameter 'rate'; it has lr"),
    (partial(optim.edit_injected, SGD.init({}), lr=0.1), "it has none; the optimizer must be made by optim.inject"),
    (partial(optim.edit_injected, LR, lr=math.inf), "lr must be a finite number, got inf"),
    (partial(optim.edit_injected, LR, lr=torch.tensor(math.inf)), r"lr must be a finite number, got tensor\(inf\)"),
    (partial(optim.edit_injected, LR, lr="0.1"), "lr must be a number"),
    (partial(optim.read_injected, (LR, LR)), "the state holds two hyperparameters 'lr'"),
    (partial(optim.reduce_on_plateau, 1.0), r"factor must be a number in \(0, 1\), got 1.0"),
    (partial(optim.reduce_on_plateau, patience=-1), "patience must be a whole number of at least 0, got -1"),
    (partial(optim.reduce_on_plateau, every=0), "every must be a whole number of at least 1, got 0"),
    (partial(optim.reduce_on_plateau, rtol=-1), "rtol must be a number of at least 0, got -1"),
    (partial(optim.reduce_on_plateau().update, {}, optim.reduce_on_plateau().init({}), {}), "needs the loss"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_bad_input_is_refused_in_words(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()


def test_a_batch_of_no_weight_is_no_plateau():
    plateau, params = optim.reduce_on_plateau(0.5, patience=0, every=2), {"w": torch.ones(1)}
    state = plateau.init(params)
    for loss, weight in ((math.nan, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0), (3.0, 1.0), (1.0, 3.0)):
        context = optim.Context(loss=loss if weight else 0.0, weight=weight)
        _, state = plateau.update(params, state, params, context)
    assert state.best.item() == 1.0 and state.scale.item() == 0.5
