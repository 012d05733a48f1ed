"""Fusing: several operations as one, for the backend that calls them one by one. It changes how results are rounded."""

import math
from typing import Any

import torch
from torch import Tensor

from functrain.engine.graph.passes.simplifying import GROUPED, VIEWS, remove_dead
from functrain.engine.graph.queries import replace
from functrain.engine.tracing.meta.geometry import same_layout

aten = torch.ops.aten


def fuse(gm: Any) -> Any:
    """Return the graph with `a + number * b` as one operation, and sums without the axis that a view drops.

    The first rounds once where the two operations round twice, as PyTorch's own optimizers do. Where b is a matrix
    product, such as a gradient that only goes into a parameter or its momentum, it is added as it is computed.
    """
    for node in list(gm.graph.nodes):
        if node.target in (aten.add.Tensor, aten.sub.Tensor):
            _fuse_scaled(node)
            _fuse_product(node)
        elif node.target in VIEWS:
            _fuse_sum(node)
    remove_dead(gm)
    return gm


def _fuse_scaled(node: Any) -> None:
    if node.kwargs:
        return
    choices = (1, 0) if node.target is aten.add.Tensor else (1,)
    for k in choices:
        product, other = node.args[k], node.args[1 - k]
        if not (_is_scaled(product) and isinstance(other, torch.fx.Node)) or other is product:
            continue
        value = node.meta["val"]
        values = [n.meta.get("val") for n in (product, product.args[0], other)]
        alike = all(isinstance(v, Tensor) and v.dtype == value.dtype for v in values)
        if value.is_floating_point() and alike and _is_exact(product.args[1], value.dtype):
            node.args, node.kwargs = (other, product.args[0]), {"alpha": product.args[1]}
            node.graph.erase_node(product)
            return


def _fuse_product(node: Any) -> None:
    value = node.meta["val"]
    if not value.is_floating_point() or value.numel() <= GROUPED or not isinstance(node.args[1], torch.fx.Node):
        return
    (first, second), factor = node.args, node.kwargs.get("alpha", 1)
    factor = -factor if node.target is aten.sub.Tensor else factor
    if not _is_exact(factor, value.dtype):
        return
    if factor == 0:  # addmm does not compute what it multiplies by zero, so that NaN in it is lost
        return
    for product, other, factors in ((second, first, {"alpha": factor}), (first, second, {"beta": factor})):
        alone = product.target is aten.mm.default and len(product.users) == 1 and other is not product
        if alone and same_layout(other.meta.get("val"), value) and same_layout(product.meta.get("val"), value):
            node.target, node.args, node.kwargs = aten.addmm.default, (other, *product.args), factors
            return


def _is_exact(number: float, dtype: torch.dtype) -> bool:
    """Return whether a factor is the same in a dtype: a product takes it as it is, `alpha` is rounded or refused."""
    if dtype in (torch.float32, torch.float64):
        return not abs(number) > torch.finfo(dtype).max or math.isinf(number)
    return abs(number) <= torch.finfo(dtype).max and float(torch.tensor(number, dtype=dtype)) == number


def _is_scaled(node: Any) -> bool:
    return (
        isinstance(node, torch.fx.Node)
        and node.target is aten.mul.Tensor
        and len(node.users) == 1
        and isinstance(node.args[1], (int, float))
        and not isinstance(node.args[1], bool)
    )


def _fuse_sum(node: Any) -> None:
    total = node.args[0]
    if total.target is not aten.sum.dim_IntList or total.args[2:] != (True,) or total.kwargs or len(total.users) > 1:
        return
    kept = total.meta["val"]
    axes = {a % kept.dim() for a in total.args[1] or range(kept.dim())}
    if [n for k, n in enumerate(kept.shape) if k not in axes] == list(node.meta["val"].shape):
        with node.graph.inserting_before(node):
            short = node.graph.call_function(aten.sum.dim_IntList, (total.args[0], total.args[1]))
        short.meta["val"] = node.meta["val"]
        replace(node, short)
