"""A draw is one operation in a trace, which expands to parts with the same bits."""

import pytest
import torch
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx

from functrain import random
from functrain.engine.graph.expanding import expand as expanded_graph
from functrain.engine.tracing.abstract_tensor import storage_of
from functrain.engine.tracing.to_graph import trace
from functrain.random import leaf
from functrain.random.words import CHUNK, FEW, FOLD


def operations(graph):
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


MANY = 4 * CHUNK + 5
ONE, THREE = random.key(7), random.split(random.key(7), 3)
WORDS, FLOATS = torch.int64, torch.float32

LEAVES = {
    "words": (leaf.draw, (ONE, (5, 3), "words", [], WORDS)),
    "words of many": (leaf.draw, (ONE, (MANY,), "words", [], WORDS)),
    "words of keys": (leaf.draw, (THREE, (2, 3), "words", [], WORDS)),
    "words of the second stream": (leaf.draw, (ONE, (5,), "words", [], WORDS, 1)),
    "wide": (leaf.draw, (ONE, (5, 3), "wide", [], WORDS)),
    "halves": (leaf.draw, (ONE, (MANY,), "halves", [], torch.int16)),
    "fraction": (leaf.draw, (ONE, (MANY,), "fraction", [], FLOATS)),
    "fraction of float64": (leaf.draw, (ONE, (MANY,), "fraction", [], torch.float64)),
    "uniform": (leaf.draw, (ONE, (5, 3), "uniform", [-1.0, 3.0], torch.bfloat16)),
    "open": (leaf.draw, (ONE, (9,), "open", [], FLOATS)),
    "signed": (leaf.draw, (ONE, (9,), "signed", [], FLOATS)),
    "small": (leaf.draw, (ONE, (9,), "small", [], FLOATS)),
    "randint": (leaf.draw, (ONE, (9,), "randint", [-3, 9], WORDS)),
    "mask": (leaf.draw, (ONE, (MANY,), "mask", [100, 2.0], FLOATS)),
    "mask of keys": (leaf.draw, (THREE, (4, 5), "mask", [100, 2.0], FLOATS)),
    "truth": (leaf.bernoulli, (ONE, (MANY,), 2**47 + 2**46 + 12345)),
    "truth of keys": (leaf.bernoulli, (THREE, (4, 5), 2**47)),
    "truth by a limit": (leaf.bernoulli, (ONE, (MANY,), torch.tensor(2**47 + 12345))),
    "truth by limits": (leaf.bernoulli, (ONE, (2, 3), torch.tensor([2**40, 2**46 + 1, 2**47]))),
    "split": (leaf.children, (ONE, 3)),
    "split of keys": (leaf.children, (THREE, FEW + 1)),
    "fold": (leaf.child, (ONE, -3, 11, FOLD)),
    "fold of a tensor": (leaf.child, (ONE, torch.tensor(-3), 11, FOLD)),
    "fold of tensors": (leaf.child, (THREE, torch.arange(6).view(2, 3), 11, FOLD)),
}


@pytest.mark.parametrize("name", LEAVES)
def test_a_trace_records_one_operation_which_expands_to_the_same_bits(name):
    f, arguments = LEAVES[name]
    where = [k for k, a in enumerate(arguments) if isinstance(a, torch.Tensor)]
    tensors = [arguments[k] for k in where]

    def run(*given):
        return f(*(dict(zip(where, given, strict=True)).get(k, a) for k, a in enumerate(arguments)))

    graph = make_fx(run, tracing_mode="fake")(*tensors)
    op, *others = operations(graph)
    assert op in leaf.KERNELS and others == []
    wanted, order = run(*tensors), arguments
    if f is leaf.bernoulli and isinstance(arguments[2], torch.Tensor):  # the tensors come first
        order = (arguments[0], arguments[2], arguments[1])
    assert torch.equal(leaf.PURE[op](*order), wanted) and torch.equal(leaf.KERNELS[op](*order), wanted)
    torch.library.opcheck(op, order, test_utils=("test_schema", "test_faketensor"))
    found = trace(lambda *given: [run(*given)], tensors)
    assert operations(found.gm) == [op]
    expand = expanded_graph(found.gm)
    assert not leaf.PURE.keys() & set(operations(expand))
    assert torch.equal(expand(*tensors)[0], wanted)


def test_expanded_operations_share_no_memory():
    def twice(a, b):
        return [random.uniform(a, (8,)), random.uniform(b, (8,))]

    keys = random.split(random.key(0))
    graph = expanded_graph(trace(twice, list(keys)).gm)
    first, second = next(n for n in reversed(graph.graph.nodes) if n.op == "output").args[0]
    memory = [storage_of(value.meta["val"]) for value in (first, second)]
    assert memory[0] != memory[1]
    assert all(map(torch.equal, graph(*keys), twice(*keys)))


def test_only_the_operations_that_are_asked_for_are_expanded():
    found = trace(lambda key: [random.bits(random.fold_in(key, 1), 3)], [random.key(0)])
    folds = [op for op in leaf.PURE if "fold" in op._schema.name]
    graph = expanded_graph(found.gm, lambda node: node.target in folds)
    found = leaf.PURE.keys() & set(operations(graph))
    assert [op._schema.name for op in found] == ["functrain::philox_draw"]


def test_one_operation_is_recorded_inside_grad_and_none_inside_vmap():
    key, x = random.key(0), torch.ones(3)

    def loss(x, key):
        return (x * random.uniform(random.fold_in(key, "layer"), (3,))).sum()

    graph = make_fx(torch.func.grad(loss), tracing_mode="fake")(x, key)
    assert len(leaf.KERNELS.keys() & set(operations(graph))) == 2
    assert torch.equal(graph(x, key), random.uniform(random.fold_in(key, "layer"), (3,)))
    assert torch.equal(torch.func.grad(loss)(x, key), graph(x, key))
    mapped = make_fx(vmap(loss, (None, 0)), tracing_mode="fake")(x, key[None])
    assert not leaf.KERNELS.keys() & set(operations(mapped))


@pytest.mark.parametrize("dims", [(0, 0), (1, None), (None, 0), (0, 1), (None, 1)])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_a_traced_fold_maps_over_keys_and_numbers(dims, shape):
    keys, numbers = random.split(random.key(0), 3), torch.arange(3 * 4).view(3, 4)
    numbers = numbers if shape else numbers[:, 0]
    keys = {None: keys[0], 0: keys, 1: keys.T}[dims[0]]
    numbers = {None: numbers[0], 0: numbers, 1: numbers.T if shape else numbers}[dims[1]]
    dims = (dims[0], min(dims[1], numbers.dim() - 1) if dims[1] is not None else None)
    one = [t if d is None else t.select(d, 0) for t, d in zip((keys, numbers), dims, strict=True)]
    graph = make_fx(random.fold_in, tracing_mode="fake")(*one)
    assert torch.equal(vmap(graph, dims)(keys, numbers), vmap(random.fold_in, dims)(keys, numbers))
