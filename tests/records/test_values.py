"""Records as values: pickled, copied and compared, or refused in words."""

import copy
import pickle

import attrs
import cloudpickle
import pytest
import torch

import functrain as ft
from functrain import callbacks, data, errors, losses, metrics, nn, optim, schedule


@pytest.fixture(scope="module")
def training():
    rows = data.ArrayDataset((torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2))
    learner = ft.Learner(nn.dense(2), losses.cross_entropy, optim.sgd(schedule.cosine(0.1, 0.0), momentum=0.9))
    options = dict(
        train=data.loader(rows, data.shuffled(4)),
        valid=data.loader(rows, data.sequential(4)),
        callbacks=[callbacks.early_stopping("valid/loss", restore_best=True)],
    )
    state = ft.init(learner, ft.random.key(0), rows[:1])
    return learner, state, options, ft.fit(learner, state, epochs=2, **options)


def test_a_run_is_pickled_and_equal(training):
    *_, run = training
    again = pickle.loads(pickle.dumps(run))
    assert again == run and again.history == run.history
    assert copy.deepcopy(run) == run


def test_a_run_goes_on_from_its_pickle(training):
    learner, state, options, run = training
    half = ft.fit(learner, state, epochs=2, **{**options, "callbacks": [*options["callbacks"], stopper()]})
    assert half.stopped is not None
    again = ft.fit(
        learner,
        pickle.loads(pickle.dumps(half)),
        epochs=2,
        **{**options, "callbacks": [*options["callbacks"], stopper()]},
    )
    assert again.history == run.history and ft.tree.equal(again.state, run.state)


def stopper():
    def after_epoch(run):
        return ft.Stop(run, reason="half") if run.epoch == 0 else None

    return ft.Callback("stopper", {"after_epoch": after_epoch})


@pytest.mark.parametrize(
    "change",
    [
        lambda run: attrs.evolve(run, row={"a": 1}),
        lambda run: attrs.evolve(run, history=run.history[:1]),
        lambda run: attrs.evolve(run, cursor=attrs.evolve(run.cursor, batch=7)),
        lambda run: attrs.evolve(run, key=run.key + 1),
        lambda run: attrs.evolve(run, state=attrs.evolve(run.state, step=run.state.step + 1)),
    ],
)
def test_runs_that_differ_are_not_equal(training, change):
    *_, run = training
    assert change(run) != run


def test_histories_are_compared_by_value_and_nan_is_nan():
    rows = {"epoch": 1, "train/loss": float("nan")}
    assert ft.train.History((rows,)) == ft.train.History((dict(rows, **{"train/loss": float("nan")}),))
    assert ft.train.History((rows,)) != ft.train.History(({"epoch": 1, "train/loss": 0.0},))
    assert ft.train.History() != ()


def test_runs_and_histories_are_not_hashable(training):
    for value in (training[-1], training[-1].history):
        with pytest.raises(TypeError, match="unhashable"):
            hash(value)


def test_a_learner_is_equal_to_one_of_the_same_parts(training):
    learner, *_ = training
    assert attrs.evolve(learner) == learner
    assert attrs.evolve(learner, model=nn.dense(2)) != learner


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (lambda learner: learner, "init"),
        (lambda learner: learner.model, "init"),
        (lambda learner: metrics.top_k(2), "measure"),
        (lambda learner: learner.optimizer, "init"),
        (lambda learner: callbacks.early_stopping(), "handlers"),
    ],
)
def test_what_holds_local_functions_says_why_it_is_not_pickled(training, record, field):
    with pytest.raises(errors.NotSavable, match=f"cannot be pickled: its {field} is a function") as raised:
        pickle.dumps(record(training[0]))
    assert "cloudpickle" in str(raised.value) and " at 0x" not in str(raised.value)


def test_cloudpickle_takes_a_learner(training):
    learner, state, *_ = training
    again = cloudpickle.loads(cloudpickle.dumps(learner))
    batch = torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)
    ours, theirs = ft.train_step(learner)(state, batch), ft.train_step(again)(state, batch)
    assert ft.tree.equal(ours, theirs)


def test_what_is_importable_is_pickled():
    for metric in (metrics.accuracy, metrics.mean(losses.mse)):
        assert pickle.loads(pickle.dumps(metric)) == metric


def test_copies_of_frozen_parts_are_themselves(training):
    learner, *_ = training
    assert copy.deepcopy(learner) is learner and copy.copy(learner) is learner
    assert copy.deepcopy(learner.model) is learner.model
