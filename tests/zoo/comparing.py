"""Three training steps of a module as a model, against the module's own loop under the same draws, leaf by leaf."""

import copy
import time
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

import functrain as ft
from functrain import nn, random, tree
from functrain.nn.interop.rules.running import Running

STEPS = 3


@attrs.frozen
class Case:
    """A module and what to train it on.

    Attributes:
        name: what the table calls it.
        make: () -> the module, drawn from PyTorch's global generator.
        batch: () -> an input of the module.
        loss: (output of the module, input) -> a scalar.
        lr: how far a step goes.
        options: those of `from_module`.
        tolerance: how far updates may differ from the module's own, as a part of the largest.
        dtype: that of module and batch; float64 where few values a channel let batch norm enlarge each rounding.
    """

    name: str
    make: Callable[[], torch.nn.Module]
    batch: Callable[[], Any]
    loss: Callable[[Any, Any], Tensor]
    lr: float = 0.05
    options: dict[str, Any] = attrs.field(factory=dict)
    tolerance: float = 1e-3
    dtype: torch.dtype = torch.float32


@attrs.frozen
class Outcome:
    """What came of a case.

    Attributes:
        wrong: what differs, a line each; nothing where all is right.
        nodes: how many operations the graph of a step has.
        first_step: the seconds until the first jitted step was done.
    """

    wrong: list[str]
    nodes: int
    first_step: float


def mean_square(output: Any, x: Any) -> Tensor:
    """A loss that depends on each element of each floating-point tensor of the output, each in its own way."""
    leaves = [t for t in tree.leaves(output) if isinstance(t, Tensor) and t.is_floating_point()]
    return sum(((t - torch.linspace(-1, 1, t.numel()).reshape(t.shape)) ** 2).mean() for t in leaves)  # type: ignore


def draws_of(module: torch.nn.Module, key: Tensor) -> Running:
    """Return the mode in which a module as it is draws what its model draws from this key."""
    return Running(nn.training(key), {id(part): path for path, part in module.named_modules()}, {})


def call(module: torch.nn.Module, x: Any) -> Any:
    return module(*x) if type(x) is tuple else module(**x) if type(x) is dict else module(x)


def own_steps(case: Case, module: torch.nn.Module, x: Any) -> list[dict[str, Tensor]]:
    """Return the module's own tensors after each step of its own loop."""
    module = copy.deepcopy(module)
    if not module.training:
        module.train()
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=case.lr)
    after = []
    for step in range(STEPS):
        optimizer.zero_grad()
        with draws_of(module, random.fold_in(random.key(7), step)):
            loss = case.loss(call(module, x), x)
            loss.backward()  # inside, as what is computed again there draws again
        optimizer.step()
        after.append({name: t.detach().clone() for name, t in tensors_of(module).items()})
    return after


def tensors_of(module: torch.nn.Module) -> dict[str, Tensor]:
    return dict([*module.named_parameters(), *module.named_buffers()])


def model_step(case: Case, model: nn.Model) -> Callable:
    def step(params: Any, buffers: Any, key: Tensor, x: Any) -> tuple[Any, Any, Any]:
        def loss(params: Any) -> tuple[Tensor, Any]:
            y, after = model.apply(params, buffers, x, nn.training(key))
            return case.loss(y, x), after

        (_, after), grads = ft.value_and_grad(loss, has_aux=True)(params)
        return tree.map(lambda p, g: p - case.lr * g, params, grads), after, grads

    return step


def compare(case: Case, jit: bool = True) -> Outcome:
    """Return what came of a case, eager and jitted."""
    torch.manual_seed(0)
    module, x = case.make().to(case.dtype), tree.to(case.batch(), case.dtype)
    before = {name: t.detach().clone() for name, t in tensors_of(module).items()}
    own = own_steps(case, module, x)
    model = nn.from_module(module, **case.options)
    start = model.init(random.key(0), x)
    eager = model_step(case, model)
    wrong = _wrong(case, eager, start, x, before, own, "eager")
    nodes, seconds = 0, 0.0
    if jit:
        fast = ft.jit(eager)
        began = time.perf_counter()
        fast(*start, random.fold_in(random.key(7), 0), x)
        seconds, nodes = time.perf_counter() - began, len(fast.traces[0].graph.graph.nodes)
        wrong += _wrong(case, fast, start, x, before, own, "jit")
        if len(fast.traces) != 1:
            wrong.append(f"jit traced {len(fast.traces)} times: {fast.traces[-1].reason}")
    if any(not torch.equal(before[name], t) for name, t in tensors_of(module).items()):
        wrong.append("the module itself was changed")
    return Outcome(wrong, nodes, seconds)


def _wrong(case: Case, step: Callable, start: tuple, x: Any, before: dict, own: list, how: str) -> list[str]:
    params, buffers = start
    moved = {
        name: (own[-1][name] - t).abs().max().item()
        for name, t in before.items()
        if t.is_floating_point() and t.numel()
    }
    wrong = []
    for number in range(STEPS):
        params, buffers, grads = step(params, buffers, random.fold_in(random.key(7), number), x)
        got = nn.to_state_dict(params, buffers)
        for name, t in own[number].items():
            wrong += _difference(f"{how}, step {number}: {name}", got[name], t, moved.get(name, 0.0), case.tolerance)
        earlier = own[number - 1] if number else before
        zero = [
            name
            for name, g in tree.leaves_with_path(grads)
            if not g.any() and (own[number][name] != earlier[name]).any()
        ]
        wrong += [f"{how}, step {number}: the gradient of {name} is zero, and the module's own is not" for name in zero]
    return wrong


def _difference(where: str, got: Tensor, own: Tensor, moved: float, tolerance: float) -> list[str]:
    if got.shape != own.shape or got.dtype != own.dtype:
        return [f"{where} is {tree.describe(got)}, the module's own {tree.describe(own)}"]
    if not own.is_floating_point():
        return [] if torch.equal(got, own) else [f"{where} differs"]
    far = (got - own).abs().max().item() if got.numel() else 0.0
    bound = tolerance * moved + 1e-6 * (1 + own.abs().max().item() if own.numel() else 1.0)
    return [] if far <= bound else [f"{where} differs by {far:.3g}, after a way of {moved:.3g}"]
