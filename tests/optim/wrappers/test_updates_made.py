"""Two counts and no third: what transforms say of the updates that they made, alone and composed."""

import math

import pytest
import torch

import functrain as ft
from functrain import data, losses, nn, optim, random, schedule, tree
from functrain.errors import InvalidArgument

KEY = random.key(0)
FALLING = schedule.over_updates(10, schedule.linear(1, 0))
ONE = {"w": torch.ones(1, dtype=torch.float64)}


def rates(transform, batches=20, gradients=None):
    """What a loop that counts as `fit` does sees: the updates by batch, and the count at the end."""
    params, state, seen = ONE, transform.init(ONE), []
    count = torch.tensor(0)
    for step in range(batches):
        context = optim.Context(step / batches, count, step=step)
        before, made = state, optim.updates_made(transform, state)
        updates, state = transform.update(ONE if gradients is None else gradients(step), before, params, context)
        after = optim.updates_made(transform, state)
        count = count + (1 if made is None else after - made)
        seen.append(-updates["w"].item())
    return seen, int(count)


def every(k, values):
    return [value for value in values for value in [0.0] * (k - 1) + [value]]


GATED = {
    "around": optim.accumulate(4, optim.sgd(FALLING)),
    "in a chain": optim.chain(optim.accumulate(4, optim.identity), optim.scale_by_learning_rate(FALLING)),
    "chains in chains": optim.chain(
        optim.chain(optim.identity, optim.accumulate(4, optim.identity)),
        optim.chain(optim.sgd(FALLING), optim.identity),
    ),
    "nested": optim.accumulate(2, optim.accumulate(2, optim.sgd(FALLING))),
    "two in a chain": optim.chain(optim.accumulate(2, optim.identity), optim.accumulate(2, optim.sgd(FALLING))),
    "a group": optim.partition({"all": optim.accumulate(4, optim.sgd(FALLING))}, {"all": "*"}),
    "named": optim.named("slow", optim.accumulate(4, optim.sgd(FALLING))),
    "skipping around": optim.skip_nonfinite(optim.accumulate(4, optim.sgd(FALLING))),
    "skipping inside": optim.accumulate(4, optim.skip_nonfinite(optim.sgd(FALLING))),
}


@pytest.mark.parametrize("name", GATED)
def test_schedules_inside_and_outside_read_the_updates_that_were_made(name):
    seen, count = rates(GATED[name])
    assert seen == pytest.approx(every(4, [1.0, 0.9, 0.8, 0.7, 0.6]), abs=1e-15) and count == 5


