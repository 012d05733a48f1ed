"""Accumulation over batches."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import functrain as ft
from functrain import losses, optim, random, schedule, tree
from functrain.errors import InvalidArgument

INPUTS = torch.randn(24, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.randint(0, 2, (24,), generator=torch.Generator().manual_seed(1))
WEIGHTS = torch.rand(24, generator=torch.Generator().manual_seed(2), dtype=torch.float64).masked_fill(
    torch.arange(24) % 5 == 0, 0.0
)


def params():
    return {"weight": torch.ones(2, 3, dtype=torch.float64), "bias": torch.zeros(2, dtype=torch.float64)}


def gradients_of(params, rows):
    def loss(params):
        prediction = INPUTS[rows] @ params["weight"].T + params["bias"]
        return losses.weighted_mean(losses.cross_entropy(prediction, LABELS[rows]), WEIGHTS[rows])

    return torch.func.grad_and_value(loss)(params)


def step(transform, state, values, rows, updates=0):
    gradients, loss = gradients_of(values, rows)
    context = optim.Context(updates=updates, loss=loss, weight=WEIGHTS[rows].sum())
    return transform.update(gradients, state, values, context)


# --- accumulate ---


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 24), min_size=1, max_size=5), st.sampled_from(["sgd", "adamw"]))
def test_k_ragged_weighted_batches_are_the_whole_batch(cuts, name):
    inner = {"sgd": optim.sgd(0.1, momentum=0.9, weight_decay=0.1), "adamw": optim.adamw(0.01)}[name]
    edges = [0, *sorted(cuts), 24]
    parts = [torch.arange(a, b) for a, b in pairwise(edges) if a < b]
    whole, values = optim.accumulate(len(parts))(inner), params()
    state, updates = whole.init(values), None
    for part in parts:
        updates, state = step(whole, state, values, part)
    expected, inner_state = step(inner, inner.init(values), values, torch.arange(24))
    assert not tree.differences(updates, expected, rtol=1e-9, atol=1e-12)
    assert not tree.differences(state.inner, inner_state, rtol=1e-9, atol=1e-12)


def test_in_between_nothing_changes_and_the_inner_state_waits():
    transform, values = optim.accumulate(3, optim.sgd(0.1, momentum=0.9)), params()
    state = transform.init(values)
    for batch in range(6):
        updates, after = step(transform, state, values, torch.arange(4) + batch)
        emits = batch % 3 == 2
        assert emits != tree.equal(updates, tree.zeros_like(updates))
        assert emits != tree.equal(after.inner, state.inner)
        state = after
        assert (state.batches.item(), state.updates.item()) == ((batch + 1) % 3, (batch + 1) // 3)
    assert tree.equal(state.total, tree.zeros_like(values))
    assert state.weight.item() == state.loss.item() == 0.0


def test_the_transform_inside_sees_the_updates_made_and_the_batches_together():
    seen = []

    def look(updates, params, context):
        seen.append((int(context.updates), float(context.loss), float(context.weight), context.position, context.step))
        return updates

    transform = optim.accumulate(2)(optim.stateless(look, needs=("loss",)))
    values = {"w": torch.zeros(1)}
    state = transform.init(values)
    for batch, (loss, weight) in enumerate([(1.0, 1.0), (3.0, 3.0), (5.0, 0.0), (7.0, 2.0)]):
        made = optim.updates_made(transform, state)
        context = optim.Context(batch / 4, updates=made, step=batch, loss=loss, weight=weight)
        _, state = transform.update({"w": torch.ones(1)}, state, values, context)
    assert seen == [(0, 2.5, 4.0, 0.25, 1), (1, 7.0, 2.0, 0.75, 3)]


def test_only_padding_asks_for_no_change():
    transform, values = optim.accumulate(2)(optim.sgd(0.1, momentum=0.9)), params()
    state = transform.init(values)
    for _ in range(2):
        updates, state = transform.update(tree.zeros_like(values), state, values, optim.Context(weight=0.0))
    assert tree.equal(tree.map(torch.abs, updates), tree.zeros_like(values))
    assert all(leaf.isfinite().all() for leaf in tree.leaves(state))


def test_half_precision_gradients_are_summed_in_single():
    transform, values = optim.accumulate(4)(optim.scale(1.0)), {"w": torch.zeros(1, dtype=torch.bfloat16)}
    state = transform.init(values)
    for gradient in (256.0, 1.0, 1.0, 2.0):  # 256 + 1 is 256 in bfloat16
        updates, state = transform.update({"w": torch.tensor([gradient]).bfloat16()}, state, values, optim.Context())
        assert state.total["w"].dtype == torch.float32
    assert updates["w"].dtype == torch.bfloat16 and updates["w"].item() == 65.0


def test_accumulate_keeps_the_hyperparameters():
    assert optim.hyperparameters(optim.accumulate(4)(optim.sgd(0.1))) == {"lr": 0.1}


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "4"])
def test_k_must_be_a_count_and_is_checked_at_once(k):
    with pytest.raises(InvalidArgument, match="k must be a whole number of batches, at least 1, got"):
        optim.accumulate(k)


def test_accumulate_needs_a_transform():
    with pytest.raises(InvalidArgument, match=r"transform must be a Transform, got 0.1"):
        optim.accumulate(4)(0.1)


def test_accumulate_refuses_what_evaluates_the_batch():
    line_search = optim.stateless(lambda updates, params, context: updates, needs=("evaluate",), label="line_search")
    with pytest.raises(
        InvalidArgument, match=r"accumulate: line_search\(\) evaluates other parameters on the batch, and"
    ):
        optim.accumulate(2, line_search)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(), (3,)], ids=str)
def test_gradients_of_a_short_dtype_are_summed_in_float32(dtype, shape):
    # A weight as a tensor, as training steps have it, is no number: their product overflowed, or lost digits.
    transform, values = optim.accumulate(2, optim.sgd(1.0)), {"w": torch.zeros(shape, dtype=dtype)}
    gradients = [torch.full(shape, 2000.0, dtype=dtype), torch.full(shape, 1000.0, dtype=dtype)]
    expected = -sum(weight * g.double() for weight, g in zip((101.0, 37.0), gradients, strict=True)) / 138
    for make in (float, torch.tensor, lambda weight: torch.tensor(weight, dtype=torch.float64)):
        for compile in (lambda f: f, ft.jit):
            step = compile(lambda g, state, w: optim.step(transform, {"w": g}, state, values, optim.Context(weight=w)))
            after, state = step(gradients[0], transform.init(values), make(101.0))
            after, state = step(gradients[1], state, make(37.0))
            torch.testing.assert_close(after["w"], expected.to(dtype), rtol=0, atol=0)


# --- around, or inside ---

EITHER_WAY = {
    "lookahead": lambda inner: optim.lookahead(2, 0.5, inner),
    "schedule free": lambda inner: optim.schedule_free(lambda lr: inner, 0.1),
    "freeze": lambda inner: optim.freeze("bias", inner),
    "flatten": optim.flatten,
    "partition": lambda inner: optim.partition({"a": inner, "b": inner}, {"a": "weight", "b": ...}),
    "skip": optim.skip_nonfinite,
    "rounding": optim.round_stochastically,
    "gate": lambda inner: optim.gate(schedule.constant(1.0), inner),
    "unfreezing": lambda inner: optim.unfreeze_gradually(inner, ["weight", "bias"], [0.34]),
    "decay behind": lambda inner: optim.chain(inner, optim.named("behind", optim.add_decayed_weights(0.01))),
    "a mean behind": lambda inner: optim.chain(inner, optim.average_iterates(1)),
    "a ball behind": lambda inner: optim.chain(inner, optim.keep_in_l2_ball(1.0)),
    "names": lambda inner: optim.named_chain({"a": inner, "b": optim.lookahead(2, 0.5, optim.identity)}),
}
INSIDE_ALONE = {
    "apply_if_finite": (lambda inner: optim.apply_if_finite(1, inner), "their sum is not finite it would stay so"),
    "mechanize": (optim.mechanize, "would be measured by the gradient of the last one"),
    "low_rank": (lambda inner: optim.low_rank(inner, 1), "onto other directions for each batch"),
    "cautious": (optim.cautious, "put it around"),
    "a line search": (optim.strong_wolfe, "the loss along it would be that of the last one"),
    "a plateau": (
        lambda inner: optim.chain(inner, optim.reduce_on_plateau()),
        "looks at the loss of a batch, and after",
    ),
    "polyak": (lambda inner: optim.named_chain({"a": inner, "b": optim.polyak_sgd()}), "looks at the loss of a batch"),
    "sam": (
        lambda inner: optim.chain(optim.clip(9.0), inner, optim.sam(optim.sgd(0.1))),
        "the loss of other parameters",
    ),
    "noise": (lambda inner: optim.chain(inner, optim.add_private_noise(1.0, 1.0)), "looks at the examples of a batch"),
}


def moved(transform, steps=12):
    values, state = params(), transform.init(params())
    for step in range(steps):
        gradients, _ = gradients_of(params(), slice(2 * step, 2 * step + 3))
        done = step // 2
        context = optim.Context(done / 6, done, key=random.fold_in(random.key(0), done), weight=1.0 + step % 3)
        values, state = optim.step(transform, gradients, state, values, context)
    return values


@pytest.mark.parametrize("inner", [lambda: optim.sgd(0.1, momentum=0.9), lambda: optim.adamw(0.05, weight_decay=0.1)])
@pytest.mark.parametrize("name", EITHER_WAY)
def test_what_stands_around_it_may_as_well_stand_inside(name, inner):
    wrap = EITHER_WAY[name]
    around, inside = moved(wrap(optim.accumulate(2, inner()))), moved(optim.accumulate(2, wrap(inner())))
    assert not tree.differences(around, inside, rtol=1e-10, atol=1e-12)
    assert tree.differences(around, params())


@pytest.mark.parametrize("name", INSIDE_ALONE)
def test_or_it_is_refused_around_it(name):
    wrap, message = INSIDE_ALONE[name]
    for inner in (optim.accumulate(2, optim.sgd(0.1)), optim.lookahead(2, 0.5, optim.accumulate(2, optim.sgd(0.1)))):
        with pytest.raises(InvalidArgument, match=message):
            wrap(optim.named("inner", inner)).init(params())
    if name not in ("a line search", "sam", "noise"):  # which look at one batch alone
        assert optim.accumulate(2, wrap(optim.named("inner", optim.sgd(0.1)))).init(params())
