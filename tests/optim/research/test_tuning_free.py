"""Rates that find themselves: what they are made for, the parameters to evaluate, and what is refused."""

from functools import partial

import pytest
import torch

import functrain as ft
from functrain import callbacks, data, losses, nn, optim, random, tree
from functrain.errors import InvalidArgument

DOUBLE = torch.float64


def descended(transform, loss, params, steps):
    evaluate = ft.value_and_grad(loss)

    def step(carry, _):
        params, state = carry
        value, grads = evaluate(params)
        return optim.step(transform, grads, state, params, optim.Context(loss=value, evaluate=evaluate)), value

    run = ft.jit(lambda carry: ft.scan(step, carry, torch.zeros(steps))[0])
    return run((params, transform.init(params)))


MADE = {
    "dog": lambda: optim.dog(),
    "dowg": lambda: optim.dowg(),
    "prodigy": lambda: optim.prodigy(),
    "mechanize": lambda: optim.mechanize(optim.adam(1.0)),
    "polyak_sgd": lambda: optim.polyak_sgd(most=1e9),
}


@pytest.mark.parametrize("scale", [1e-2, 1e2])
@pytest.mark.parametrize("name", MADE)
def test_nothing_is_tuned_to_the_size_of_the_problem(name, scale):
    """The minimum a hundredth, or a hundred times, as far away: the same call finds it."""
    goal = scale * torch.tensor([1.0, -2.0, 0.5], dtype=DOUBLE)

    def loss(params):
        return ((params["w"] - goal) ** 2 * torch.tensor([1.0, 2.0, 4.0], dtype=DOUBLE)).sum()

    start = {"w": torch.zeros(3, dtype=DOUBLE)}
    after, _ = descended(MADE[name](), loss, start, 4000)
    assert loss(after) < 1e-3 * loss(start)


@pytest.mark.parametrize("name", ["dog", "prodigy", "polyak_sgd"])
def test_a_gradient_of_zero_is_no_step(name):
    transform, params = MADE[name](), {"w": torch.ones(2)}
    zero = tree.zeros_like(params)
    updates, _ = transform.update(zero, transform.init(params), params, optim.Context(loss=0.0))
    assert tree.equal(updates, zero)


# --- the parameters to evaluate ---


def averaged_by_hand(lr, b1, steps):
    """Three sequences, as the paper states them, of the loss |w - 1|^2 / 2."""
    x = y = z = torch.tensor([4.0, -1.0], dtype=DOUBLE)
    for t in range(1, steps + 1):
        z = z - lr * (y - 1)
        x = (1 - 1 / t) * x + z / t
        y = (1 - b1) * z + b1 * x
    return x, y


@pytest.mark.parametrize("b1", [0.5, 0.9])
def test_schedule_free_is_its_three_sequences(b1):
    start = {"w": torch.tensor([4.0, -1.0], dtype=DOUBLE)}
    after, state = descended(optim.schedule_free_sgd(0.3, b1=b1), lambda p: (p["w"] - 1).square().sum() / 2, start, 17)
    x, y = averaged_by_hand(0.3, b1, 17)
    torch.testing.assert_close(after["w"], y)
    torch.testing.assert_close(optim.evaluation_params(state, after)["w"], x)


def test_the_parameters_to_evaluate_are_found_in_chains_and_groups():
    params = {"0": {"w": torch.ones(2), "b": torch.ones(1)}, "1": {"w": torch.ones(2)}}
    free = optim.schedule_free_sgd(0.5)
    grouped = optim.chain(
        optim.clip_by_global_norm(1e9),
        optim.partition({"free": free, "rest": optim.lookahead(2, 0.5, optim.sgd(0.5))}, {"free": "0.*", "rest": ...}),
    )
    alone, one, other = params["0"], params, free.init(params["0"])
    state = grouped.init(params)
    for _ in range(3):
        one, state = optim.step(grouped, params, state, one)
        alone, other = optim.step(free, params["0"], other, alone)
    shown = optim.evaluation_params(state, one)
    assert tree.equal(shown["0"], optim.evaluation_params(other, alone))
    assert not tree.equal(shown["0"], one["0"])
    assert tree.equal(shown["1"], {"w": torch.full((2,), 0.5)})
    with pytest.raises(InvalidArgument, match="holds no state of schedule_free or lookahead"):
        optim.evaluation_params(optim.adam().init(params), params)


