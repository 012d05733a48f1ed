"""The step is a pure function: it equals plain PyTorch, changes nothing, and its handlers take part in it."""

import attrs
import pytest
import torch
from toolz import compose_left

import functrain as ft
from functrain import data, losses, metrics, nn, optim, schedule, tree
from functrain.errors import (
    DeviceMismatch,
    DtypeMismatch,
    DuplicateName,
    InvalidArgument,
    InvalidCallbackResult,
    InvalidKey,
    ShapeMismatch,
    UnknownEvent,
)
from functrain.train.events import in_order
from functrain.train.stepping.gradients import differentiate_loss, differentiate_mean
from functrain.train.stepping.record import begin
from functrain.train.stepping.step import (
    apply_model,
    compare_losses,
    forward,
    mean_loss,
    train_stages,
)
from functrain.train.stop import Stops


def learner_of(optimizer=None, model=None, **options):
    model = nn.serial(nn.dense(5), nn.relu, nn.dense(3)) if model is None else model
    optimizer = optim.sgd(lr=0.1, momentum=0.9) if optimizer is None else optimizer
    return ft.Learner(model, losses.cross_entropy, optimizer, {"accuracy": metrics.accuracy}, **options)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 4, generator=generator), torch.randint(3, (8,), generator=generator)


def test_equals_plain_pytorch_over_many_steps(batch):
    learner = learner_of()
    state = ft.init(learner, ft.random.key(0), batch)
    module = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    module.load_state_dict(nn.to_state_dict(state.params, state.buffers))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    step = ft.train_step(learner)
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(module(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state, logs = step(state, batch)
        assert float(logs["loss"]) == pytest.approx(float(loss.detach()), rel=1e-5)
    for name, value in nn.to_state_dict(state.params, state.buffers).items():
        torch.testing.assert_close(value, module.state_dict()[name])
    assert int(state.step) == int(state.updates) == 20


@pytest.mark.parametrize("weight", [None, [1.0, 0.0, 2.0, 1.0, 0.5, 0.0, 1.0, 3.0]])
def test_the_shortcut_without_handlers_is_the_chain_of_stages(batch, weight):
    model = nn.serial(nn.dense(5), nn.batch_norm(), nn.relu, nn.dropout(0.5), nn.dense(3))
    learner = learner_of(model=model)
    given = data.Batch(*batch, None if weight is None else torch.tensor(weight))
    step = begin(learner, ft.init(learner, ft.random.key(0), batch), given)
    inner = compose_left(forward(apply_model(model)), compare_losses(learner.loss), mean_loss)
    found, expected = differentiate_mean(apply_model(model), learner.loss)(step), differentiate_loss(inner)(step)
    for part in ("state", "prediction", "buffers", "losses", "grads"):
        assert tree.equal(getattr(found, part), getattr(expected, part)), part
    assert torch.equal(found.loss, expected.loss)


def test_is_pure(batch):
    learner = learner_of(model=nn.serial(nn.dense(5), nn.batch_norm(), nn.relu, nn.dropout(0.5), nn.dense(3)))
    state = ft.init(learner, ft.random.key(0), batch)
    before = tree.map(torch.clone, (state, batch))
    step = ft.train_step(learner)
    first, second = step(state, batch), step(state, batch)
    assert tree.equal((state, batch), before)
    assert tree.equal(first, second)
    assert not any(leaf.requires_grad for leaf in tree.leaves(first))


def test_each_step_draws_anew(batch):
    learner = learner_of(optim.sgd(lr=0.0), nn.serial(nn.dropout(0.5), nn.dense(3)))
    state = ft.init(learner, ft.random.key(0), batch)
    step = ft.train_step(learner)
    after, first = step(state, batch)
    _, second = step(after, batch)
    assert float(first["loss"]) != float(second["loss"])


def test_zero_weight_rows_change_nothing(batch):
    learner = learner_of(model=nn.serial(nn.dense(5), nn.batch_norm(), nn.relu, nn.dense(3)))
    state = ft.init(learner, ft.random.key(0), batch)
    inputs, targets = batch
    padded = data.Batch(
        torch.cat([inputs, torch.full((3, 4), float("nan"))]).nan_to_num(7.0),
        torch.cat([targets, torch.zeros(3, dtype=torch.int64)]),
        torch.tensor([1.0] * 8 + [0.0] * 3),
    )
    plain, plain_logs = ft.train_step(learner)(state, batch)
    after, logs = ft.train_step(learner)(state, padded)
    assert not tree.differences(plain, after, rtol=1e-5, atol=1e-6)
    assert not tree.differences(plain_logs, logs, rtol=1e-5)


def test_micro_batches_equal_the_full_batch(batch):
    inputs, targets = batch
    full, micro = learner_of(optim.sgd(lr=0.1)), learner_of(optim.accumulate(3, optim.sgd(lr=0.1)))
    state = ft.init(full, ft.random.key(0), batch)
    expected, _ = ft.train_step(full)(state, batch)
    parts = [(inputs[a:b], targets[a:b]) for a, b in ((0, 4), (4, 5), (5, 8))]
    accumulated, _ = ft.fold(ft.train_step(micro), ft.init(micro, ft.random.key(0), batch), parts)
    assert not tree.differences(expected.params, accumulated.params, rtol=1e-5, atol=1e-7)


def test_logs_of_a_batch(batch):
    learner = learner_of()
    state = ft.init(learner, ft.random.key(0), batch)
    prediction, _ = learner.model.apply(state.params, state.buffers, batch[0])
    logs = ft.eval_step(learner)(state, batch)
    assert float(logs["loss"]) == pytest.approx(
        float(torch.nn.functional.cross_entropy(prediction, batch[1])), rel=1e-6
    )
    assert float(logs["accuracy"]) == float((prediction.argmax(1) == batch[1]).double().mean())


def test_the_step_works_under_vmap_for_an_ensemble(batch):
    learner = learner_of(optim.sgd(lr=schedule.linear(0.1, 0.2), momentum=0.9))
    keys = ft.random.split(ft.random.key(0), 3)
    states = [ft.plan(ft.init(learner, key, batch), steps=4) for key in keys.unbind(0)]
    step = ft.train_step(learner)
    stacked, _ = torch.func.vmap(step, in_dims=(0, None))(tree.stack(states), batch)
    looped = tree.stack([step(state, batch)[0] for state in states])
    assert not tree.differences(stacked, looped, rtol=1e-5, atol=1e-6)


def test_a_schedule_reads_the_position_of_the_plan(batch):
    learner = learner_of(optim.sgd(lr=schedule.linear(1.0, 0.0)))
    state = ft.plan(ft.init(learner, ft.random.key(0), batch), steps=4)
    seen = []
    for _ in range(4):
        seen.append(ft.hyperparameters(learner, ft.progress_of(state))["lr"])
        state, _ = ft.train_step(learner)(state, batch)
    assert seen == [1.0, 0.75, 0.5, 0.25]
    assert ft.progress_of(state).position == 1.0


def test_progress_is_the_same_traced_and_plain(batch):
    state = ft.plan(ft.init(learner_of(), ft.random.key(0), batch), steps=7, epochs=3)
    state = attrs.evolve(state, step=state.step + 10, updates=state.updates + 9)
    plain = ft.progress_of(state)
    seen = torch.func.vmap(lambda s: ft.progress_of(s))(tree.map(lambda t: t[None], state))
    assert float(seen.position) == plain.position == 10 / 21
    assert float(seen.epoch) == plain.epoch
    assert int(seen.updates) == plain.updates == 9


# Handlers inside the step


def run_step(callbacks, batch, learner=None, state=None):
    learner = learner_of() if learner is None else learner
    state = ft.init(learner, ft.random.key(0), batch) if state is None else state
    memory = {callback.name: callback.memory for callback in callbacks}
    stops = Stops()
    done = train_stages(learner, in_order(callbacks), stops)(begin(learner, state, data.as_batch(batch), memory=memory))
    return state, done, stops


def test_each_event_of_the_step_comes_in_order_with_what_it_promises(batch):
    seen = []

    def note(event):
        def handler(step):
            seen.append((event, step.prediction is not None, step.loss is not None, step.grads is not None))

        return handler

    run_step([ft.Callback("note", {event: note(event) for event in ft.train.STEP_EVENTS})], batch)
    assert seen == [
        ("begin_step", False, False, False),
        ("after_pred", True, False, False),
        ("after_loss", True, True, False),
        ("after_grads", True, True, True),
        ("after_step", True, True, True),
    ]


def test_handlers_may_replace_batch_prediction_loss_gradients_and_state(batch):
    inputs, _ = batch
    changes = {
        "begin_step": lambda step: attrs.evolve(step, batch=attrs.evolve(step.batch, input=2 * inputs)),
        "after_pred": lambda step: attrs.evolve(step, prediction=step.prediction / 2),
        "after_loss": lambda step: attrs.evolve(step, loss=3 * step.loss),
        "after_grads": lambda step: attrs.evolve(step, grads=tree.map(torch.sign, step.grads)),
        "after_step": lambda step: attrs.evolve(step, memory={"change": step.memory["change"] + 1}),
    }
    learner = learner_of(optim.sgd(lr=0.5))
    state, done, _ = run_step([ft.Callback("change", changes, memory=torch.tensor(4))], batch, learner)

    def loss_of(params):
        prediction, _ = learner.model.apply(params, {}, 2 * inputs)
        return 3 * losses.cross_entropy(prediction / 2, batch[1]).mean()

    expected = tree.map(lambda p, g: p - 0.5 * torch.sign(g), state.params, ft.grad(loss_of)(state.params))
    assert not tree.differences(done.state.params, expected, rtol=1e-5, atol=1e-6)
    assert int(done.memory["change"]) == 5


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 3.0])])
def test_looking_at_the_loss_changes_no_bit(weight):
    batch = data.Batch(torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]), weight)
    looked = []
    look = ft.Callback("look", {"after_loss": lambda step: looked.append(step.loss.detach())})
    _, unseen, _ = run_step([], batch)
    _, seen, _ = run_step([look], batch)
    assert tree.equal(seen.state.params, unseen.state.params)
    assert torch.equal(looked[0], unseen.loss) and not unseen.loss.requires_grad


