"""Graphs of which Inductor compiles some stretches: between scans, and what its rules do not know.

A scan's body is compiled as a graph of its own. Some operations stand apart as PyTorch calls them, because Inductor's
rules for their results are wrong or missing: of the workspace of an LSTM it thinks that it is one byte (PyTorch 2.13).
"""

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx._lazy_graph_module import _use_lazy_graph_module
from torch.fx.passes.split_module import split_module

from functrain.dispatch_contexts import as_recorded
from functrain.engine.graph.in_place import InPlace
from functrain.engine.graph.passes.hoisting import hoist
from functrain.engine.graph.queries import copy, output_of, placeholders
from functrain.engine.graph.scan_node import Body, Compile, Loop, Pairs, compile_loops, lift_constants, loops, unalias
from functrain.engine.tracing.lazy_module import forget_sources, graph_module

aten = torch.ops.aten
_APART = (
    aten.mkldnn_rnn_layer.default,
    aten.mkldnn_rnn_layer_backward.default,
    aten._ctc_loss.default,
    aten.linalg_lstsq.default,
    aten.repeat_interleave.Tensor,
    aten._pack_padded_sequence.default,
)
_SMALL = 16
"""A stretch of at most so many operations is not worth seconds of compiling, and runs as it is."""


def is_apart(node: Any) -> bool:
    """Return whether a node is not compiled together with others: a scan, or one that Inductor does not know.

    >>> from functrain.engine.tracing.to_graph import trace
    >>> is_apart(trace(lambda x: [x + 1], [torch.ones(2)]).results[0])
    False
    """
    operation = node.target.operation if isinstance(node.target, InPlace) else node.target
    return node.op == "call_function" and (isinstance(operation, Loop) or operation in _APART)


class _Stage:
    """The target of a node that stands for a compiled stretch of a graph."""

    def __init__(self, name: str, step: Body, single: bool):
        self.__name__ = self.__qualname__ = name
        self.__module__ = __name__
        self.step, self.single = step, single

    def __call__(self, *inputs: Tensor) -> Any:
        out = self.step(list(inputs))
        return out[0] if self.single else out


def in_stages(gm: GraphModule, examples: list[Tensor], donated: Pairs, compile: Compile) -> Body:
    """Compile the stretches of a graph before, between and after what stands apart, and the bodies of its loops.

    Args:
        gm: the graph.
        examples: tensors like its inputs, without memory.
        donated: pairs (input, output): the output is copied into the input, which is returned for it.
        compile: what compiles a graph in which nothing stands apart.

    >>> from functrain.engine.tracing.to_graph import trace
    >>> traced = trace(lambda x: [x + 1], [torch.ones(2)])
    >>> in_stages(traced.gm, traced.inputs, (), lambda *_: None)([torch.ones(2)])
    [tensor([2., 2.])]
    """
    name = gm.meta.get("name") or gm._get_name()
    gm = graph_module(gm, copy(gm.graph))
    constants = lift_constants(gm)
    hoist(gm)
    unalias(gm, donated)
    for node in loops(gm):
        node.target.body.meta["name"] = f"the loop in {name}"  # pyright: ignore
    left = compile_loops(gm, compile, donated)
    whole = _split(gm, _stages(gm))
    for node in list(whole.graph.nodes):
        if node.op == "call_module":
            _compile_stage(whole, node, name, compile)
    whole.recompile()
    whole.real_recompile()
    run = whole.forward

    def step(inputs: list[Tensor]) -> list[Tensor]:
        with as_recorded():
            outputs = list(run(*inputs, *constants))
        for i, o in left:
            if outputs[o] is not inputs[i]:
                outputs[o] = inputs[i].copy_(outputs[o])
        return outputs

    return step


def _split(gm: GraphModule, stages: dict[Node, int]) -> Any:
    """Return a graph that calls one module for each stage."""
    with forget_sources(), _use_lazy_graph_module(True):
        whole = split_module(gm, gm, stages.__getitem__, keep_original_order=False)
    for name, part in list(whole.named_children()):
        setattr(whole, name, graph_module(part, copy(part.graph)))  # pyright: ignore
    return graph_module(whole, copy(whole.graph))


def _stages(gm: GraphModule) -> dict[Node, int]:
    """Number the nodes: what stands apart has odd numbers, and what can run before, between and after it even ones."""
    stages: dict[Node, int] = {}
    for node in gm.graph.nodes:
        latest = max((stages.get(n, 0) for n in node.all_input_nodes), default=0)
        if is_apart(node):
            stages[node] = latest + 1 - latest % 2
        elif node.target is operator.getitem and is_apart(node.args[0]):  # pyright: ignore
            stages[node] = latest
        else:
            stages[node] = latest + latest % 2
    # Two of one number could wait for each other through others; one after another gets the next odd number.
    return stages


def _compile_stage(whole: GraphModule, node: Node, name: str, compile: Compile) -> None:
    part: Any = whole.get_submodule(str(node.target))
    output = output_of(part.graph)
    single = isinstance(output.args[0], Node)
    operations = [n for n in part.graph.nodes if n.op == "call_function"]
    if any(map(is_apart, operations)) or len(operations) <= _SMALL:
        return
    output.args = ([output.args[0]] if single else list(output.args[0]),)
    part.meta["name"] = f"{name}, outside its loop"
    step = compile(part, [n.meta["val"] for n in placeholders(part.graph)], ())
    with whole.graph.inserting_before(node):
        new = whole.graph.call_function(_Stage(f"stage_{node.name}", step, single), node.args)
    node.replace_all_uses_with(new)
    whole.graph.erase_node(node)
