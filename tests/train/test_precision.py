"""Mixed precision: PyTorch's autocast is the oracle; what lasts stays in float32, running statistics above all."""

import attrs
import pytest
import torch
from torch.nn import functional as F

import functrain as ft
from functrain import data, losses, nn, optim, tree
from functrain.errors import DtypeMismatch, InvalidArgument

BOTH = pytest.mark.parametrize("jit", [False, "aten"])
INPUTS = 3 * torch.randn(256, 8, generator=torch.Generator().manual_seed(0)) + 1
ROWS = data.ArrayDataset((INPUTS, (INPUTS.sum(1) > 8).long()))
TRAIN = data.loader(ROWS, data.sequential(32))


def module():
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, 3), torch.nn.LayerNorm(3)
    )


def layers():
    return nn.serial(nn.dense(16), nn.batch_norm(), nn.relu, nn.dense(3), nn.layer_norm())


def autocast_loop(theirs, dtype, epochs, lr):
    optimizer = torch.optim.SGD(theirs.parameters(), lr)
    for _ in range(epochs):
        for x, y in zip(INPUTS.split(32), ROWS.arrays[1].split(32), strict=True):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype):
                prediction = theirs(x)
            F.cross_entropy(prediction.float(), y).backward()
            optimizer.step()
    return dict(theirs.named_parameters()), dict(theirs.named_buffers())


@BOTH
@pytest.mark.parametrize("of", ["layers", "module"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_fit_is_pytorchs_loop_under_autocast(jit, of, precision):
    model = layers() if of == "layers" else nn.from_module(module())
    learner = ft.Learner(model, losses.cross_entropy, optim.sgd(0.1))
    params = {name: p.detach().clone() for name, p in module().named_parameters()}
    state = ft.init(learner, ft.random.key(0), ROWS[:2])
    state = attrs.evolve(state, params=nested(params, state.params))
    run = ft.fit(learner, state, train=TRAIN, epochs=5, jit=jit, precision=precision)
    theirs, buffers = autocast_loop(module(), getattr(torch, precision), 5, 0.1)
    eps = 2.0**-7 if precision == "bfloat16" else 2.0**-9
    for path, leaf in tree.leaves_with_path(run.state.params):
        assert leaf.dtype == torch.float32
        torch.testing.assert_close(leaf, theirs[path].detach(), rtol=eps, atol=eps)
    for path, leaf in tree.leaves_with_path(run.state.buffers):
        torch.testing.assert_close(leaf, buffers[path], rtol=eps, atol=eps)


def nested(flat, like):
    return tree.map_with_path(lambda path, leaf: flat[path].clone(), like)


@BOTH
@pytest.mark.parametrize("weighted", [False, True])
def test_running_statistics_are_those_of_float32(jit, weighted):
    rows = data.ArrayDataset((*ROWS.arrays, torch.ones(256))) if weighted else ROWS
    learner = ft.Learner(nn.serial(nn.dense(16), nn.batch_norm(momentum=0.01)), losses.cross_entropy, optim.sgd(0.0))
    state = ft.init(learner, ft.random.key(0), rows[:2])
    train = data.loader(rows, data.shuffled(32))
    short, whole = (
        ft.fit(learner, state, train=train, epochs=50, jit=jit, precision=precision).state.buffers
        for precision in ("bfloat16", None)
    )
    for path, leaf in tree.leaves_with_path(whole):
        other = dict(tree.leaves_with_path(short))[path]
        assert other.dtype == leaf.dtype
        scale = leaf.abs().max()
        # Inputs and weights are rounded by 2^-9 each, which a variance has twice. Statistics in bfloat16 would stand
        # still where each step moves them by less than they can show.
        assert float((other - leaf).abs().max() / scale) < 2.0**-7, path


@BOTH
def test_a_buffer_of_a_layer_of_ones_own_keeps_its_digits(jit):
    def apply(p, b, x, mode):
        return x + b["count"] * 0, {"count": b["count"] + 1e-4}

    counter = nn.stateful_layer("counter", lambda x: {}, lambda x: {"count": torch.ones(())}, apply)
    learner = ft.Learner(nn.serial(nn.dense(4), counter, nn.dense(3)), losses.cross_entropy, optim.sgd(0.1))
    state = ft.init(learner, ft.random.key(0), ROWS[:2])
    run = ft.fit(learner, state, train=TRAIN, epochs=10, jit=jit, precision="bfloat16")
    assert float(tree.leaves(run.state.buffers)[0]) == pytest.approx(1 + 80 * 1e-4, abs=1e-5)


def test_what_is_computed_again_is_computed_in_the_same_precision():
    part = nn.serial(nn.dense(16), nn.relu)
    again = attrs.evolve(part, apply=ft.remat(part.apply))
    gradients = []
    for model in (part, again):
        learner = ft.Learner(nn.serial(model, nn.dense(3)), losses.cross_entropy, optim.sgd(0.1))
        state = ft.init(learner, ft.random.key(0), ROWS[:2])
        gradients += [
            ft.fit(learner, state, train=TRAIN, epochs=1, jit=jit, precision="bfloat16").state.params
            for jit in (False, "aten")
        ]
    for other in gradients[1:]:
        assert not tree.differences(other, gradients[0], rtol=1e-5, atol=1e-6)


def test_another_word_or_float64_is_refused():
    learner = ft.Learner(nn.dense(3), losses.cross_entropy, optim.sgd(0.1))
    state = ft.init(learner, ft.random.key(0), (INPUTS[:2].double(), ROWS.arrays[1][:2]))
    with pytest.raises(InvalidArgument, match="precision must be 'bfloat16', 'float16' or None, got 'half'"):
        ft.fit(learner, state, train=TRAIN, epochs=1, precision="half")
    double = data.loader(data.ArrayDataset((INPUTS.double(), ROWS.arrays[1])), data.sequential(32))
    with pytest.raises(DtypeMismatch, match="computes a model of float32 in a short dtype, and parameters or inputs"):
        ft.fit(learner, state, train=double, epochs=1, precision="bfloat16")