def test_both_counts_are_those_of_the_beginning_of_the_step(batch):
    learner = learner_of(optim.sgd(lr=schedule.over_updates(4, schedule.linear(0.4, 0.0))))
    state = ft.plan(ft.init(learner, ft.random.key(0), batch), steps=4)
    seen = []
    events = ("begin_step", "after_loss", "after_grads", "after_step")
    note = ft.Callback("note", {event: lambda step: seen.append(step.progress) for event in events})
    run_step([note], batch, learner, state)
    assert {(at.position, at.updates) for at in seen} == {(0.0, 0)}


@pytest.mark.parametrize("event", ft.train.STEP_EVENTS)
@pytest.mark.parametrize("happens", [True, False])
def test_a_stop_ends_the_rest_of_the_batch_and_only_where_it_happens(batch, event, happens):
    stop = ft.Callback("stop", {event: lambda step: ft.Stop(step, when=step.state.step == (0 if happens else 99))})
    learner = learner_of(model=nn.serial(nn.dense(5), nn.batch_norm(), nn.dense(3)))
    state, done, _ = run_step([stop], batch, learner)
    plain, _ = ft.train_step(learner)(state, batch)
    skipped = happens and event != "after_step"
    assert int(done.state.step) == 1
    assert int(done.state.updates) == (0 if skipped else 1)
    expected = attrs.evolve(state, step=state.step + 1) if skipped else plain
    assert tree.equal(done.state, expected)
    assert tree.equal(done.tally, begin(learner, state, data.as_batch(batch)).tally) == skipped


