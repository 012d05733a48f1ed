"""A forward that registers hooks does so on its own copy of the modules: each application begins as the first."""

import pytest
import torch

import functrain as ft
from functrain import nn, random

KINDS = {
    "forward": lambda module: module.register_forward_hook(lambda _module, _inputs, y: y * 2),
    "before": lambda module: module.register_forward_pre_hook(lambda _module, inputs: (inputs[0] + 1,)),
    "with keywords": lambda module: module.register_forward_hook(lambda _m, _i, _k, y: y * 3, with_kwargs=True),
    "always": lambda module: module.register_forward_hook(lambda _m, _i, y: y * 5, always_call=True),
    "backward": lambda module: module.register_full_backward_hook(lambda _m, inner, _o: (inner[0] * 7,)),
    "before backward": lambda module: module.register_full_backward_pre_hook(lambda _m, outer: (outer[0] * 11,)),
}


class Hooking(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.inner, self.kind = torch.nn.Linear(3, 3), kind

    def forward(self, x):
        KINDS[self.kind](self.inner)
        return self.inner(torch.tanh(x))


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_of_one_application_are_not_those_of_the_next(kind):
    module, x = Hooking(kind), torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    model = nn.from_module(module)
    params, buffers = model.init(random.key(0), x)

    def loss(x):
        return (model.apply(params, buffers, x)[0] ** 2).sum()

    given = x.clone().requires_grad_()
    expected = (module(given) ** 2).sum()  # the first call of the module itself, with one hook
    (gradient,) = torch.autograd.grad(expected, given)
    for _ in range(3):
        got, by_x = ft.value_and_grad(loss)(x)
        torch.testing.assert_close(got, expected.detach())
        torch.testing.assert_close(by_x, gradient)
