"""What holds for every module: nothing is changed, and transforms do what they do to any pure function."""

import pytest
import torch
from torch import Tensor
from torch import nn as tnn

import functrain as ft
from functrain import nn, random, tree
from tests.interop import modules
from tests.zoo.comparing import mean_square

MODULES = {
    "resnet": (modules.resnet, (4, 1, 10, 10)),
    "unet": (modules.UNet, (2, 1, 8, 8)),
    "samples": (modules.Samples, (6, 4)),
    "shared": (modules.Shared, (6, 4)),
    "average": (modules.Average, (6, 4)),
    "attends": (modules.Attends, (2, 5, 8)),
    "recurrent": (modules.Recurrent, (4, 6, 5)),
    "checkpointed": (modules.Checkpointed, (6, 4)),
    "reentrant": (lambda: modules.Checkpointed(reentrant=True), (6, 4)),
}
BY_VALUE = sorted(set(MODULES) - {"average", "recurrent"})
"""Those that go under a vmap over keys: PyTorch writes no rows into a shared buffer, and maps no recurrent network."""


SLOW_UNDER_VMAP = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
"""PyTorch has no batching rule for recurrent networks, and says so."""


@pytest.fixture
def problem(request):
    """A model, its first values, an input, and (params, buffers, key, x) -> (loss and buffers, gradients)."""
    torch.manual_seed(0)
    make, shape = MODULES[request.param]
    model, x = nn.from_module(make()), torch.randn(*shape)

    def step(params, buffers, key, x):
        def loss(params):
            y, after = model.apply(params, buffers, x, nn.training(key))
            return mean_square(y, x), after

        return ft.value_and_grad(loss, has_aux=True)(params)

    return model, model.init(random.key(0), x), x, step


def each(names=tuple(MODULES)):
    return pytest.mark.parametrize("problem", names, indirect=True)


def assert_close(a, b):
    assert tree.differences(a, b, rtol=1e-4, atol=1e-5) == []


@each()
def test_nothing_passed_in_is_changed_and_no_generator_is_touched(problem):
    model, start, x, step = problem
    copies = tree.map(torch.clone, (start, x))
    state = torch.get_rng_state()
    step(*start, random.key(1), x)
    model.apply(*start, x, nn.Mode(key=random.key(1)))
    assert tree.equal(copies, (start, x))
    assert torch.equal(state, torch.get_rng_state())


@each()
def test_the_same_key_gives_the_same_and_another_key_another(problem):
    _, start, x, step = problem
    first, again, other = (step(*start, random.key(seed), x) for seed in (1, 1, 2))
    assert tree.equal(first, again)
    assert tree.equal(first, other) == ("mean" in start[1])  # the module Average draws nothing


@each()
def test_jit_scan_and_donation_agree_with_eager(problem):
    _, start, x, step = problem
    keys = random.split(random.key(1), 3)

    def body(carry, key):
        (loss, buffers), grads = step(*carry, key, x)
        return (tree.map(lambda p, g: p - 0.1 * g, carry[0], grads), buffers), loss

    eager = ft.fold(lambda carry, key: body(carry, key), start, keys)[0]
    together = ft.jit(lambda carry, keys: ft.scan(body, carry, keys))(start, keys)[0]
    donating = ft.jit(body, donate=0)
    carry = tree.map(torch.clone, start)
    for key in keys:
        carry, _ = donating(carry, key.clone())
    assert_close(together, eager)
    assert_close(carry, eager)
    assert len(donating.traces) == 1


@each(BY_VALUE)
@SLOW_UNDER_VMAP
def test_vmap_over_keys_is_a_loop_over_keys(problem):
    _, start, x, step = problem
    keys = random.split(random.key(1), 3)
    mapped = ft.vmap(step, in_dims=(None, None, 0, None))
    loop = tree.stack([step(*start, key, x) for key in keys])
    assert_close(mapped(*start, keys, x), loop)
    assert_close(ft.jit(mapped)(*start, keys, x), loop)


@each()
@SLOW_UNDER_VMAP
def test_vmap_over_stacked_parameters_is_a_loop_over_them(problem):
    _, start, x, step = problem
    starts = [tree.map(lambda t, k=k: t + 0.1 * k if t.is_floating_point() else t, start) for k in range(2)]
    keys = random.split(random.key(1), 2)
    mapped = ft.vmap(step, in_dims=(0, 0, 0, None))(*tree.stack(starts), keys, x)
    assert_close(mapped, tree.stack([step(*s, key, x) for s, key in zip(starts, keys, strict=True)]))


@each()
def test_gradients_of_torch_func_are_those_of_autograd(problem):
    model, start, x, step = problem
    params, buffers = start

    def loss(params):
        y, after = model.apply(params, buffers, x, nn.training(random.key(1)))
        return mean_square(y, x), after

    grads, (value, after) = torch.func.grad_and_value(loss, has_aux=True)(params)
    assert_close(((value, after), grads), step(params, buffers, random.key(1), x))


@each(("resnet", "samples"))
def test_inductor_agrees(problem):
    _, start, x, step = problem
    assert_close(ft.jit(step, backend="inductor")(*start, random.key(1), x), step(*start, random.key(1), x))


def test_evaluation_is_the_modules_own():
    for make, shape in MODULES.values():
        if make is modules.Samples:
            continue  # it draws in evaluation too
        torch.manual_seed(0)
        module, x = make(), torch.randn(*shape)
        model = nn.from_module(module)
        y, _ = model.apply(*model.init(random.key(0), x), x)
        assert torch.allclose(y, module.eval()(x), atol=1e-6)


def test_a_layer_elsewhere_does_not_change_the_draws_of_another():
    x = torch.ones(50, 4)
    short = nn.from_module(tnn.ModuleDict({"drop": tnn.Dropout(0.5)})["drop"])

    class One(tnn.Module):
        def __init__(self, more: bool) -> None:
            super().__init__()
            self.drop, self.other, self.more = tnn.Dropout(0.5), tnn.Dropout(0.5), more

        def forward(self, x: Tensor) -> Tensor:
            if self.more:
                self.other(x)
            return self.drop(x)

    a, b = (nn.from_module(One(more)).apply({}, {}, x, nn.training(random.key(0)))[0] for more in (False, True))
    assert torch.equal(a, b)
    assert not torch.equal(a, short.apply({}, {}, x, nn.training(random.key(1)))[0])


def test_a_model_from_a_module_is_a_layer_among_others():
    model = nn.serial(nn.dense(4), body=nn.from_module(modules.Shared()), head=nn.dense(2))
    x = torch.randn(6, 3)
    params, buffers = model.init(random.key(0), x)
    y, after = model.apply(params, buffers, x, nn.training(random.key(1)))
    assert y.shape == (6, 2)
    assert int(after["body"]["norm"]["num_batches_tracked"]) == 2
    assert list(params) == ["0", "body", "head"]
