"""What does not fit is found before anything is trained, and named."""

import attrs
import pytest
import torch
from training_problems import Rows, eager, noting, problem

import functrain as ft
from functrain import data, metrics, nn, optim, tree
from functrain.errors import (
    DtypeMismatch,
    InvalidArgument,
    LabelOutOfRange,
    NotATensor,
    ShapeMismatch,
    TreeMismatch,
)


@pytest.fixture(scope="module")
def small():
    return problem()


def test_overfitting_one_batch():
    learner, state, train, _ = problem(model=nn.serial(nn.dense(32), nn.relu, nn.dense(3)), optimizer=optim.sgd(lr=0.5))
    for jit in (False, "aten"):
        after, logs = ft.overfit_batch(learner, state, train.dataset[:8], steps=60, jit=jit)
        assert float(logs["loss"][0]) > 0.5
        assert float(logs["loss"][-1]) < 0.05
        assert logs["loss"].shape == (60,)
        assert int(after.step) == 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(epochs=0), "epochs must be a whole number"),
        (dict(epochs=1.5), "epochs must be a whole number"),
        (dict(chunk=0), "chunk must be a whole number"),
        (dict(jit="fast"), "jit must be one of"),
        (dict(jit=True), "jit must be one of"),
        (dict(train=[1, 2]), "a batch must be an .input, target. pair"),
        (dict(train=3), "train must be a Loader, or an iterable of batches, got int"),
        (dict(train=[]), "train is empty"),
        (dict(epochs=None), "pass epochs or steps"),
        (dict(steps=3), "pass epochs or steps"),
        (dict(epochs=None, steps=0), "steps must be a whole number"),
        (dict(valid={"train": []}), "a validation must have a name other than"),
        (dict(compile_shapes="some"), "compile_shapes must be"),
        (dict(precision="int8"), "precision must be"),
        (dict(state={}), "state must be a TrainState"),
    ],
)
def test_bad_options_are_named(small, options, message):
    learner, state, train, _ = small
    arguments = {"state": state, "train": train, "epochs": 1, **options}
    with pytest.raises(InvalidArgument, match=message):
        ft.fit(learner, **arguments)


@pytest.mark.parametrize(
    ("compute", "got"),
    [
        (lambda acc: {"a": acc.total}, "dict"),
        (lambda acc: 0.5, "float"),
        (lambda acc: acc.total[None], r"float64\(1,\)"),
    ],
)
def test_a_metric_that_computes_no_scalar_is_named_before_training(small, compute, got):
    learner, state, train, _ = small
    metric = attrs.evolve(metrics.accuracy, compute=compute)
    notes = []
    with pytest.raises(NotATensor, match=rf"metrics\['odd'\] must compute a scalar tensor, got {got}; give"):
        eager(attrs.evolve(learner, metrics={"odd": metric}), state, train, callbacks=[noting(["begin_fit"], notes)])
    assert notes == []


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, y: (x, y + 7), LabelOutOfRange, "target: .* (labels from|label) "),
        (lambda x, y: (x.double(), y), DtypeMismatch, "in layer 0: dense.*float32, got float64"),
        (lambda x, y: (x[:3], y), ShapeMismatch, r"in layer 0: dense.*\(..., 4\)"),
    ],
)
def test_a_later_batch_that_does_not_fit_is_named_and_leaves_the_state_as_it_was(small, jit, change, error, message):
    learner, state, train, _ = small
    rows = [train.dataset[i] for i in range(50)]
    rows[16:24] = [change(*row) for row in rows[16:24]]
    kept = []
    keep = ft.Callback("keep", {"after_fit": lambda run: kept.append(run.state)})
    with pytest.raises(error, match=message) as caught:
        loader = data.loader(Rows(rows), data.sequential(8))
        ft.fit(learner, state, train=loader, epochs=1, jit=jit, chunk=1, callbacks=[keep])
    assert "raised in epoch 1 of 1, phase 'train', batch 2; error.run is the run up to there" in caught.value.__notes__
    assert int(kept[0].step) == 2 and torch.isfinite(tree.global_norm(kept[0].params))


@pytest.mark.parametrize("what", ["the loss", "metric 'error'"])
def test_values_that_are_broadcast_over_the_batch_are_an_error(what):
    rows = data.ArrayDataset((torch.ones(8, 3), torch.zeros(8)))

    def squared(prediction, target):
        return (prediction - target) ** 2

    def flat(prediction, target):
        return squared(prediction.squeeze(-1), target)

    loss, error = (squared, flat) if what == "the loss" else (flat, squared)
    learner = ft.Learner(nn.dense(1), loss, optim.sgd(lr=0.1), {"error": metrics.mean(error)})
    state, train = ft.init(learner, ft.random.key(0), rows[:1]), data.loader(rows, data.sequential(4))
    message = rf"{what} must measure each example by itself: .*\(4, 4\), of 3 \(3, 3\).*\(4, 1\) and \(4,\); reshape"
    with pytest.raises(ShapeMismatch, match=message):
        eager(learner, state, train)
    learner = attrs.evolve(learner, loss=flat, metrics={"error": metrics.mean(flat)})
    assert len(eager(learner, state, train).history) == 2


def norm_of(params):
    """Return a state that cannot be had without the values of the parameters."""
    return torch.tensor(float(tree.global_norm(params)), dtype=torch.float64)


@pytest.mark.parametrize(
    "optimizer",
    [optim.adam(1e-3), optim.chain(optim.Transform(norm_of, lambda u, state, *_: (u, state)), optim.sgd(0.1))],
    ids=["adam", "looks at values"],
)
def test_the_state_of_another_optimizer_is_an_error(small, optimizer):
    learner, state, train, _ = small
    other = attrs.evolve(learner, optimizer=optimizer)
    with pytest.raises(TreeMismatch, match=r"state.opt_state must have .*learner.optimizer.init\(state.params\)"):
        eager(other, state, train)
    fresh = attrs.evolve(state, opt_state=optimizer.init(state.params))
    assert len(eager(other, fresh, train).history) == 2


def test_data_that_does_not_fit_is_found_before_anything_is_trained(small):
    learner, state, train, _ = small
    inputs, targets = train.dataset.arrays
    bad_labels = targets.clone()
    bad_labels[-1] = 7
    notes = []
    callbacks = [noting(["begin_fit"], notes)]
    with pytest.raises(LabelOutOfRange) as caught:
        eager(
            learner,
            state,
            data.loader(data.ArrayDataset((inputs, bad_labels)), data.sequential(4)),
            callbacks=callbacks,
        )
    assert "smallest and largest labels or indices of train" in caught.value.__notes__[0]
    with pytest.raises(ShapeMismatch) as caught:
        valid = data.loader(data.ArrayDataset((inputs[:, :3], targets)), data.sequential(4))
        eager(learner, state, train, valid, callbacks=callbacks)
    assert "the first batch of valid" in caught.value.__notes__[0]
    assert notes == []
