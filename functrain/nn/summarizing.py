"""A table of a model's layers: what they return, how many parameters they hold, how much they compute."""

from typing import Any

import attrs
import torch
from torch import Tensor
from torch.fx import Node
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from functrain import random, tree
from functrain.engine.tracing.recording import recording
from functrain.engine.tracing.to_graph import trace
from functrain.nn.functions import as_model
from functrain.nn.mode import Mode
from functrain.nn.model import Model
from functrain.nn.observing import observe
from functrain.records import reprs, showing


@attrs.frozen(repr=False)
class LayerSummary:
    """One row of a summary.

    Attributes:
        path: the dotted path of the layer; "" for the model.
        kind: what it is.
        output: the shape of what it returns, or the shapes.
        parameters: how many parameters it holds, those of its parts counted.
        share: the part of the model's parameters that they are.
        multiply_adds: how many multiplications with additions it makes for the example, those of its parts counted.
    """

    path: str
    kind: str
    output: str
    parameters: int
    share: float
    multiply_adds: int

    __repr__ = reprs.record


@attrs.frozen(repr=False)
class Summary:
    """What `summary` returns; it shows as a table.

    Attributes:
        rows: a `LayerSummary` for each layer in the order in which they return, the model last.
    """

    rows: tuple[LayerSummary, ...]

    def __repr__(self) -> str:
        rows = [_COLUMNS, *(_cells(row) for row in self.rows)]
        return showing.columns(rows, right=[False] * 3 + [True] * 3)

    def _repr_html_(self) -> str:
        return showing.html_table(_COLUMNS, [_cells(row) for row in self.rows])


_COLUMNS = ("path", "kind", "output", "parameters", "share", "multiply-adds")


def _cells(row: LayerSummary) -> tuple[str, ...]:
    numbers = f"{row.parameters:,}", f"{row.share:.1%}", f"{row.multiply_adds:,}"
    return row.path or "(all)", row.kind, row.output, *numbers


def summary(model: Model, example: Any) -> Summary:
    """Return a table of a model's layers.

    The model is initialised and evaluated on tensors without memory: nothing is computed.

    Args:
        model: any model: of functrain's layers, or `from_module`.
        example: an input, whose shapes count.

    Returns:
        A `Summary`, which shows as a table, in a notebook too; its `rows` are records. Multiply-adds are those of
        matrix products, convolutions and attention, by PyTorch's own formulas.

    Raises:
        NotTraceable: the model decides in Python by the values of a tensor.

    >>> from functrain import nn
    >>> summary(nn.serial(nn.dense(50), nn.relu, head=nn.dense(10)), torch.zeros(64, 784))
    path   kind    output    parameters   share  multiply-adds
    0      dense   (64, 50)      39,250   98.7%      2,508,800
    1      relu    (64, 50)           0    0.0%              0
    head   dense   (64, 10)         510    1.3%         32,000
    (all)  serial  (64, 10)      39,760  100.0%      2,540,800
    """
    model = as_model("model", model)
    leaves, spec = tree.flatten(example)
    where = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    seen = _Seen()
    held: list[Any] = []

    def run(key: Tensor, *tensors: Tensor) -> list[Tensor]:
        filled = list(leaves)
        for k, tensor in zip(where, tensors, strict=True):
            filled[k] = tensor
        x = tree.unflatten(spec, filled)
        params, buffers = model.init(key, x)
        held.append(tree.map(lambda leaf: leaf.numel(), params))
        seen.enter(())
        with observe(seen):
            y, _ = model.apply(params, buffers, x, Mode(key=key))  # a key for what draws in evaluation too
        seen.leave((), model, y)
        return []

    graph = trace(run, [random.key(0), *(leaves[k] for k in where)]).gm.graph
    return Summary(_rows(seen, held[0], _so_far(list(graph.nodes))))


class _Seen:
    """Notes what each layer returned, and how many operations had been recorded before and after it."""

    def __init__(self) -> None:
        self.layers: list[tuple[str, str, str, int, int]] = []
        self._began: dict[tuple, int] = {}

    def enter(self, path: tuple[Any, ...]) -> None:
        self._began[path] = _record()

    def leave(self, path: tuple[Any, ...], layer: Any, y: Any) -> None:
        name = ".".join(map(str, path))
        self.layers.append((name, kind_of(layer), _shapes(y), self._began[path], _record()))


def _record() -> int:
    current = recording()
    return 0 if current is None else len(current.graph.nodes)


def _shapes(y: Any) -> str:
    shapes = [str(tuple(leaf.shape)) for leaf in tree.leaves(y) if isinstance(leaf, Tensor)]
    return ", ".join(shapes[:3]) + (", ..." if len(shapes) > 3 else "")


def kind_of(layer: Any) -> str:
    """Return what a layer is in a word: the function that made it, or the class of a module.

    >>> from functrain import nn
    >>> kind_of(nn.dense(3)), kind_of(nn.serial(nn.tanh)), kind_of(torch.nn.Linear(1, 1))
    ('dense', 'serial', 'Linear')
    """
    if isinstance(layer, torch.nn.Module):
        return type(layer).__name__
    origin = getattr(layer.apply, "original", None)
    if origin is not None:
        return origin.kept.kind
    return layer.label.partition("(")[0]


def _rows(seen: _Seen, sizes: Any, so_far: list[int]) -> tuple[LayerSummary, ...]:
    by_path = dict(tree.leaves_with_path(sizes))
    total = sum(by_path.values())
    rows = []
    for path, kind, output, began, ended in seen.layers:
        own = sum(size for leaf, size in by_path.items() if not path or leaf.startswith(f"{path}."))
        rows.append(LayerSummary(path, kind, output, own, own / max(total, 1), so_far[ended] - so_far[began]))
    return tuple(rows)


def _so_far(nodes: list[Node]) -> list[int]:
    """Return how many multiply-adds the first n operations make, for each n."""
    total, so_far = 0, [0]
    for node in nodes:
        total += _multiply_adds(node)
        so_far.append(total)
    return so_far


def _multiply_adds(node: Node) -> int:
    args: Any = torch.fx.map_arg(node.args, lambda n: n.meta["val"])
    if "_scaled_dot_product_" in node.name:  # that of CPUs has no formula of its own
        return sdpa_flop_count(*(tuple(arg.shape) for arg in args[:3])) // 2
    formula = flop_registry.get(getattr(node.target, "overloadpacket", None))
    if formula is None:
        return 0
    kwargs = torch.fx.map_arg(node.kwargs, lambda n: n.meta["val"])
    return int(formula(*args, **kwargs, out_val=node.meta["val"])) // 2  # type: ignore
