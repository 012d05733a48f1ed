"""Accumulation over batches, and parameter groups by path."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain import losses, optim, schedule, tree
from functrain.errors import DuplicateName, InvalidArgument, TreeMismatch

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

    transform = optim.accumulate(2)(optim.stateless(look))
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


# --- by_path ---


def tree_of(*paths):
    return {path: torch.ones(2) for path in paths}


def is_bias(path):
    return path.endswith("bias")


def test_each_group_has_its_own_transform_and_schedule():
    transform = optim.by_path({is_bias: optim.sgd(schedule.linear(1.0, 2.0)), "*weight": optim.sgd(5.0, momentum=0.5)})
    values = params()
    updates, state = transform.update(values, transform.init(values), values, optim.Context(position=0.5))
    assert tree.equal(updates, {"weight": -5.0 * values["weight"], "bias": -1.5 * values["bias"]})
    assert list(state) == ["is_bias", "*weight"]
    assert optim.hyperparameters(transform, optim.Context(position=0.5)) == {
        "is_bias.lr": 1.5,
        "*weight.momentum": 0.5,
        "*weight.lr": 5.0,
    }


def test_one_group_of_everything_is_the_transform_itself():
    inner, values = optim.sgd(0.1, momentum=0.9, weight_decay=0.1), params()
    one = optim.by_path({"*": inner})
    states = inner.init(values), one.init(values)
    for batch in range(3):
        rows = torch.arange(4) + batch
        expected, first = step(inner, states[0], values, rows)
        got, second = step(one, states[1], values, rows)
        assert tree.equal(got, expected)
        states = first, second


def test_the_order_of_the_gradients_keys_is_free():
    transform, values = optim.by_path({"weight": optim.sgd(1.0), "bias": optim.sgd(2.0)}), params()
    gradients = tree.map(torch.ones_like, values)
    turned = dict(reversed(list(gradients.items())))
    expected, _ = transform.update(gradients, transform.init(values), values, optim.Context())
    assert tree.equal(transform.update(turned, transform.init(values), values, optim.Context())[0], expected)


def test_groups_inside_a_chain_and_around_accumulation():
    inner = optim.by_path({"weight": optim.accumulate(2)(optim.sgd(1.0)), "bias": optim.sgd(1.0)})
    transform, values = optim.chain(optim.clip_by_global_norm(1e9), inner), params()
    state, ones = transform.init(values), tree.map(torch.ones_like, values)
    first, state = transform.update(ones, state, values, optim.Context())
    second, state = transform.update(ones, state, values, optim.Context())
    assert first["weight"].abs().sum() == 0 and second["weight"].abs().sum() > 0
    assert tree.equal(first["bias"], second["bias"])


def test_a_group_may_be_empty():
    transform, values = optim.by_path({"*weight": optim.sgd(1.0), is_bias: optim.adamw()}), tree_of("0.weight")
    updates, _ = transform.update(values, transform.init(values), values, optim.Context())
    assert tree.equal(updates, {"0.weight": -torch.ones(2)})


def test_a_leaf_claimed_by_none_or_several_is_named():
    transform = optim.by_path({"*weight": optim.sgd(1.0), "0*": optim.sgd(1.0)})
    message = (
        r"each parameter needs exactly one group of by_path, but:\n"
        r"  0\.weight: claimed by '\*weight' and '0\*'\n"
        r"  1\.bias: claimed by no group$"
    )
    with pytest.raises(InvalidArgument, match=message):
        transform.init(tree_of("0.weight", "0.bias", "1.weight", "1.bias"))


def test_at_most_ten_lines_are_shown():
    transform = optim.by_path({"x": optim.sgd(1.0)})
    with pytest.raises(InvalidArgument, match="and 6 more") as raised:
        transform.init(tree_of(*(str(index) for index in range(15))))
    assert len(str(raised.value).splitlines()) == 11


def test_two_predicates_of_one_name_are_refused():
    with pytest.raises(DuplicateName, match="two groups are called '<lambda>'; give each predicate a name of its own"):
        optim.by_path({(lambda path: True): optim.sgd(1.0), (lambda path: False): optim.sgd(1.0)})


def test_a_group_that_is_no_transform_is_refused():
    with pytest.raises(InvalidArgument, match=r"group '\*' must be a Transform, got 0.1"):
        optim.by_path({"*": 0.1})


def test_a_mismatch_of_gradients_is_named_by_groups_too():
    transform, values = optim.by_path({"*": optim.sgd(1.0)}), params()
    with pytest.raises(TreeMismatch, match=r"the gradients must have.*\n  bias: expected float64\(2,\), got nothing"):
        transform.update({"weight": values["weight"]}, transform.init(values), values, optim.Context())
