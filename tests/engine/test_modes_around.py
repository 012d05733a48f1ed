"""Modes of functions around a call of a compiled function, and modes of the user's inside of what is traced."""

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import functrain as ft
from functrain.errors import NotTraceable


class Doubling(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        return out * 2 if getattr(func, "__name__", "") == "sin" else out


class Passing(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


X = torch.tensor([0.5, 1.0])


@pytest.mark.parametrize("order", [(True, False, True), (False, True, False)])
def test_a_mode_of_functions_changes_the_calls_inside_it_alone(order):
    f = ft.jit(lambda x: torch.sin(x))
    expected = torch.sin(X)
    for inside in order:
        if inside:
            with Doubling():
                made = f(X)
            assert torch.equal(made, 2 * expected)
        else:
            assert torch.equal(f(X), expected)
    assert len(f.traces) == 1


def test_the_device_of_a_context_belongs_to_the_signature():
    f = ft.jit(lambda x: torch.ones(2))
    for device in ("meta", "cpu", "meta", "cpu"):
        with torch.device(device):
            assert f(torch.ones(1, device="cpu")).device.type == device
        assert f(torch.ones(1)).device.type == "cpu"
    assert len(f.traces) == 3  # without a context, and in each of two


def test_a_default_device_is_compiled_for():
    f = ft.jit(lambda x: x + torch.arange(2))
    torch.set_default_device("cpu")
    try:
        assert torch.equal(f(X), X + torch.arange(2)) and torch.equal(f(X), X + torch.arange(2))
    finally:
        torch.set_default_device(None)
    assert len(f.traces) == 1


def test_a_copy_of_a_row_is_seen_as_one_in_a_dispatch_mode_of_the_users():
    def f(x, k):
        with Passing():
            y = x.clone()
            y[k].mul_(2)
            return y

    with pytest.raises(NotTraceable, match="a row taken by a tensor"):
        ft.jit(f)(X[:, None], torch.tensor(1))


def test_transforms_are_recorded_in_a_dispatch_mode_of_the_users():
    def f(x):
        with Passing():
            return ft.grad(lambda x: ft.scan(lambda c, row: (c * row.sin(), c), x.sum(), x)[0])(x)

    assert torch.equal(ft.jit(f)(X), f(X))
