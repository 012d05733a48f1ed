"""Nothing pads unless asked; and what mixes rows is found before padding that was asked for trains anything."""

from contextlib import contextmanager

import attrs
import pytest
import torch
from training_problems import problem

import functrain as ft
from functrain import callbacks, data, initializers, losses, metrics, nn, optim
from functrain.errors import PaddingCounts


@pytest.mark.parametrize("jit", [False, "aten"])
def test_a_transform_sees_the_batch_as_it_is(jit):
    rows = data.ArrayDataset((torch.arange(10.0).reshape(10, 1), torch.zeros(10, 1)))
    learner = ft.Learner(nn.dense(1, weight=initializers.ones(), bias=False), losses.mae, optim.sgd(lr=0.0))
    state = ft.init(learner, ft.random.key(0), rows[:1])
    halved = data.loader(rows, data.sequential(4), transform=lambda key, b: data.Batch(b.input / 2, b.target))
    assert ft.evaluate(learner, state, halved, jit=jit)["loss"] == 2.25
    mixing = data.loader(
        rows, data.sequential(4), transform=lambda key, b: data.Batch(b.input - b.input.mean(), b.target)
    )
    expected = (4 * 1.0 + 4 * 1.0 + 2 * 0.5) / 10
    assert ft.evaluate(learner, state, mixing, jit=jit)["loss"] == pytest.approx(expected)


def count(step):
    rows = torch.full((), float(step.batch.input.shape[0]))
    return ft.log(step, "rows", rows)


def centre(x):
    return x - x.mean(0)


MIXING = {
    "layer": dict(model=nn.serial(centre, nn.dense(3))),
    "layer that counts": dict(model=nn.serial(nn.dense(3), lambda x: x * x.shape[0])),
    "loss": dict(loss=lambda p, t: losses.cross_entropy(centre(p), t)),
    "metric": dict(metrics={"mine": metrics.mean(lambda p, t: centre(p).sum(1))}),
    "transform": dict(transform=lambda key, b: attrs.evolve(b, input=centre(b.input))),
    "begin_step": dict(
        handler={"begin_step": lambda s: attrs.evolve(s, batch=attrs.evolve(s.batch, input=centre(s.batch.input)))}
    ),
    "after_pred": dict(handler={"after_pred": lambda s: attrs.evolve(s, prediction=centre(s.prediction))}),
    "after_loss": dict(handler={"after_loss": lambda s: attrs.evolve(s, loss=s.losses.square().mean())}),
    "log": dict(handler={"after_step": count}),
    "begin_batch": dict(
        handler={"begin_batch": lambda r: attrs.evolve(r, batch=attrs.evolve(r.batch, input=centre(r.batch.input)))}
    ),
    "after_step": dict(
        handler={"after_step": lambda s: attrs.evolve(s, state=scaled(s.state, s.batch.input.shape[0]))}
    ),
    "transform that drops the weights": dict(transform=lambda key, b: data.Batch(b.input / 2, b.target)),
}


def scaled(state, factor):
    return attrs.evolve(state, params=ft.tree.map(lambda p: p * (1 + 1 / factor), state.params))


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("case", MIXING)
@pytest.mark.parametrize("optimizer", [optim.sgd(0.1), optim.adam(0.1)], ids=["sgd", "adam"])
def test_code_that_mixes_rows_is_refused_where_padding_was_asked_for(optimizer, case, jit):
    options = dict(MIXING[case])
    handler, transform = options.pop("handler", {}), options.pop("transform", None)
    learner, state, train, _ = problem(
        n=49, model=options.pop("model", nn.dense(3)), optimizer=optimizer, remainder="pad"
    )
    learner = attrs.evolve(learner, **options)
    train = attrs.evolve(train, transform=transform)
    callbacks = [ft.Callback("mine", handler)]
    with pytest.raises(PaddingCounts, match=r"train: remainder='pad' fills .* a step changes"):
        ft.fit(learner, state, train=train, epochs=1, jit=jit, callbacks=callbacks)
    for remainder in ("keep", "drop"):
        kept = attrs.evolve(train, sampler=data.shuffled(8, remainder))
        ft.fit(learner, state, train=kept, epochs=1, jit=jit, callbacks=callbacks)