@pytest.mark.parametrize("event", ft.train.STEP_EVENTS[:-1])
def test_a_stop_of_the_fit_leaves_the_whole_state_as_it_was(batch, event):
    stop = ft.Callback("stop", {event: lambda step: ft.Stop(step, scope="fit", reason="enough")})
    state, done, stops = run_step([stop], batch)
    assert tree.equal(done.state, state)
    said = stops.table[int(done.halt.number) - 1]
    assert (said.scope, said.reason, said.callback, said.event) == ("fit", "enough", "stop", event)


def test_the_first_of_two_stops_counts(batch):
    first = ft.Callback(
        "first", {"begin_step": lambda step: ft.Stop(step, scope="fit", reason="1", when=step.state.step < 0)}
    )
    second = ft.Callback("second", {"after_pred": lambda step: ft.Stop(step, scope="fit", reason="2")})
    third = ft.Callback("third", {"after_grads": lambda step: ft.Stop(step, scope="epoch", reason="3")})
    _, done, stops = run_step([first, second, third], batch)
    assert stops.table[int(done.halt.number) - 1].reason == "2"


# Bad input


def test_a_key_that_is_no_key(batch):
    with pytest.raises(InvalidKey):
        ft.init(learner_of(), 0, batch)


@pytest.mark.parametrize(
    ("inputs", "targets", "error"),
    [
        (torch.ones(8, 7), torch.zeros(8, dtype=torch.int64), ShapeMismatch),
        (torch.ones(8, 4, dtype=torch.int64), torch.zeros(8, dtype=torch.int64), DtypeMismatch),
        (torch.ones(8, 4), torch.zeros(8), DtypeMismatch),
        (torch.ones(8, 4), torch.zeros(7, dtype=torch.int64), ShapeMismatch),
        (torch.ones(8, 4, device="meta"), torch.zeros(8, dtype=torch.int64, device="meta"), DeviceMismatch),
    ],
)
def test_a_batch_that_does_not_fit(batch, inputs, targets, error):
    learner = learner_of()
    state = ft.init(learner, ft.random.key(0), batch)
    with pytest.raises(error):
        ft.overfit_batch(learner, state, (inputs, targets))


