"""The memory of intermediate results is kept from call to call."""

import platform
import resource
from types import SimpleNamespace

import pytest
import torch

import functrain as ft
from functrain.engine.backends import freed_memory as allocation
from functrain.engine.tracing.to_graph import trace


def _deep(x, weights):
    for weight in weights:
        x = torch.tanh(x @ weight)
    return x.sum()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has another policy")
def test_a_call_does_not_ask_the_system_for_its_memory_anew():
    x, weights = torch.randn(1024, 256), [torch.randn(256, 256) / 16 for _ in range(8)]
    gradients = ft.jit(ft.grad(_deep, argnum=1))
    for _ in range(5):
        gradients(x, weights)

    def faults(calls=10):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(calls):
            gradients(x, weights)
        return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / calls

    # The heap of a process that has just begun may still grow for a while.
    assert min(faults() for _ in range(4)) < 8 * x.numel() * x.itemsize // resource.getpagesize() / 16


@pytest.mark.parametrize(("rows", "freed"), [(2, 1), (1 << 22, 0)])
def test_a_graph_with_larger_values_is_left_alone(monkeypatch, rows, freed):
    made = []
    monkeypatch.setattr(allocation, "torch", SimpleNamespace(empty=lambda *a, **k: made.append(a), uint8=torch.uint8))
    allocation.keep_freed_memory(allocation.largest_value(trace(lambda x: [x * 2], [torch.empty(rows)]).gm))
    assert len(made) == freed
