"""What a loop carries and gives back has no autograd history, wherever one comes in: the numbers are those without."""

import warnings
import weakref

import attrs
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import functrain as ft
from functrain import data, losses, metrics, nn, optim, tree

X = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()
WEIGHT = 0.3 * torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
WAYS = pytest.mark.parametrize(("jit", "chunk"), [(False, 1), (False, 8), ("aten", 1), ("aten", 8)])


def model():
    return nn.serial(nn.dense(4), nn.batch_norm(), nn.dense(2))


def rows(inputs=X):
    return [(inputs[k : k + 5], Y[k : k + 5]) for k in range(0, 20, 5)]


def in_arrays():
    return data.loader(data.ArrayDataset((X, Y)), data.sequential(5))


def distilled(weight):
    def loss(prediction, target):
        return losses.cross_entropy(prediction, target) + (prediction @ weight[:2]).square().mean(1)

    return {"loss": loss}


def parts(weight):
    def loss(prediction, target):
        return {"loss": losses.cross_entropy(prediction, target), "near": (prediction @ weight[:2]).square().mean(1)}

    return {"loss": loss}


def measured(weight):
    return {"metrics": {"near": metrics.mean(lambda p, t: (p @ weight[:2]).square().mean(1))}}


def encoded(weight):
    return {"train": rows(X @ weight)}


def as_variables(weight):
    return {"train": rows(X.clone().requires_grad_(weight.requires_grad))}


def transformed(weight):
    def encode(key, batch):
        return attrs.evolve(batch, input=batch.input @ weight)

    return {"train": attrs.evolve(in_arrays(), transform=encode)}


def collated(weight):
    examples = [(x, y) for x, y in zip(X @ weight, Y, strict=True)]
    return {"train": data.loader(examples, data.sequential(5))}


def moving(weight):
    def follow(step):
        seen = (step.batch.input @ weight).mean()
        return ft.train.remember(ft.log(step, "seen", seen), "follow", 0.5 * step.memory["follow"] + seen)

    return {"callbacks": [ft.Callback("follow", {"after_step": follow}, 0, torch.tensor(0.0), ("train", "valid"))]}


def by_the_host(weight):
    def follow(run):
        return ft.train.remember(run, "follow", 0.5 * run.memory["follow"] + weight.sum() * run.step)

    def show(run):
        return attrs.evolve(run, logs={**run.logs, "shown": weight.sum()})

    return {"callbacks": [ft.Callback("follow", {"after_batch": follow, "after_epoch": show}, 0, torch.tensor(0.0))]}


def replaced(weight):
    def encode(run):
        return attrs.evolve(run, batch=attrs.evolve(run.batch, input=run.batch.input @ weight))

    return {"callbacks": [ft.Callback("encode", {"begin_batch": encode})]}


PLACES = [distilled, parts, measured, encoded, as_variables, transformed, collated, moving, by_the_host, replaced]


def fitted(place, weight, jit, chunk):
    options = {"train": in_arrays(), "loss": losses.cross_entropy, "metrics": {}, "callbacks": [], **place(weight)}
    learner = ft.Learner(model(), options["loss"], optim.sgd(0.1, momentum=0.9), options["metrics"])
    state = ft.init(learner, ft.random.key(0), (X[:2], Y[:2]))
    train, taking_part = options["train"], [*options["callbacks"], ft.callbacks.record()]
    run = ft.fit(learner, state, train=train, valid=train, epochs=2, callbacks=taking_part, jit=jit, chunk=chunk)
    values = ft.evaluate(learner, run.state, train, jit=jit, chunk=chunk)
    overfitted = ft.overfit_batch(learner, state, (X[:5], Y[:5]), steps=3, jit=jit)
    return run.state, dict(run.memory), run.history.rows, values, overfitted, vars(run.point)


@WAYS
@pytest.mark.parametrize("place", PLACES)
def test_a_fit_keeps_none_and_is_the_fit_without_one(place, jit, chunk):
    results = []
    for requires_grad in (True, False):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            results.append(fitted(place, WEIGHT.clone().requires_grad_(requires_grad), jit, chunk))
    for path, leaf in tree.leaves_with_path(results[0]):
        assert not (isinstance(leaf, Tensor) and leaf.requires_grad), path
    shown = [tree.map(lambda leaf: leaf if isinstance(leaf, Tensor) else None, one[:2]) for one in results]
    assert tree.differences(*shown, rtol=1e-5, atol=1e-6) == []


@WAYS
def test_a_loop_keeps_none_and_a_step_may_ask_for_the_gradient_by_its_batch(jit, chunk):
    weight, worst = WEIGHT.clone().requires_grad_(), metrics.mean(lambda p, t: p)

    def step(carry, batch):
        inputs, _ = batch
        (slope,) = torch.autograd.grad((inputs @ weight).square().sum(), inputs)
        seen = worst.add(worst.init(), (inputs @ weight).mean(1))
        return carry + (inputs @ weight).sum(), {"slope": slope.sum(), "seen": ft.Measured(worst, seen)}

    batches = rows(X.clone().requires_grad_())
    options = dict(key=ft.random.key(0), epochs=2, jit=jit, chunk=chunk, callbacks=[ft.callbacks.record()])
    run = ft.loop(step, torch.tensor(0.0), train=batches, **options)
    assert not any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree.leaves(vars(run)))
    torch.testing.assert_close(run.state, 2 * (X @ WEIGHT).sum())
    assert run.history["train/slope"] == pytest.approx([float(2 * (X @ WEIGHT @ WEIGHT.T).sum() / 4)] * 2, rel=1e-5)
    assert run.history["train/seen"] == pytest.approx([float((X @ WEIGHT).mean())] * 2, abs=1e-6)


class Held:
    """A tensor that is held for a backward pass."""

    def __init__(self, tensor):
        self.tensor = tensor


def test_a_validation_lets_go_of_what_its_batches_were_computed_by():
    teacher, alive, counts = torch.nn.Linear(4, 4), weakref.WeakSet(), []

    def hold(tensor):
        held = Held(tensor)
        alive.add(held)
        return held

    def loss(prediction, target):
        counts.append(len(alive))
        with torch.autograd.graph.saved_tensors_hooks(hold, lambda held: held.tensor):
            hidden = teacher(torch.ones(len(target), 4)).square()
        return F.cross_entropy(prediction, target, reduction="none") + hidden.mean(1)

    learner = ft.Learner(model(), loss, optim.sgd(0.1))
    state = ft.init(learner, ft.random.key(0), (X[:2], Y[:2]))
    ft.evaluate(learner, state, [rows()[0]] * 40, jit=False)
    assert len(counts) >= 40
    assert max(counts) <= 2
