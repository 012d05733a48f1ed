"""An input may have parts that have no rows, at any place: an option that is None, a number, a word, a scalar."""

import pytest
import torch

import functrain as ft
from functrain import data, losses, metrics, nn, optim, tree

X = torch.randn(22, 3, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()
PARTS = {"None": None, "number": 3, "word": "word", "scalar": torch.tensor(3.0)}
DENSE = nn.dense(2)


def model(name):
    """A dense layer of one part of the input."""
    return nn.Model(
        lambda key, x: DENSE.init(key, x[name]), lambda params, buffers, x, *mode: DENSE.apply(params, buffers, x[name])
    )


OPTIMIZERS = {"sgd": optim.sgd(0.1), "each example": optim.chain(optim.clip_per_example(0.5), optim.sgd(0.1))}


def batches(put, weighted):
    cuts = [slice(k, k + 5) for k in range(0, 22, 5)]
    return [(put(X[cut]), Y[cut], *([X[cut, 0].abs()] if weighted else [])) for cut in cuts]


def everything(one, name, put, optimizer, weighted, jit):
    learner = ft.Learner(one, losses.cross_entropy, optimizer, {"accuracy": metrics.accuracy})
    train = batches(put, weighted)
    state = ft.init(learner, ft.random.key(0), train[0])
    look = ft.Callback("look", {"after_batch": lambda run: None})
    run = ft.fit(learner, state, train=train, valid=train, epochs=2, callbacks=[ft.callbacks.record(), look], jit=jit)
    values = ft.evaluate(learner, run.state, train, jit=jit)
    return run.state, dict(run.memory), list(run.history), values, ft.predict(learner, run.state, train, jit=jit)


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("part", PARTS)
def test_a_fit_is_that_without_them(part, first, optimizer, weighted, jit):
    def put(x):
        pairs = [("option", PARTS[part]), ("x", x)]
        return dict(pairs if first else pairs[::-1])

    plain = everything(DENSE, "x", lambda x: x, OPTIMIZERS[optimizer], weighted, jit)
    assert tree.equal(everything(model("x"), "x", put, OPTIMIZERS[optimizer], weighted, jit), plain)


def test_a_dataset_may_have_none_first_too_and_be_padded():
    learner = ft.Learner(model("x"), losses.cross_entropy, optim.sgd(0.1))
    arrays = {"option": None, "x": X}, Y
    train = data.loader(data.ArrayDataset(arrays), data.sequential(5, remainder="pad"))
    state = ft.init(learner, ft.random.key(0), batches(lambda x: {"x": x}, False)[0])
    kept = data.loader(data.ArrayDataset(arrays), data.sequential(5))
    padded, unpadded = (ft.fit(learner, state, train=one, epochs=2) for one in (train, kept))
    assert tree.differences(padded.state.params, unpadded.state.params, atol=1e-6) == []