def test_a_loss_that_reduces_by_itself_is_named(batch):
    learner = ft.Learner(nn.dense(3), torch.nn.functional.cross_entropy, optim.sgd(lr=0.1))
    state = ft.init(learner, ft.random.key(0), batch)
    with pytest.raises(ShapeMismatch, match="one value per target"):
        ft.overfit_batch(learner, state, batch)


def test_what_a_learner_holds_is_checked():
    with pytest.raises(InvalidArgument, match="model must be a Model, got Linear"):
        ft.Learner(torch.nn.Linear(2, 2), losses.mse, optim.sgd(lr=0.1))
    with pytest.raises(InvalidArgument, match="optimizer must be a Transform"):
        ft.Learner(nn.dense(2), losses.mse, torch.optim.SGD)
    with pytest.raises(InvalidArgument, match="loss must be a function"):
        ft.Learner(nn.dense(2), "mse", optim.sgd(lr=0.1))
    with pytest.raises(InvalidArgument, match="must be a Metric, got function"):
        ft.Learner(nn.dense(2), losses.mse, optim.sgd(lr=0.1), {"mine": losses.mse})
    with pytest.raises(DuplicateName, match="'loss' is taken"):
        ft.Learner(nn.dense(2), losses.mse, optim.sgd(lr=0.1), {"loss": metrics.accuracy})


def test_callbacks_are_checked():
    with pytest.raises(UnknownEvent, match="unknown event 'after_epohc'; did you mean 'after_epoch'"):
        ft.Callback("mine", {"after_epohc": print})
    with pytest.raises(InvalidArgument, match="must be a function"):
        ft.Callback("mine", {"after_epoch": 3})
    with pytest.raises(InvalidArgument, match="phases must be some of"):
        ft.Callback("mine", {}, phases=("test",))
    with pytest.raises(DuplicateName, match="two callbacks are named 'mine'"):
        in_order([ft.Callback("mine", {}), ft.Callback("mine", {})])
    with pytest.raises(InvalidArgument, match="call it to make the callback"):
        in_order([ft.callbacks.progress])


@pytest.mark.parametrize("order", ["1", None, float("nan"), True, torch.tensor(1.0)])
def test_an_order_is_a_number(order):
    with pytest.raises(InvalidArgument, match="order must be a number, by which callbacks are called, got"):
        ft.Callback("mine", {}, order=order)


def test_order_is_by_number_and_stable():
    made = [ft.Callback("c", {}, order=1), ft.Callback("a", {}), ft.Callback("b", {}), ft.Callback("z", {}, order=-1)]
    assert [callback.name for callback in in_order(made)] == ["z", "a", "b", "c"]


def test_a_step_handler_that_returns_something_else(batch):
    with pytest.raises(InvalidCallbackResult, match="'odd', event 'after_loss': a handler must return a Step"):
        run_step([ft.Callback("odd", {"after_loss": lambda step: step.loss})], batch)
    with pytest.raises(InvalidArgument, match="the scope of a Stop must be one of"):
        run_step([ft.Callback("odd", {"after_loss": lambda step: ft.Stop(step, scope="everything")})], batch)


def test_plan_checks_its_numbers(batch):
    state = ft.init(learner_of(), ft.random.key(0), batch)
    for steps, epochs in ((0, 1), (1, 0), (True, 1), (2.0, 1)):
        with pytest.raises(InvalidArgument, match="must be a whole number of at least 1"):
            ft.plan(state, steps, epochs)
