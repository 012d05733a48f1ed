"""Epochs of few batches, down to one, whatever the size of a chunk: the steps are those of plain Python."""

import pytest
import torch

import functrain as ft
from functrain import data, losses, nn, optim, tree

INPUTS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
ROWS = data.ArrayDataset((INPUTS, INPUTS.sum(1, keepdim=True)))
LEARNER = ft.Learner(nn.dense(1), losses.mse, optim.sgd(0.1))
STATE = ft.init(LEARNER, ft.random.key(0), ROWS[:2])


@pytest.mark.parametrize("chunk", [1, 2, 8, 1000])
@pytest.mark.parametrize("remainder", ["keep", "drop", "pad"])
@pytest.mark.parametrize("size", [4, 5, 7, 11, 12, 13, 64])
def test_an_epoch_of_any_number_of_batches_is_that_of_plain_python(size, remainder, chunk):
    if remainder == "drop" and size > len(ROWS):
        pytest.skip("there is no batch")
    train = data.loader(ROWS, data.sequential(size, remainder))
    plain, fast = (ft.fit(LEARNER, STATE, train=train, epochs=2, jit=jit, chunk=chunk) for jit in (False, "aten"))
    assert int(fast.state.step) == int(plain.state.step) == 2 * len(train)
    assert not tree.differences(plain.state.params, fast.state.params, rtol=1e-5, atol=1e-6)
    assert fast.history["train/loss"] == pytest.approx(plain.history["train/loss"], rel=1e-5)
    values = [ft.evaluate(LEARNER, STATE, train, jit=jit, chunk=chunk)["loss"] for jit in (False, "aten")]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
