"""Accumulation over batches."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import functrain as ft
from functrain import losses, optim, tree
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
