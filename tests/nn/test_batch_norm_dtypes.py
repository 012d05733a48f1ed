"""Batch norm in every dtype against PyTorch in float64; and what leaves no variance to estimate."""

import pytest
import torch

import functrain as ft
from functrain import nn, random
from functrain.errors import ShapeMismatch

KEY = random.key(0)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("momentum", [None, 0.1, 0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_running_statistics_are_pytorchs_in_float64(dtype, momentum, weighted):
    ours, theirs = nn.batch_norm(momentum), torch.nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64)
    x = draw(8, 3).to(dtype)
    params, buffers = ours.init(KEY, x)
    for step in range(5):
        x = (draw(8, 3, seed=step) * (step + 1) + step).to(dtype)
        mode = nn.training(KEY, weight=torch.ones(8) if weighted else None)
        y, buffers = ours.apply(params, buffers, x, mode)
        exact = theirs(x.double()).detach()
        eps = torch.finfo(dtype).eps
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), exact, rtol=16 * eps, atol=16 * eps)
        for name in ("running_mean", "running_var"):
            assert buffers[name].dtype == dtype
            torch.testing.assert_close(
                buffers[name].double(), getattr(theirs, name), rtol=16 * eps, atol=16 * eps * (step + 1)
            )
    assert int(buffers["num_batches_tracked"]) == 5


@pytest.mark.parametrize("weight", [None, torch.ones(1)])
@pytest.mark.parametrize("jit", [False, True])
def test_one_row_is_refused_in_training_eager_and_compiled_alike(jit, weight):
    model = nn.serial(nn.dense(3), nn.batch_norm())
    params, buffers = model.init(KEY, torch.zeros(2, 4))

    def f(params, buffers, x):
        return model.apply(params, buffers, x, nn.training(KEY, weight=weight))

    run = ft.jit(f) if jit else f
    message = r"in layer 1: batch_norm: training needs more than one value per channel .*got shape \(1, 3\); let the"
    with pytest.raises(ShapeMismatch, match=message):
        run(params, buffers, torch.zeros(1, 4))
    y, _ = model.apply(params, buffers, torch.zeros(1, 4))
    assert y.shape == (1, 3)


@pytest.mark.parametrize("jit", [False, True])
def test_one_row_of_several_values_a_channel_is_enough(jit):
    layer, x = nn.batch_norm(), torch.arange(6.0).reshape(1, 2, 3)
    params, buffers = layer.init(KEY, x)

    def f(x):
        return layer.apply(params, buffers, x, nn.training(KEY))[0]

    y = (ft.jit(f) if jit else f)(x)
    torch.testing.assert_close(y, torch.nn.BatchNorm1d(2)(x).detach())
