"""Batches of sparse tensors train as their dense ones do, in plain Python; compiled, they are refused in words."""

import pytest
import torch

import functrain as ft
from functrain import data, losses, metrics, nn, optim, tree
from functrain.errors import NotTraceable, ShapeMismatch

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(22, 4, generator=GENERATOR) * (torch.rand(22, 4, generator=GENERATOR) > 0.5)
Y = (X.sum(1) > 0).long()
WEIGHT = torch.rand(22, generator=GENERATOR) * (torch.arange(22) % 4 > 0)
WEIGHT[10:15] = 0
DENSE = nn.dense(2)


def apply(params, buffers, x, *mode):
    product = torch.sparse.mm(x, params["weight"].T) if x.is_sparse else x @ params["weight"].T
    return product + params["bias"], buffers


LEARNER = ft.Learner(
    nn.Model(lambda key, x: DENSE.init(key, torch.zeros(1, 4)), apply),
    losses.cross_entropy,
    optim.sgd(0.1),
    {"accuracy": metrics.accuracy},
)
STATE = ft.init(LEARNER, ft.random.key(0), (X[:1], Y[:1]))


@pytest.mark.parametrize("order", [data.sequential, data.shuffled])
@pytest.mark.parametrize("remainder", ["keep", "pad", "drop"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("source", ["arrays", "list"])
def test_a_fit_over_sparse_batches_is_that_over_dense_ones(source, weighted, remainder, order):
    runs = []
    for inputs in (X.to_sparse(), X):
        rows = data.ArrayDataset((inputs, Y, *([WEIGHT] if weighted else [])))
        train, valid = data.loader(rows, order(5, remainder)), data.loader(rows, data.sequential(4, remainder))
        if source == "list":
            train, valid = (list(data.batches(one, ft.random.key(3))) for one in (train, valid))
        run = ft.fit(LEARNER, STATE, train=train, valid=valid, epochs=2, jit=False)
        runs.append(
            (
                run.state,
                [{name: torch.tensor(value) for name, value in row.items()} for row in run.history],
                ft.predict(LEARNER, run.state, valid, jit=False),
            )
        )
    assert tree.differences(runs[0], runs[1], rtol=1e-5, atol=1e-6) == []


def test_a_sparse_batch_without_weight_may_hold_anything():
    bad = torch.full((3, 4), torch.nan).to_sparse()
    batches = [(X[:3].to_sparse(), Y[:3], torch.ones(3)), (bad, Y[:3], torch.zeros(3))]
    run = ft.fit(LEARNER, STATE, train=batches, epochs=1, jit=False)
    alone = ft.fit(LEARNER, STATE, train=batches[:1], epochs=1, jit=False)
    assert tree.equal(run.state.params, alone.state.params) and run.history == alone.history


def test_rows_of_a_sparse_dataset():
    rows = data.ArrayDataset((X.to_sparse(), Y))
    for index in (slice(2, 9), slice(None, None, 3), slice(-4, None), slice(None, None, -1), [1, 0]):
        one, other = rows[index], data.ArrayDataset((X, Y))[index]
        assert torch.equal(one[0].to_dense(), other[0]) and torch.equal(one[1], other[1])


def test_what_cannot_be_is_refused_in_words():
    sparse = X.to_sparse()
    with pytest.raises(NotTraceable, match=r"jit takes dense tensors, got layout sparse_coo; convert it with to_dense"):
        ft.fit(LEARNER, STATE, train=[(sparse, Y)], epochs=1)
    learner = ft.Learner(DENSE, lambda p, t: (p - t.to_dense()[:, :2]).square(), optim.sgd(0.1))
    with pytest.raises(ShapeMismatch, match="a part of the target is sparse, where not every element has one"):
        ft.fit(learner, STATE, train=[(X, sparse, torch.ones(22, 4))], epochs=1, jit=False)
