"""What is written another way before Inductor sees a graph: what it gets wrong, and what it makes slow code of."""

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, Node, Proxy
from torch.fx.node import has_side_effect
from torch.torch_version import TorchVersion

from functrain.engine.graph.aliasing import Aliasing
from functrain.engine.graph.checks import within
from functrain.engine.graph.limits import limits_of
from functrain.engine.graph.queries import replace
from functrain.errors import CompileFailed

aten = torch.ops.aten

_SLOPE, _CUBE = 2 * 0.7978845608028654, 0.044715
"""GELU by tanh is x * sigmoid(slope * (x + cube * x^3)); the slope is 2 * sqrt(2 / pi)."""


def respell(graph: Graph) -> None:
    """Write operations of a graph in the way that Inductor compiles rightly, and to fast code."""
    _keep_checks(graph)
    if _COUNTS_FROM_THE_END:
        _refuse_negative_indices(graph)
    _count_offsets_from_inputs(graph)
    _spell_out_factors(graph)
    _spell_out_gelu(graph)


def _keep_checks(graph: Graph) -> None:
    """Have Inductor keep the operations that only check something: it drops those of `linalg` (PyTorch 2.11)."""
    for target in {node.target for node in graph.nodes if node.op == "call_function"}:
        if isinstance(target, torch._ops.OpOverload) and not target._schema.returns:
            has_side_effect(target)


_COUNTS_FROM_THE_END = TorchVersion(torch.__version__) < "2.13"
_REFUSE_NEGATIVE = (aten.gather.default, aten.embedding.default)


def _refuse_negative_indices(graph: Graph) -> None:
    """Write a check of indices where kernels make one, and Inductor's code counts negative ones from the end."""
    for node in [n for n in graph.nodes if n.target in _REFUSE_NEGATIVE]:
        for limits in limits_of(node):
            words = f"index out of bounds: 0 <= index < {limits.high + 1}"  # pyright: ignore[reportOptionalOperand]
            with graph.inserting_before(node):
                check = graph.call_function(aten._assert_async.msg, (within(graph, limits), words))
            check.meta = {**node.meta, "val": None}


def _count_offsets_from_inputs(graph: Graph) -> None:
    """Count the offset of a strided view from where an input begins in its storage, as Inductor's code does.

    PyTorch counts it from the beginning of the storage (PyTorch 2.13; the code read beyond its memory).
    """
    aliasing = Aliasing(graph)
    for node in graph.nodes:
        if node.target is not aten.as_strided.default or len(node.args) < 4 or node.args[3] is None:
            continue
        root = aliasing.memory(node)
        if root.op == "placeholder" and (start := root.meta["val"].storage_offset()):
            if node.args[3] < start:
                raise CompileFailed(
                    f"as_strided with offset {node.args[3]} looks at memory before an argument, which begins at "
                    f"{start}: inductor cannot, backend='aten' can"
                )
            node.args = (*node.args[:3], node.args[3] - start)


def _spell_out_factors(graph: Graph) -> None:
    """Write the factors `alpha` and `beta` of sums as multiplications of their own.

    Inductor fuses the sum of a matrix product and another tensor into one `addmm` and forgets that they had factors
    (PyTorch 2.13; https://github.com/pytorch/pytorch/issues/167313): momentum would be 1 whatever it is. What it fuses
    itself costs nothing.
    """
    for node in [n for n in graph.nodes if n.target in (aten.add.Tensor, aten.addmm.default, aten.baddbmm.default)]:
        factors = {name: node.kwargs[name] for name in ("alpha", "beta") if node.kwargs.get(name, 1) != 1}
        if not factors:
            continue
        with graph.inserting_before(node):
            if node.target is aten.add.Tensor:
                parts = [node.args[0], graph.call_function(aten.mul.Tensor, (node.args[1], factors["alpha"]))]
            else:
                product = aten.mm.default if node.target is aten.addmm.default else aten.bmm.default
                parts = [node.args[0], graph.call_function(product, tuple(node.args[1:]))]
                for i, name in enumerate(("beta", "alpha")):
                    if name in factors:
                        parts[i] = graph.call_function(aten.mul.Tensor, (parts[i], factors[name]))
            new = graph.call_function(aten.add.Tensor, tuple(parts))
        _respell(node, new)


def _spell_out_gelu(graph: Graph) -> None:
    """Write GELU by tanh as one by the logistic function, which is the same function.

    On the CPU a vector of `tanh` takes three times as long as one of `exp`, and was most of the time of the kernel.
    """
    ways: dict[Any, Callable] = {aten.gelu.default: _gelu, aten.gelu_backward.default: _gelu_backward}
    for node in list(graph.nodes):
        if node.target in ways and node.kwargs.get("approximate") == "tanh" and _is_plain(node):
            with graph.inserting_before(node):
                new = ways[node.target](*(Proxy(a) for a in node.args)).node
            _respell(node, new)


def _is_plain(node: Node) -> bool:
    value = node.meta["val"]
    return value.device.type == "cpu" and value.dtype == torch.float32


def _gelu(x: Any) -> Any:
    return x * torch.sigmoid(x * (x * x * (_SLOPE * _CUBE) + _SLOPE))


def _gelu_backward(grad: Any, x: Any) -> Any:
    square = x * x
    part = torch.sigmoid(x * (square * (_SLOPE * _CUBE) + _SLOPE))
    return grad * (part + part * (1 - part) * x * (square * (3 * _SLOPE * _CUBE) + _SLOPE))


def _respell(node: Node, new: Node) -> None:
    new.meta = dict(node.meta)
    replace(node, new)
