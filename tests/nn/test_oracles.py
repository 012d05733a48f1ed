"""Every layer against torch.nn: one table of pairs, one test for each thing that must hold of all."""

import copy

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from functrain import nn, random, tree
from functrain.engine import value_and_grad, vmap

T = torch.nn
KEY = random.key(3)


def _floats(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


TABLE = {
    "dense": (nn.dense(5), lambda: T.Linear(7, 5), (6, 7)),
    "dense of one example": (nn.dense(5), lambda: T.Linear(7, 5), (7,)),
    "dense of many axes": (nn.dense(5), lambda: T.Linear(7, 5), (2, 3, 7)),
    "dense without bias": (nn.dense(5, bias=False), lambda: T.Linear(7, 5, bias=False), (6, 7)),
    "conv": (nn.conv(4, 3), lambda: T.Conv2d(3, 4, 3), (2, 3, 9, 6)),
    "conv strided": (
        nn.conv(4, (3, 2), stride=2, padding=(1, 2)),
        lambda: T.Conv2d(3, 4, (3, 2), 2, (1, 2)),
        (2, 3, 9, 6),
    ),
    "conv same": (nn.conv(4, 3, padding="same"), lambda: T.Conv2d(3, 4, 3, padding="same"), (2, 3, 5, 8)),
    "conv valid": (nn.conv(4, 3, padding="valid"), lambda: T.Conv2d(3, 4, 3, padding="valid"), (2, 3, 5, 8)),
    "conv in groups": (
        nn.conv(6, 3, groups=3, dilation=2),
        lambda: T.Conv2d(3, 6, 3, groups=3, dilation=2),
        (2, 3, 9, 6),
    ),
    "conv without bias": (nn.conv(4, 3, bias=False), lambda: T.Conv2d(3, 4, 3, bias=False), (2, 3, 9, 6)),
    "conv 1d": (nn.conv(4, 3, dims=1), lambda: T.Conv1d(3, 4, 3), (2, 3, 9)),
    "conv 3d": (nn.conv(4, 2, dims=3), lambda: T.Conv3d(3, 4, 2), (2, 3, 4, 5, 3)),
    "max_pool": (nn.max_pool(2), lambda: T.MaxPool2d(2), (2, 3, 9, 6)),
    "max_pool overlapping": (nn.max_pool(3, 2, 1), lambda: T.MaxPool2d(3, 2, 1), (2, 3, 9, 6)),
    "max_pool 1d": (nn.max_pool(2, dims=1), lambda: T.MaxPool1d(2), (2, 3, 9)),
    "max_pool 3d": (nn.max_pool(2, dims=3), lambda: T.MaxPool3d(2), (2, 3, 4, 4, 4)),
    "avg_pool": (nn.avg_pool((2, 3), 1, 1), lambda: T.AvgPool2d((2, 3), 1, 1), (2, 3, 9, 6)),
    "avg_pool 1d": (nn.avg_pool(2, dims=1), lambda: T.AvgPool1d(2), (2, 3, 9)),
    "avg_pool 3d": (nn.avg_pool(2, dims=3), lambda: T.AvgPool3d(2), (2, 3, 4, 4, 4)),
    "global_avg_pool": (
        nn.serial(nn.global_avg_pool),
        lambda: T.Sequential(T.AdaptiveAvgPool2d(1), T.Flatten()),
        (2, 3, 9, 6),
    ),
    "batch_norm": (nn.batch_norm(), lambda: T.BatchNorm1d(5), (8, 5)),
    "batch_norm 1d": (nn.batch_norm(0.3, 1e-3), lambda: T.BatchNorm1d(5, 1e-3, 0.3), (4, 5, 3)),
    "batch_norm 2d": (nn.batch_norm(), lambda: T.BatchNorm2d(3), (4, 3, 5, 6)),
    "batch_norm 3d": (nn.batch_norm(), lambda: T.BatchNorm3d(3), (2, 3, 2, 3, 2)),
    "batch_norm plain": (nn.batch_norm(affine=False), lambda: T.BatchNorm2d(3, affine=False), (4, 3, 5, 6)),
    "batch_norm averaging": (nn.batch_norm(momentum=None), lambda: T.BatchNorm2d(3, momentum=None), (4, 3, 5, 6)),
    "layer_norm": (nn.layer_norm(), lambda: T.LayerNorm(5), (4, 3, 5)),
    "layer_norm of two axes": (nn.layer_norm(2, eps=1e-3), lambda: T.LayerNorm((3, 5), 1e-3), (4, 3, 5)),
    "layer_norm without bias": (nn.layer_norm(bias=False), lambda: T.LayerNorm(5, bias=False), (4, 5)),
    "layer_norm plain": (nn.layer_norm(affine=False), lambda: T.LayerNorm(5, elementwise_affine=False), (4, 5)),
    "flatten": (nn.serial(nn.flatten), lambda: T.Flatten(), (4, 3, 5)),
    "identity": (nn.serial(nn.identity), lambda: T.Identity(), (4, 3)),
    "a net": (
        nn.serial(nn.conv(4, 3), nn.batch_norm(), nn.relu, nn.max_pool(2), nn.flatten, nn.dense(5)),
        lambda: T.Sequential(
            T.Conv2d(3, 4, 3), T.BatchNorm2d(4), T.ReLU(), T.MaxPool2d(2), T.Flatten(), T.Linear(24, 5)
        ),
        (4, 3, 9, 6),
    ),
}

ACTIVATIONS = {
    "relu": T.ReLU(),
    "leaky_relu": T.LeakyReLU(),
    "elu": T.ELU(),
    "selu": T.SELU(),
    "gelu": T.GELU(),
    "gelu_tanh": T.GELU("tanh"),
    "silu": T.SiLU(),
    "mish": T.Mish(),
    "softplus": T.Softplus(),
    "sigmoid": T.Sigmoid(),
    "tanh": T.Tanh(),
    "hard_sigmoid": T.Hardsigmoid(),
    "hard_swish": T.Hardswish(),
    "softmax": T.Softmax(-1),
}


@pytest.fixture(params=TABLE, scope="module")
def pair(request):
    """A layer with parameters and buffers, the module of torch.nn with the same, and an input."""
    layer, make, shape = TABLE[request.param]
    x = _floats(*shape)
    params, buffers = layer.init(KEY, x)
    # Not at their first values, at which a forgotten scale or shift would not show.
    params = tree.map(lambda p: p + 0.1 * _floats(*p.shape), params)
    module = make()
    module.load_state_dict(nn.to_state_dict(params, buffers), strict=True)
    return layer, params, buffers, module, x


def _loss(layer, mode):
    """A scalar whose gradients tell all outputs apart, with the new buffers beside it."""

    def loss(params, x, buffers):
        y, after = layer.apply(params, buffers, x, mode)
        return (y * y * torch.linspace(0.5, 1.5, y.numel()).reshape(y.shape)).sum(), (y, after)

    return loss


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
def test_values_gradients_and_buffers_are_those_of_torch(pair, train):
    layer, params, buffers, module, x = pair
    module = copy.deepcopy(module).train(train)
    mode = nn.training(KEY) if train else nn.evaluation()
    loss = _loss(layer, mode)
    for k in range(3 if train else 1):  # the running statistics need a few batches to tell
        batch = x + k
        (_, (y, after)), grads = value_and_grad(loss, has_aux=True)(params, batch, buffers)
        (_, _), grad_x = value_and_grad(loss, argnum=1, has_aux=True)(params, batch, buffers)
        leaf = batch.clone().requires_grad_()
        expected = module(leaf)
        wanted = (expected * expected * torch.linspace(0.5, 1.5, y.numel()).reshape(y.shape)).sum()
        names = [name for name, _ in module.named_parameters()]
        by_torch = torch.autograd.grad(wanted, [leaf, *module.parameters()])
        torch.testing.assert_close(y, expected.detach())
        torch.testing.assert_close(grad_x, by_torch[0])
        torch.testing.assert_close(tree.filter(grads, "*"), dict(zip(names, by_torch[1:], strict=True)))
        torch.testing.assert_close(tree.filter(after, "*"), dict(module.named_buffers()))
        buffers = after


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
def test_nothing_is_mutated_and_the_same_input_gives_the_same_output(pair, train):
    layer, params, buffers, _, x = pair
    mode = nn.training(KEY) if train else nn.evaluation()
    before = tree.map(torch.clone, (params, buffers, x))
    first = layer.apply(params, buffers, x, mode)
    assert tree.equal(before, (params, buffers, x))
    assert tree.equal(first, layer.apply(params, buffers, x, mode))
    assert tree.structure(first[1]) == tree.structure(buffers)
    if not train:
        assert first[1] is buffers


def test_traced_is_eager(pair):
    layer, params, buffers, _, x = pair

    def step(params, buffers, x, key):
        return value_and_grad(_loss(layer, nn.training(key)), has_aux=True)(params, x, buffers)

    graph = make_fx(step, tracing_mode="fake")(params, buffers, x, KEY)
    assert tree.equal(graph(params, buffers, x, KEY), step(params, buffers, x, KEY))


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
def test_vmap_is_a_loop(pair, train):
    layer, params, buffers, _, x = pair
    mode = nn.training(KEY) if train else nn.evaluation()
    scaled = [tree.map(lambda p, k=k: p * (1 + 0.1 * k), params) for k in range(3)]
    inputs = [x, x + 1, x - 1]

    # An ensemble, with an input of its own for each member and the buffers of one.
    found = vmap(lambda p, x: layer.apply(p, buffers, x, mode))(tree.stack(scaled), torch.stack(inputs))
    wanted = [layer.apply(p, buffers, row, mode) for p, row in zip(scaled, inputs, strict=True)]
    torch.testing.assert_close(found, tree.stack(wanted))

    # An ensemble on one input, with buffers of its own for each member.
    if params or buffers:
        own = tree.stack([buffers] * 3)
        found = vmap(lambda p, b: layer.apply(p, b, x, mode))(tree.stack(scaled), own)
        torch.testing.assert_close(found, tree.stack([layer.apply(p, buffers, x, mode) for p in scaled]))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_torch(name):
    layer, module = nn.serial(getattr(nn, name)), ACTIVATIONS[name]
    x = torch.linspace(-5, 5, 12).reshape(3, 4)
    assert layer.init(KEY, x) == ({}, {})
    torch.testing.assert_close(layer.apply({}, {}, x), (module(x), {}))


def test_embedding_is_that_of_torch():
    layer, module = nn.embedding(11, 4), T.Embedding(11, 4)
    tokens = torch.tensor([[0, 10, 3], [3, 3, 1]])
    params, buffers = layer.init(KEY, tokens)
    module.load_state_dict(nn.to_state_dict(params, buffers))

    def loss(params):
        return (layer.apply(params, buffers, tokens)[0] ** 3).sum()

    value, grads = value_and_grad(loss)(params)
    wanted = (module(tokens) ** 3).sum()
    wanted.backward()
    torch.testing.assert_close(value, wanted.detach())
    torch.testing.assert_close(grads["weight"], module.weight.grad)
    torch.testing.assert_close(make_fx(value_and_grad(loss), tracing_mode="real")(params)(params), (value, grads))
    stacked = tree.stack([params, params])
    assert vmap(lambda p: layer.apply(p, {}, tokens)[0])(stacked).shape == (2, 2, 3, 4)


def test_float64_parameters_come_from_a_float64_example():
    model = nn.serial(nn.conv(2, 1), nn.batch_norm(), nn.flatten, nn.dense(2), nn.layer_norm())
    params, buffers = model.init(KEY, torch.zeros(1, 1, 2, 2, dtype=torch.float64))
    dtypes = {leaf.dtype for leaf in tree.leaves((params, buffers))}
    assert dtypes == {torch.float64, torch.int64}
    assert nn.embedding(2, 2).init(KEY, torch.tensor([0]))[0]["weight"].dtype == torch.float32
