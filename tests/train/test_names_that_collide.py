"""Two values of one name are refused in words before one of them is lost."""

import attrs
import pytest
import torch
from training_problems import eager, problem

import functrain as ft
from functrain import callbacks, losses, metrics, nn, optim, schedule
from functrain.errors import DuplicateName, InvalidArgument

BOTH = pytest.mark.parametrize("jit", [False, "aten"])
COLUMN = r"'{}' is the name of a column that every record has"
SCHEDULE = r"'{}' is the name of a hyperparameter on a schedule"


@pytest.mark.parametrize("kind", ["metrics", "valid_metrics"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("step", COLUMN.format("step")),
        ("epoch", COLUMN.format("epoch")),
        ("lr", SCHEDULE.format("lr")),
        ("momentum", SCHEDULE.format("momentum")),
        ("model.1.rate", SCHEDULE.format("model.1.rate")),
        ("loss", "'loss' is taken by the loss itself"),
    ],
)
def test_a_metric(kind, name, message):
    rise = schedule.linear(0.1, 0.2)
    model = nn.serial(nn.dense(3), nn.dropout(rise))
    with pytest.raises(DuplicateName, match=f"{kind}.*{message}"):
        ft.Learner(model, losses.cross_entropy, optim.sgd(rise, momentum=rise), **{kind: {name: metrics.accuracy}})


@pytest.mark.parametrize("name", [3, "", None])
def test_a_metric_whose_name_is_no_string(name):
    with pytest.raises(InvalidArgument, match="metrics: a name must be a string"):
        ft.Learner(nn.dense(3), losses.cross_entropy, optim.sgd(0.1), {name: metrics.accuracy})


def test_the_name_of_a_hyperparameter_that_stays_as_it_is_is_free():
    learner = ft.Learner(nn.dense(3), losses.cross_entropy, optim.sgd(lr=0.1), {"lr": metrics.accuracy})
    _, _, train, _ = problem()
    state = ft.init(learner, ft.random.key(0), train.dataset[:1])
    run = eager(learner, state, train, callbacks=[callbacks.record()])
    assert {"train/lr"} <= set(run.history.columns) and len(run.memory["record"]["lr"]) == 14


def test_the_name_of_a_schedule_of_an_optimizer_of_ones_own():
    sgd = optim.sgd(lr=schedule.linear(0.1, 0.2))
    with pytest.raises(DuplicateName, match="the optimizer's hyperparameters: " + COLUMN.format("epoch")):
        ft.Learner(nn.dense(3), losses.cross_entropy, attrs.evolve(sgd, hypers={"epoch": sgd.hypers["lr"]}))


@BOTH
@pytest.mark.parametrize("name", ["step", "epoch", "lr", "accuracy"])
def test_a_part_of_the_loss_is_refused_before_training(jit, name):
    learner, state, train, _ = problem()

    def loss(prediction, target):
        values = losses.cross_entropy(prediction, target)
        return {"loss": values, name: values}

    begun = []
    notice = ft.Callback("notice", {"begin_fit": lambda run: begun.append(run)})
    with pytest.raises(DuplicateName, match=name):
        ft.fit(attrs.evolve(learner, loss=loss), state, train=train, epochs=1, jit=jit, callbacks=[notice])
    assert not begun


@BOTH
@pytest.mark.parametrize("event", ["begin_step", "after_pred", "after_loss", "after_grads", "after_step"])
@pytest.mark.parametrize("name", ["step", "epoch", "lr", "accuracy", "loss", "part"])
def test_a_value_that_a_handler_logs(jit, event, name):
    def loss(prediction, target):
        values = losses.cross_entropy(prediction, target)
        return {"loss": values, "part": values}

    learner, state, train, _ = problem()
    mine = ft.Callback("mine", {event: lambda step: ft.log(step, name, 1.0)})
    options = dict(train=train, epochs=1, jit=jit, callbacks=[mine, callbacks.record()])
    with pytest.raises((DuplicateName, InvalidArgument), match=name) as caught:
        ft.fit(attrs.evolve(learner, loss=loss), state, **options)
    assert int(caught.value.run.state.step) == 0


@pytest.mark.parametrize("jit", [False, True])
def test_a_part_of_the_loss_by_hand(jit):
    def loss(prediction, target):
        values = losses.cross_entropy(prediction, target)
        return {"loss": values, "accuracy": values}

    learner, state, train, _ = problem()
    step = ft.train_step(attrs.evolve(learner, loss=loss))
    with pytest.raises(DuplicateName, match="the loss has a part 'accuracy', and so is a metric called"):
        (ft.jit(step) if jit else step)(state, train.dataset[:8])


@BOTH
@pytest.mark.parametrize("name", ["step", "epoch", 3])
def test_the_logs_of_a_step_of_ones_own(jit, name):
    def step(total, batch):
        return total + batch.sum(), {name: total}

    with pytest.raises(InvalidArgument if name == 3 else DuplicateName, match=r"the logs of the step: .*name"):
        ft.loop(step, torch.tensor(0.0), key=ft.random.key(0), train=[torch.ones(2)] * 3, epochs=1, jit=jit)


def test_logs_that_a_handler_puts_in_a_recorded_run():
    learner, state, train, _ = problem()
    mine = ft.Callback(
        "mine", {"after_chunk": lambda run: attrs.evolve(run, logs={**run.logs, "step": run.logs["loss"]})}
    )
    with pytest.raises(DuplicateName, match="callback 'record', run.logs: " + COLUMN.format("step")):
        eager(learner, state, train, callbacks=[mine, callbacks.record()])


def test_a_validation_whose_columns_could_be_those_of_another():
    learner, state, train, valid = problem()
    with pytest.raises(InvalidArgument, match="valid: 'a/b' cannot be the name of a validation"):
        eager(learner, state, train, {"a": valid, "a/b": valid})