@pytest.mark.parametrize("jit", [False, "aten"])
def test_code_that_heeds_the_weights_is_padded(jit):
    learner, state, train, valid = problem(remainder="pad")  # batch norm, dropout, a schedule and momentum
    valid = attrs.evolve(valid, sampler=data.sequential(16, "pad"))
    noisy = attrs.evolve(
        train, transform=lambda key, b: attrs.evolve(b, input=b.input + ft.random.normal(key, b.input.shape))
    )
    for loader in (train, noisy):
        run = ft.fit(learner, state, train=loader, valid=valid, epochs=1, jit=jit, callbacks=[ft.callbacks.finite()])
        assert int(run.state.updates) == 7


def test_the_validation_is_probed_too():
    learner, state, train, valid = problem(model=nn.serial(nn.dense(3), centre), optimizer=optim.sgd(0.1))
    padded = attrs.evolve(valid, sampler=data.sequential(16, "pad"))
    with pytest.raises(PaddingCounts, match="noisy: remainder='pad'"):
        ft.fit(learner, state, train=train, valid={"noisy": padded}, epochs=1)
    with pytest.raises(PaddingCounts):
        ft.evaluate(learner, state, padded)


def test_code_that_counts_rows_is_found_in_a_large_batch_that_is_nearly_full():
    learner, state, train, _ = problem(n=4095, batch_size=2048, model=nn.dense(3), optimizer=optim.sgd(0.1))
    counting = ft.Callback("counts", {"after_step": count})
    padded = attrs.evolve(train, sampler=data.shuffled(2048, "pad"))
    with pytest.raises(PaddingCounts, match="a step changes what was logged"):
        ft.fit(learner, state, train=padded, epochs=1, callbacks=[counting])


# What heeds the weights is not refused, however its gradients round

OPTIMIZERS = {
    "adam": optim.adam(0.1),
    "adamw": optim.adamw(0.1),
    "momentum": optim.sgd(0.1, momentum=0.9),
    "accumulate": optim.accumulate(2, optim.adam(0.1)),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("n", "size", "precision"),
    [(49, 8, None), (50, 8, "bfloat16"), (13, 32, "bfloat16"), (31, 2, None), (50, 3, "bfloat16")],
)
def test_a_bias_before_a_batch_norm_is_padded_by_any_optimizer(n, size, precision, optimizer):
    model = nn.serial(nn.dense(6), nn.batch_norm(), nn.relu, nn.dense(3))
    learner, state, train, _ = problem(
        n=n, batch_size=size, model=model, optimizer=OPTIMIZERS[optimizer], remainder="pad"
    )
    average = ft.Callback("average", {"after_step": averaged}, memory=state.params)
    options = dict(callbacks=[average], jit=False, precision=precision)
    assert int(ft.fit(learner, state, train=train, epochs=2, **options).state.step) == 2 * len(train)


def averaged(step):
    mean = ft.tree.map(lambda old, new: 0.9 * old + 0.1 * new, step.memory["average"], step.state.params)
    return ft.train.remember(step, "average", mean)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_gradients_of_any_size_are_compared_by_their_size(scale):
    learner, state, train, _ = problem(n=50, optimizer=optim.adam(0.1))
    inputs = train.dataset.arrays[0]
    rows = data.ArrayDataset((inputs, scale * torch.randn(50, 3, generator=torch.Generator().manual_seed(0))))
    learner = attrs.evolve(learner, loss=losses.mse, metrics={})
    ft.fit(learner, state, train=data.loader(rows, data.shuffled(8, "pad")), epochs=1)


def ignored(batch):
    """Return the batch in which rows, or elements, of a label below 0 have no weight, and padding none as before."""
    counts = (batch.target >= 0).float()
    if batch.weight is not None:
        counts = counts * (batch.weight if batch.weight.dim() == counts.dim() else batch.weight[:, None])
    return attrs.evolve(batch, weight=counts)