ROWS = data.ArrayDataset((torch.randn(24, 6, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3))


@pytest.mark.parametrize("jit, chunk", [(False, 1), ("aten", 2)])
def test_a_fit_validates_with_the_averages_and_trains_with_its_own(jit, chunk):
    learner = ft.Learner(
        nn.serial(nn.dense(5), nn.batch_norm(), nn.dense(3)), losses.cross_entropy, optim.schedule_free_adamw(0.05)
    )
    state = ft.init(learner, random.key(0), ROWS[:1])
    train, valid = data.loader(ROWS, data.shuffled(8)), data.loader(ROWS, data.sequential(7))
    options = dict(train=train, valid=valid, epochs=3, jit=jit, chunk=chunk)
    plain = ft.fit(learner, state, **options)
    shown = ft.fit(learner, state, **options, callbacks=[callbacks.validate_averages()])
    assert tree.equal(plain.state, shown.state)
    end = ft.evaluate(learner, callbacks.with_averages(shown.state), valid)["loss"]
    assert shown.history[-1]["valid/loss"] == pytest.approx(end, rel=1e-5)
    assert plain.history[-1]["valid/loss"] != pytest.approx(end, rel=1e-5)


def test_validating_with_what_the_optimizer_does_not_have_is_refused():
    learner = ft.Learner(nn.dense(3), losses.cross_entropy, optim.adam())
    loader = data.loader(ROWS, data.sequential(8))
    with pytest.raises(InvalidArgument, match="whose parameters themselves are evaluated"):
        ft.fit(
            learner,
            ft.init(learner, random.key(0), ROWS[:1]),
            train=loader,
            valid=loader,
            epochs=1,
            callbacks=[callbacks.validate_averages()],
        )


def test_what_makes_no_update_moves_nothing():
    opens = ft.schedule.piecewise_constant([0.5], [0, 1])
    free = partial(optim.schedule_free, lr=0.1)
    for transform in (
        optim.mechanize(optim.gate(opens, optim.sgd(0.1))),
        free(lambda lr: optim.gate(opens, optim.sgd(0.1))),
        free(lambda lr: optim.accumulate(2, optim.sgd(0.1))),
    ):
        params = {"w": torch.ones(2)}
        first, state = transform.update(params, transform.init(params), params, optim.Context())
        second, state = transform.update(params, state, params, optim.Context(position=0.5))
        assert not first["w"].any() and second["w"].all() and optim.updates_made(transform, state) == 1


def test_arguments_out_of_range_are_named():
    for make, message in (
        (lambda: optim.dog(initial=0.0), "initial must be a number above 0"),
        (lambda: optim.dowg(eps=-1.0), "eps must be a number of at least 0"),
        (lambda: optim.prodigy(initial=0.0), "initial must be a number above 0"),
        (lambda: optim.prodigy(initial=ft.schedule.linear(0, 1)), "initial must be a number that stays as it is"),
        (lambda: optim.prodigy(b3=1.0), "b3 must be a number of at least 0 and below 1"),
        (lambda: optim.prodigy(growth=-1.0), "growth must be a number of at least 0"),
        (lambda: optim.polyak_sgd(lowest=float("inf")), "lowest must be a finite number"),
        (lambda: optim.polyak_sgd(most=-1.0), "most must be a number of at least 0"),
        (lambda: optim.mechanize(0.1), "transform must be a Transform"),
        (lambda: optim.mechanize(optim.sgd(1.0), memories=0), "memories must be a whole number"),
        (lambda: optim.mechanize(optim.sgd(1.0), decay=-1.0), "mechanic_decay must be a number of at least 0"),
        (lambda: optim.schedule_free(optim.sgd, 0.1, b1=1.0), r"b1 must be a number in \(0, 1\), got 1.0"),
        (lambda: optim.schedule_free(optim.sgd, 0.1, b1=0.0), "b1 must be a number above 0"),
        (lambda: optim.schedule_free(optim.sgd, 0.1, power=-1.0), "power must be a number of at least 0"),
        (lambda: optim.schedule_free(lambda lr: 0.1, 0.1), "what make returns must be a Transform"),
        (lambda: optim.schedule_free_sgd(-0.1), "lr must be a number of at least 0"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            make()
    params = {"w": torch.ones(2)}
    with pytest.raises(InvalidArgument, match="needs the loss of this batch"):
        optim.polyak_sgd().update(params, ((), ()), params)