@pytest.mark.parametrize("name", GATED)
def test_compiled_they_count_alike(name):
    transform = GATED[name]
    update = ft.jit(lambda g, state, count: transform.update(g, state, ONE, optim.Context(updates=count)))
    eager, compiled = transform.init(ONE), transform.init(ONE)
    for step in range(9):
        count = torch.tensor(step // 4)
        first, eager = transform.update(ONE, eager, ONE, optim.Context(updates=count))
        second, compiled = update(ONE, compiled, count)
        assert not tree.differences((first, eager), (second, compiled), rtol=1e-15)


def test_a_transform_of_which_each_call_is_an_update_says_none():
    for transform in (
        optim.sgd(0.1),
        optim.adamw(),
        optim.identity,
        optim.partition({"all": optim.sgd(0.1)}, {"all": "*"}),
    ):
        assert optim.updates_made(transform, transform.init(ONE)) is None
    mixed = optim.partition({"a": optim.accumulate(3, optim.sgd(0.1)), "b": optim.sgd(0.1)}, {"a": "a", "b": "b"})
    params = {"a": torch.ones(1), "b": torch.ones(1)}
    state = mixed.init(params)
    for step in range(4):
        assert optim.updates_made(mixed, state) == step  # the other group moves at each batch
        _, state = mixed.update(params, state, params, optim.Context())


def test_an_update_is_made_when_some_group_makes_one():
    params = {"a": torch.ones(1), "b": torch.ones(1)}
    groups = optim.partition(
        {"a": optim.accumulate(3, optim.sgd(0.1)), "b": optim.accumulate(2, optim.sgd(0.1))}, {"a": "a", "b": ...}
    )
    state, counts = groups.init(params), []
    for _ in range(6):
        updates, state = groups.update(params, state, params, optim.Context())
        counts.append((int(optim.updates_made(groups, state)), any(bool(u != 0) for u in updates.values())))
    assert counts == [(0, False), (1, True), (2, True), (3, True), (3, False), (4, True)]


def test_a_group_without_parameters_makes_no_update():
    groups = optim.partition(
        {"w": optim.accumulate(2, optim.sgd(0.1)), "rest": optim.sgd(0.1)}, {"w": "w", "rest": ...}
    )
    state = groups.init(ONE)
    _, state = groups.update(ONE, state, ONE, optim.Context())
    assert optim.updates_made(groups, state) == 0


@pytest.mark.parametrize(
    "after",
    [
        optim.add_decayed_weights(0.5),
        optim.trace(0.9),
        optim.chain(optim.scale_by_adam(), optim.add_decayed_weights(0.5)),
    ],
)
def test_what_stands_after_accumulation_runs_once_an_update(after):
    # Alone, weight decay and momentum would move the parameters at every batch.
    chained, params, values = optim.chain(optim.accumulate(3, optim.identity), after), ONE, []
    inside, state, plain = optim.accumulate(3, after), chained.init(ONE), None
    plain = inside.init(ONE)
    for _ in range(7):
        got, state = chained.update(ONE, state, params, optim.Context())
        expected, plain = inside.update(ONE, plain, params, optim.Context())
        values.append(got["w"].item())
        assert tree.equal(got, expected)
    assert [value != 0 for value in values] == [False, False, True] * 2 + [False]


def test_chains_with_gates_are_associative():
    a, b, c = optim.accumulate(2, optim.trace(0.5)), optim.skip_nonfinite(optim.identity), optim.adam(0.1)

    def gradients(step):
        return {"w": torch.tensor([math.nan if step == 5 else step + 1.0])}

    flat = rates(optim.chain(a, b, c), 12, gradients)
    assert flat == rates(optim.chain(optim.chain(a, b), c), 12, gradients)
    assert flat == rates(optim.chain(a, optim.chain(b, c)), 12, gradients)
    assert flat[1] < 6  # the NaN stays in the momentum of a, so nothing after it is an update


def test_what_is_not_finite_is_skipped_and_counted():
    transform = optim.skip_nonfinite(optim.sgd(FALLING, momentum=0.9))
    clean = rates(optim.sgd(FALLING, momentum=0.9), 6)[0]

    def gradients(step):
        return {"w": torch.tensor([[1.0, math.nan, -math.inf][step % 3]], dtype=torch.float64)}

    seen, count = rates(transform, 16, gradients)
    assert seen[::3] == clean and set(seen[1::3] + seen[2::3]) == {0.0} and count == 6
    state = transform.init(ONE)
    for step in range(5):
        _, state = transform.update(gradients(step), state, ONE, optim.Context())
    assert (int(state.updates), int(state.skipped)) == (2, 3)
    assert transform.update({}, transform.init({}), {}, optim.Context())[0] == {}


def test_weights_of_zero_alone_make_no_update():
    transform = optim.accumulate(2, optim.chain(optim.trace(0.9), optim.add_decayed_weights(1.0)))
    state = transform.init(ONE)
    for weight in (1.0, 1.0, 0.0, 0.0):
        updates, state = transform.update(ONE, state, ONE, optim.Context(weight=weight))
    assert updates["w"].item() == 0.0 and optim.updates_made(transform, state) == 1 and int(state.batches) == 0


def test_skipping_needs_a_transform():
    with pytest.raises(InvalidArgument, match=r"transform must be a Transform, got 0.1"):
        optim.skip_nonfinite(0.1)


@pytest.mark.parametrize("jit", [False, "aten"])
def test_a_fit_counts_the_updates_that_were_made(jit):
    rows = data.ArrayDataset((torch.arange(20.0)[:, None], torch.zeros(20, 1)))
    optimizer = optim.accumulate(4, optim.sgd(FALLING))
    learner = ft.Learner(nn.dense(1), losses.mse, optimizer)
    state = ft.init(learner, random.key(0), rows[:1])
    result = ft.fit(learner, state, train=data.loader(rows, data.sequential(1)), epochs=1, jit=jit)
    assert int(result.state.updates) == 5 and int(result.state.step) == 20


# --- what makes no update is as if it had not been ---

SKIP = optim.skip_nonfinite
AROUND = {
    "itself": SKIP,
    "lookahead": lambda inner: optim.lookahead(2, 0.5, SKIP(inner)),
    "mechanize": lambda inner: optim.mechanize(SKIP(inner)),
    "schedule free": lambda inner: optim.schedule_free(lambda lr: SKIP(inner), 0.1),
    "freeze": lambda inner: optim.freeze("bias", SKIP(inner)),
    "flatten": lambda inner: optim.flatten(SKIP(inner)),
    "partition": lambda inner: optim.partition({"a": SKIP(inner), "b": SKIP(inner)}, {"a": "weight", "b": ...}),
    "low rank": lambda inner: optim.low_rank(SKIP(inner), 1, every=2),
    "what is behind": lambda inner: optim.chain(SKIP(optim.identity), inner, optim.average_iterates(1)),
    "plateau": lambda inner: optim.chain(SKIP(inner), optim.reduce_on_plateau(0.5, patience=0)),
    "sam": lambda inner: optim.sam(SKIP(inner)),
    "a line search": lambda inner: optim.strong_wolfe(SKIP(optim.scale_by_lbfgs())),
    "groups of two": lambda inner: SKIP(optim.accumulate(2, inner)),
    "loss scale": optim.dynamic_loss_scale,
    "what is finite": lambda inner: optim.apply_if_finite(5, inner),
    "finite matrices": lambda inner: optim.apply_if_finite(5, optim.soap(0.01, every=2)),
    "unfreezing": lambda inner: optim.unfreeze_gradually(SKIP(inner), ["weight", "bias"], [0.2]),
    "inject": lambda inner: optim.inject(lambda lr: SKIP(optim.adam(lr)), lr=0.1),
}


def course(optimizer, bad, compile):
    """Parameters and updates after six good batches, with two bad ones before each of those that are named."""
    begin = {"weight": torch.tensor([[0.3, -0.7], [0.5, 0.2]], dtype=torch.float64), "bias": torch.ones(2).double()}

    def evaluate(params):
        return sum((leaf - 1).square().sum() for leaf in params.values()), tree.map(lambda leaf: 2 * (leaf - 1), params)

    def step(params, state, updates, batch, factor):
        loss, grads = evaluate(params)
        grads = tree.map(lambda g: (g + torch.cos(g * (batch + 1))) * factor, grads)
        context = optim.Context(
            0.3, updates, key=random.fold_in(KEY, batch), loss=loss, evaluate=evaluate, loss_scale=torch.ones(())
        )
        return optim.step(optimizer, grads, state, params, context)

    step, params, state, updates = compile(step), begin, optimizer.init(begin), 0
    for batch in range(6):
        for factor in (*[float("nan")] * 2 * (batch in bad), 1.0):
            counts = torch.tensor(updates), torch.tensor(batch), torch.tensor(factor, dtype=torch.float64)
            params, state = step(params, state, *counts)
            updates = int(optim.updates_made(optimizer, state))
    return params, updates


@pytest.mark.parametrize("compile", [lambda f: f, ft.jit], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", AROUND)
def test_a_bad_batch_is_as_if_it_had_not_been(name, compile):
    for inner in (optim.sgd(schedule.over_updates(4, schedule.linear(0.1, 0.01)), momentum=0.9), optim.adam(0.05)):
        optimizer = AROUND[name](inner)
        got, expected = course(optimizer, {2, 3}, compile), course(optimizer, set(), compile)
        assert not tree.differences(got, expected, rtol=1e-9, atol=1e-11)
        assert 3 <= expected[1] <= 6


def test_what_is_frozen_makes_no_update():
    # The rate by updates fell k times too fast where some parameters were frozen.
    rate = schedule.over_updates(4, schedule.linear(0.4, 0.0))
    frozen = optim.freeze("bias", optim.accumulate(3, optim.sgd(rate)))
    params = {"weight": torch.zeros(1), "bias": torch.zeros(1)}
    state = frozen.init(params)
    for batch in range(9):
        made = optim.updates_made(frozen, state)
        assert made == batch // 3
        params, state = optim.step(
            frozen, tree.map(torch.ones_like, params), state, params, optim.Context(updates=made)
        )
    torch.testing.assert_close(params["weight"], torch.tensor([-0.4 - 0.3 - 0.2]))


def test_a_fit_counts_the_updates_of_what_is_trained():
    rows = data.ArrayDataset((torch.randn(24, 3), torch.randint(0, 2, (24,))))
    model = nn.serial(nn.dense(4), torch.tanh, nn.dense(2))
    optimizer = optim.freeze("0.*", optim.accumulate(3, optim.adam(0.1)))
    learner = ft.Learner(model, losses.cross_entropy, optimizer)
    state = ft.init(learner, KEY, rows[:1])
    run = ft.fit(learner, state, train=data.loader(rows, data.shuffled(4)), epochs=2)
    assert int(run.state.updates) == 4
