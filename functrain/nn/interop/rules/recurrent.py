"""Recurrent networks: layer by layer where there is dropout between layers, and by their formulas under `vmap`.

PyTorch has no rule for `lstm`, `gru` and `rnn` under `vmap`. There a layer is a scan over time of the formula in the
documentation of `torch.nn.LSTM`, `GRU` and `RNN`: the same numbers up to rounding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from functrain.dispatch_state import vectorizing_levels
from functrain.engine import scan
from functrain.errors import InvalidArgument
from functrain.nn.interop.rules.layers import drop
from functrain.nn.interop.rules.running import Running, rule

States = tuple[Tensor, ...]
Cell = Callable[[States, Tensor, Sequence[Tensor]], States]
"""(states, the input's share of the gates, weights of the hidden state) -> states, of which the first is the output."""


@attrs.frozen
class _Call:
    """The arguments of one of PyTorch's functions of recurrent networks.

    Attributes:
        x: the input; of a packed sequence its data.
        batch_sizes: those of a packed sequence, else None.
        states: the first states, each (layers * ways, batch, width).
        weights: all weights, those of a layer and way together.
        bias: whether each way has biases.
        layers: how many layers there are, each of one or two ways.
        drops: the rate of dropout between layers; 0 at rest.
        train: whether the module is in training.
        both_ways: whether each layer runs from the end to the beginning too.
        batch_first: whether the batch is the first axis of input and output, and not time.
    """

    x: Tensor
    batch_sizes: Tensor | None
    states: States
    weights: Sequence[Tensor]
    bias: bool
    layers: int
    drops: float
    train: bool
    both_ways: bool
    batch_first: bool

    @property
    def ways(self) -> int:
        return 2 if self.both_ways else 1


def _call(args: Sequence[Any]) -> _Call:
    packed = isinstance(args[3], list | tuple)  # (data, batch_sizes, hx, weights, ...), else (input, hx, weights, ...)
    start = 3 if packed else 2
    weights, bias, layers, p, train, both_ways = args[start : start + 6]
    hidden = args[start - 1]
    states = tuple(hidden) if isinstance(hidden, tuple | list) else (hidden,)
    sizes, batch_first = (args[1], False) if packed else (None, args[start + 6])
    drops = p if train and layers > 1 else 0.0
    return _Call(args[0], sizes, states, weights, bias, layers, drops, train, both_ways, batch_first)


def _recurrent(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    call = _call(args)
    run.check(call.weights)
    vmapped = bool(vectorizing_levels([call.x, *call.states, *call.weights])) or (call.drops > 0 and run.is_vmapped)
    if not call.drops and not vmapped:
        return func(*args, **kwargs)
    if vmapped and call.batch_sizes is not None:
        raise InvalidArgument(
            f"from_module: {run.place() or 'the module'} runs a packed sequence under vmap, for which PyTorch has no "
            "rule; pad the sequences and weight their elements instead"
        )
    layer = _by_formula(CELLS[func]) if vmapped else _by(func)
    x, size, states = call.x, len(call.weights) // call.layers, []
    for k in range(call.layers):
        if k and call.drops:
            x = drop(run, x, call.drops, x.shape, "dropout between layers")
        own = tuple(state[k * call.ways : (k + 1) * call.ways] for state in call.states)
        x, *new = layer(call, x, own, call.weights[k * size : (k + 1) * size])
        states.append(new)
    return (x, *(torch.cat(parts) for parts in zip(*states, strict=True)))


def _by(func: Callable) -> Callable:
    """Return what runs one layer by PyTorch's function."""

    def layer(call: _Call, x: Tensor, states: States, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        hidden = states if len(states) != 1 else states[0]
        head = (x, hidden) if call.batch_sizes is None else (x, call.batch_sizes, hidden)
        tail = (call.batch_first,) if call.batch_sizes is None else ()
        return func(*head, weights, call.bias, 1, 0.0, call.train, call.both_ways, *tail)

    return layer


def _by_formula(cell: Cell) -> Callable:
    """Return what runs one layer by the formula of its cell."""

    def layer(call: _Call, x: Tensor, states: States, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        x = x.transpose(0, 1) if call.batch_first else x  # time first
        size = len(weights) // call.ways
        outputs, last = [], []
        for way in range(call.ways):
            own, begin = weights[way * size : (way + 1) * size], tuple(state[way] for state in states)
            y, end = _over_time(cell, call.bias, x.flip(0) if way else x, begin, own)
            outputs.append(y.flip(0) if way else y)
            last.append(end)
        y = torch.cat(outputs, -1)
        ends = [torch.stack(parts) for parts in zip(*last, strict=True)]
        return (y.transpose(0, 1) if call.batch_first else y, *ends)

    return layer


def _over_time(cell: Cell, bias: bool, x: Tensor, begin: States, weights: Sequence[Tensor]) -> tuple[Tensor, States]:
    """Return the outputs (time, batch, width) and the last states of one way of a layer."""
    of_input, rest = weights[0], [weights[1], weights[3] if bias else None, *weights[4 if bias else 2 :]]

    def step(states: States, gates: Tensor) -> tuple[States, Tensor]:
        states = cell(states, gates, rest)
        return states, states[0]

    states, y = scan(step, begin, F.linear(x, of_input, weights[2] if bias else None))
    return y, states


def _lstm(states: States, gates: Tensor, weights: Sequence[Tensor]) -> States:
    h, c = states
    i, f, g, o = (gates + F.linear(h, weights[0], weights[1])).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (F.linear(h, weights[2]) if len(weights) > 2 else h), c  # proj_size: the output is projected


def _gru(states: States, gates: Tensor, weights: Sequence[Tensor]) -> States:
    (h,) = states
    r, z, n = gates.chunk(3, -1)
    r_of_h, z_of_h, n_of_h = F.linear(h, weights[0], weights[1]).chunk(3, -1)
    z, n = torch.sigmoid(z + z_of_h), torch.tanh(n + torch.sigmoid(r + r_of_h) * n_of_h)
    return (n + z * (h - n),)


def _rnn(activation: Callable[[Tensor], Tensor]) -> Cell:
    return lambda states, gates, weights: (activation(gates + F.linear(states[0], weights[0], weights[1])),)


CELLS: dict[Any, Cell] = {
    torch._VF.lstm: _lstm,
    torch._VF.gru: _gru,
    torch._VF.rnn_tanh: _rnn(torch.tanh),
    torch._VF.rnn_relu: _rnn(torch.relu),
}
"""PyTorch's function of a recurrent network -> the formula of its cell."""

rule(*CELLS)(_recurrent)


STEPS: dict[Any, Cell] = {
    torch._VF.lstm_cell: _lstm,
    torch._VF.gru_cell: _gru,
    torch._VF.rnn_tanh_cell: CELLS[torch._VF.rnn_tanh],
    torch._VF.rnn_relu_cell: CELLS[torch._VF.rnn_relu],
}
"""PyTorch's function of a single step -> the formula of its cell."""


@rule(*STEPS)
def _step(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    run.check(args)
    x, hidden, of_input, of_hidden, bias_of_input, bias_of_hidden = args
    states = tuple(hidden) if isinstance(hidden, tuple | list) else (hidden,)
    if not vectorizing_levels([x, *states, *(weight for weight in args[2:] if weight is not None)]):
        return func(*args, **kwargs)
    new = STEPS[func](states, F.linear(x, of_input, bias_of_input), (of_hidden, bias_of_hidden))
    return new if len(states) > 1 else next(iter(new))
