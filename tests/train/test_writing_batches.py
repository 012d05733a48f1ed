"""What writes to a batch in place writes to nobody's data: the numbers of a pure one, or an error in words."""

import collections
import re

import pytest
import torch

import functrain as ft
from functrain import data, losses, metrics, nn, optim, random, tree
from functrain.errors import SideEffect

X, Y = torch.linspace(1.0, 4.0, 8)[:, None], torch.full((8, 1), 5.0)


def halve(key, batch):
    batch.input.mul_(0.5)
    return batch


def doubled(step):
    step.batch.input.mul_(2)


def writing_loss(prediction, target):
    return losses.mse(prediction, target.clamp_(-1, 1))


def writing_metric(prediction, target):
    return target.sub_(prediction).abs().squeeze(1)


def learner(loss=losses.mse, metric=None):
    made = {} if metric is None else {"metric": metrics.mean(metric)}
    return ft.Learner(nn.dense(1), loss, optim.sgd(0.0), made)


@pytest.fixture
def mine():
    """Data of a user's own, which must be as it was in the end."""
    x, y = X.clone(), Y.clone()
    yield data.ArrayDataset((x, y))
    assert x.equal(X) and y.equal(Y)


def begun(one):
    return ft.init(one, ft.random.key(0), (X[:1], Y[:1]))


SAMPLERS = [data.sequential(4), data.sequential(3), data.sequential(3, remainder="pad"), data.shuffled(4)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: f"{sampler.order.__name__}-{sampler.remainder}")
def test_a_transform_that_writes_gives_what_one_that_computes_gives(mine, sampler):
    pure = data.loader(data.ArrayDataset((X * 0.5, Y)), sampler)
    one = learner()
    state, writing = begun(one), data.loader(mine, sampler, transform=halve)
    expected = ft.evaluate(one, state, pure)["loss"]
    assert [ft.evaluate(one, state, writing)["loss"] for _ in range(2)] == pytest.approx([expected] * 2)
    torch.testing.assert_close(ft.predict(one, state, writing), ft.predict(one, state, pure))
    for jit in ("aten", False):
        history = ft.fit(one, state, train=writing, valid=writing, epochs=2, jit=jit).history
        assert history["valid/loss"] == pytest.approx([expected] * 2)


WAYS = {
    "handler": (learner(), [ft.Callback("double", {"begin_step": doubled})], (2 * X, Y), losses.mse, None),
    "loss": (learner(writing_loss), [], (X, Y.clamp(-1, 1)), losses.mse, None),
    "metric": (learner(metric=writing_metric), [], (X, Y), losses.mse, lambda p, t: (t - p).abs().squeeze(1)),
}


@pytest.mark.parametrize("jit", ["aten", False])
@pytest.mark.parametrize("sampler", SAMPLERS[:1] + SAMPLERS[3:], ids=["in order", "shuffled"])
@pytest.mark.parametrize("way", WAYS)
def test_a_step_that_writes_leaves_the_dataset_alone(mine, way, sampler, jit):
    one, callbacks, pure, loss, metric = WAYS[way]
    other = learner(loss, metric)
    key = "train/metric" if metric else "train/loss"
    expected = ft.fit(other, begun(other), train=data.loader(data.ArrayDataset(pure), sampler), epochs=2).history[key]
    run = ft.fit(one, begun(one), train=data.loader(mine, sampler), epochs=2, jit=jit, callbacks=callbacks)
    assert run.history[key] == pytest.approx(expected)


@pytest.mark.parametrize("jit", ["aten", False])
@pytest.mark.parametrize("way", WAYS)
def test_a_step_that_writes_to_batches_of_the_users_own_is_refused(way, jit):
    one, callbacks, *_ = WAYS[way]
    batches = [(X[:4].clone(), Y[:4].clone())] * 2
    with pytest.raises(SideEffect) as caught:
        ft.fit(one, begun(one), train=batches, epochs=1, jit=jit, callbacks=callbacks)
    assert jit or "a step wrote in place to its batch of train" in str(caught.value)


@pytest.mark.parametrize("jit", ["aten", False])
def test_a_step_of_ones_own_that_writes_leaves_the_dataset_alone(mine, jit):
    def step(total, batch):
        batch.input.mul_(2)
        return total + batch.input.sum(), {"sum": batch.input.sum()}

    loader = data.loader(mine, data.sequential(4))
    run = ft.loop(step, torch.zeros(()), key=ft.random.key(0), train=loader, epochs=2, jit=jit)
    assert float(run.state) == pytest.approx(float(4 * X.sum()))


Named = collections.namedtuple("Named", "x y")
KINDS = {
    "dict": lambda x, y: {"x": x, "y": y},
    "ordered": lambda x, y: collections.OrderedDict(x=x, y=y),
    "with a default": lambda x, y: collections.defaultdict(list, x=x, y=y),
    "named": Named,
    "nested": lambda x, y: (y, [{"inner": Named(x, y)}]),
    "record": tree.node(type("Record", (), {"__annotations__": {"x": torch.Tensor, "y": torch.Tensor}})),
}


@pytest.mark.parametrize("jit", ["aten", False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_writes_to_a_batch_of_any_kind_is_refused(kind, jit):
    def step(state, batch):
        return state + tree.leaves(batch)[0].add_(1).sum(), {}

    batch = KINDS[kind](torch.ones(3), torch.zeros(3))
    with pytest.raises(SideEffect, match="in place"):
        ft.loop(step, torch.tensor(0.0), train=[batch], epochs=1, jit=jit, key=random.key(0))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("way", ["loss", "metric"])
def test_a_step_by_hand_that_writes_to_its_batch_is_refused(way, compiled):
    one = WAYS[way][0]
    for step in (ft.train_step(one), ft.eval_step(one)):
        step = ft.jit(step) if compiled else step
        for batch in ((X.clone(), Y.clone()), data.Batch(X.clone(), Y.clone())):
            with pytest.raises(SideEffect) as caught:
                step(begun(one), batch)
            assert compiled or re.search(r"a step wrote in place to its batch \((1|target)\)", str(caught.value))


def test_a_step_by_hand_may_be_transformed():
    one = learner()
    step = ft.train_step(one)
    states, _ = ft.vmap(step, in_dims=(None, 0))(begun(one), (X.reshape(2, 4, 1), Y.reshape(2, 4, 1)))
    assert states.params["weight"].shape == (2, 1, 1)


@pytest.mark.parametrize("order", [data.sequential, data.shuffled])
def test_weights_that_a_padding_sampler_makes_are_each_batchs_own(mine, order):
    def lighter(step):
        step.batch.weight.mul_(0.5)
        return ft.log(step, "mass", step.batch.weight.sum())

    train = data.loader(mine, order(3, remainder="pad"))
    one = learner()
    lighten = ft.Callback("lighten", {"begin_step": lighter})
    run = ft.fit(one, begun(one), train=train, epochs=2, jit=False, callbacks=[lighten])
    assert run.history["train/mass"] == [pytest.approx((2 * 1.5 * 1.5 + 1.0) / (2 * 1.5 + 1.0))] * 2
    with pytest.raises(SideEffect, match="weight is changed in place"):
        ft.fit(one, begun(one), train=train, epochs=2, callbacks=[lighten])
