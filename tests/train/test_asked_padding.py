"""Nothing pads unless asked; and what mixes rows is found before padding that was asked for trains anything."""

import attrs
import pytest
import torch
from training_problems import problem

import functrain as ft
from functrain import data, initializers, losses, metrics, nn, optim
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
}


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("case", MIXING)
def test_code_that_mixes_rows_is_refused_where_padding_was_asked_for(case, jit):
    options = dict(MIXING[case])
    handler, transform = options.pop("handler", {}), options.pop("transform", None)
    learner, state, train, _ = problem(
        model=options.pop("model", nn.dense(3)), optimizer=optim.sgd(0.1), remainder="pad"
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