IGNORING = {
    "dataset": lambda x, y: (data.ArrayDataset((x, y, (y >= 0).float())), None, []),
    "transform": lambda x, y: (data.ArrayDataset((x, y)), lambda key, batch: ignored(batch), []),
    **{
        event: lambda x, y, event=event: (
            data.ArrayDataset((x, y)),
            None,
            [ft.Callback("ignore", {event: lambda r: attrs.evolve(r, batch=ignored(r.batch))})],
        )
        for event in ("begin_batch", "begin_step")
    },
}


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("who", IGNORING)
@pytest.mark.parametrize("label", [-1, -100])
@pytest.mark.parametrize("of", ["rows", "elements"])
def test_ignored_labels_may_be_padded(of, label, who, jit):
    generator = torch.Generator().manual_seed(0)
    shape = (50,) if of == "rows" else (50, 7)
    inputs, targets = torch.randn(*shape, 4, generator=generator), torch.randint(3, shape, generator=generator)
    targets[torch.rand(shape, generator=generator) > 0.6] = label
    targets[:8] = label
    learner = ft.Learner(nn.dense(3), losses.cross_entropy, optim.adam(0.1))
    state = ft.init(learner, ft.random.key(0), (inputs[:1], targets[:1]))
    dataset, transform, callbacks = IGNORING[who](inputs, targets)
    runs = [
        ft.fit(
            learner,
            state,
            train=data.loader(dataset, data.sequential(8, remainder), transform=transform),
            epochs=2,
            jit=jit,
            callbacks=callbacks,
        )
        for remainder in ("pad", "keep")
    ]
    assert not ft.tree.differences(runs[0].state, runs[1].state, rtol=1e-4, atol=1e-5)
    assert runs[0].history["train/loss"] == pytest.approx(runs[1].history["train/loss"], rel=1e-5)


def with_memory(event, after_step, resource=None):
    """Return a callback whose memory is made when the run begins, of what the state is."""

    def begin(run, *live):
        return ft.train.remember(run, "mine", {"sum": torch.zeros(3), "seen": torch.tensor(0)})

    def handler(step):
        return ft.train.remember(step, "mine", after_step(step, step.memory["mine"]))

    return ft.Callback("mine", {event: begin, "after_step": handler}, phases=("train", "valid"), resource=resource)


def weighted_sum(step, memory):
    weight = step.batch.weight[:, None]
    return {"sum": memory["sum"] + (step.prediction.detach() * weight).sum(0), "seen": memory["seen"] + 1}


def counted(step, memory):
    return {"sum": memory["sum"] + step.prediction.shape[0], "seen": memory["seen"] + 1}


@pytest.mark.parametrize("event", ["begin_fit", "begin_epoch"])
def test_a_memory_that_is_made_when_the_run_begins_is_there_for_the_probe(event):
    learner, state, train, _ = problem(model=nn.dense(3), remainder="pad")
    run = ft.fit(learner, state, train=train, epochs=1, jit=False, callbacks=[with_memory(event, weighted_sum)])
    assert int(run.memory["mine"]["seen"]) == len(train)
    with pytest.raises(PaddingCounts, match="a step changes a memory of a callback"):
        ft.fit(learner, state, train=train, epochs=1, jit=False, callbacks=[with_memory(event, counted)])


def test_a_callback_that_cannot_be_tried_before_the_run_begins_is_left_out():
    learner, state, train, _ = problem(model=nn.dense(3), remainder="pad")
    opened = []

    @contextmanager
    def resource(run):
        opened.append(run)
        yield "live"

    callback = with_memory("begin_fit", weighted_sum, resource)
    failing = ft.Callback("failing", {"begin_fit": needs_a_plan, "after_step": lambda step: None})
    ft.fit(learner, state, train=train, epochs=1, jit=False, callbacks=[callback, failing])
    assert len(opened) == 1


def needs_a_plan(run):
    assert run.plan.lengths["train"] == 7


READY = {
    "ema": callbacks.ema(0.9),
    "swa": callbacks.swa(0.5),
    "record": callbacks.record(),
    "finite": callbacks.finite(),
    "early": callbacks.early_stopping("valid/loss", restore_best=True),
}


@pytest.mark.parametrize("name", READY)
def test_ready_callbacks_take_part_where_padding_is_asked_for(name):
    learner, state, train, valid = problem(model=nn.dense(3), remainder="pad")
    kept = attrs.evolve(train, sampler=data.shuffled(8))
    padded, plain = (
        ft.fit(learner, state, train=one, valid=valid, epochs=2, jit=False, callbacks=[READY[name]])
        for one in (train, kept)
    )
    assert not ft.tree.differences(padded.state, plain.state, rtol=1e-4, atol=1e-5)
    assert padded.history["valid/loss"] == pytest.approx(plain.history["valid/loss"], rel=1e-4)
