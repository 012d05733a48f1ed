"""`torch.utils.checkpoint` inside a module: the numbers of the same module without it, under every transform."""

import pytest
import torch
import torch.utils.checkpoint

import functrain as ft
from functrain import nn, random, tree
from tests.interop import modules
from tests.zoo.comparing import mean_square

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def step_of(**options):
    torch.manual_seed(0)
    model = nn.from_module(modules.Checkpointed(**options))

    def step(params, buffers, key):
        def loss(params):
            y, after = model.apply(params, buffers, X, nn.training(key))
            return mean_square(y, X), after

        return ft.value_and_grad(loss, has_aux=True)(params)

    return step, model.init(random.key(0), X)


def assert_close(a, b):
    assert tree.differences(a, b, rtol=1e-4, atol=1e-5) == []


@pytest.mark.parametrize("reentrant", [False, True])
def test_it_changes_no_number(reentrant):
    plain, start = step_of(active=False)
    step, _ = step_of(reentrant=reentrant)
    keys = random.split(random.key(3), 3)
    expected = plain(*start, keys[0])
    assert_close(step(*start, keys[0]), expected)
    assert_close(ft.jit(step)(*start, keys[0]), expected)
    assert_close(
        torch.func.vmap(step, in_dims=(None, None, 0))(*start, keys), tree.stack([plain(*start, k) for k in keys])
    )


def test_a_buffer_is_new_once():
    step, start = step_of()
    (_, after), _ = step(*start, random.key(0))
    assert int(after["body"]["1"]["num_batches_tracked"]) == 3  # the body runs three times


def test_it_saves_memory_in_a_trace_as_remat_does():
    counts = {}
    for active in (True, False):
        step, start = step_of(active=active)
        graph = ft.jit(step).lower(*start, random.key(0)).graph.graph
        counts[active] = sum("tanh" in str(node.target) for node in graph.nodes)
    assert counts[True] > counts[False]


def test_outside_of_an_application_it_is_pytorchs():
    torch.manual_seed(0)
    module = modules.Checkpointed()
    own = modules.Checkpointed(active=False)
    own.load_state_dict(module.state_dict())
    grads = []
    for one in (module, own):
        torch.manual_seed(1)
        one(X).sum().backward()
        grads.append([p.grad for p in one.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))
