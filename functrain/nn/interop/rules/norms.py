"""Running statistics by value: batch norm and instance norm hand back new ones instead of changing the old."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from functrain.dispatch_state import is_transformed
from functrain.errors import ShapeMismatch
from functrain.nn.interop.rules.running import Running, rule
from functrain.nn.layers.batch_normalization import check_several, normalise, normalise_weighted

_NAMES = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


@rule(F.batch_norm, torch.batch_norm)
def _batch_norm(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    names = _NAMES if func is F.batch_norm else ("input", "weight", "bias", "running_mean", "running_var", *_NAMES[5:])
    bound = dict(zip(names, args, strict=False)) | kwargs
    run.check([*bound.values()])
    if not bound.get("training", False):
        if run.mode.train:
            _read.setdefault(run, set()).update((id(bound.get("running_mean")), id(bound.get("running_var"))))
        return func(*args, **kwargs)
    mean, var = bound.get("running_mean"), bound.get("running_var")
    momentum = bound.get("momentum", 0.1)
    weight = run.mode.weight
    if weight is None and not is_transformed() and not isinstance(momentum, Tensor):
        # The buffers are copies, so PyTorch's own function may write to them; it only does not say so.
        if run in _read:
            args, kwargs, mean, var = _with_new(run, args, kwargs, mean, var)
        for statistic in (mean, var):
            run.touched.add(id(statistic))
            if id(statistic) not in run.slots:
                run.guard(statistic, "batch_norm")
        return func(*args, **kwargs)
    x, options = bound["input"], (bound.get("weight"), bound.get("bias"), bound.get("eps", 1e-5))
    check_several(x)
    if weight is None:
        y, new_mean, new_var, counts = normalise(x, *options)
    else:
        _check_rows(run, x, weight)
        y, new_mean, new_var, counts = normalise_weighted(x, weight, *options)
    if mean is not None and var is not None:
        _move(run, mean, new_mean, momentum, counts)
        _move(run, var, new_var, momentum, counts)
    return y


_read: WeakKeyDictionary[Running, set[int]] = WeakKeyDictionary()
"""The ids of statistics that batch norm at rest has read in an application that trains: gradients need these values.

PyTorch writes over them, counts no such write, and then takes the gradients by the new ones.
"""


def _with_new(run: Running, args: tuple, kwargs: dict[str, Any], *statistics: Any) -> tuple:
    """Return arguments and statistics with a copy, which now is the buffer, in the place of each that has been read."""
    new = {id(old): old.clone() for old in statistics if id(old) in _read[run] and id(old) in run.slots}
    for old in statistics:
        if id(old) in new:
            run.rebind(old, new[id(old)])
    swapped = {name: new.get(id(arg), arg) for name, arg in kwargs.items()}
    return tuple(new.get(id(arg), arg) for arg in args), swapped, *(new.get(id(old), old) for old in statistics)


def _check_rows(run: Running, x: Tensor, weight: Tensor) -> None:
    if x.shape[:1] != weight.shape:
        raise ShapeMismatch(
            f"from_module: {run.place() or 'the module'} normalises over a batch of {x.shape[0]} rows, and the batch "
            f"has the weights of {weight.shape[0]} examples; weights need one row an example: use batches without "
            "weights (full ones, no padding)"
        )


def _move(run: Running, old: Tensor, new: Tensor, momentum: Any, counts: Any) -> None:
    """Move a running statistic towards that of the batch, unless the batch has none that counts."""
    part = momentum if not isinstance(counts, Tensor) else counts.to(old.dtype) * momentum
    run.rebind(old, old + (new.detach().to(old.dtype) - old) * part)


@rule(F.instance_norm, torch.instance_norm)
def _instance_norm(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    names = (*_NAMES[:5], "use_input_stats", "momentum", "eps")
    if func is torch.instance_norm:
        names = ("input", "weight", "bias", "running_mean", "running_var", "use_input_stats", "momentum", "eps")
    bound = dict(zip(names, args, strict=False)) | kwargs
    run.check([*bound.values()])
    mean, var = bound.get("running_mean"), bound.get("running_var")
    if mean is None or var is None or not bound.get("use_input_stats", True):
        return func(*args, **kwargs)
    x = bound["input"]
    y = F.instance_norm(x, None, None, bound.get("weight"), bound.get("bias"), True, 0.0, bound.get("eps", 1e-5))
    space = x.detach().flatten(2)
    for old, new in ((mean, space.mean(2)), (var, space.var(2))):
        _move(run, old, *_over_batch(run, new, bound.get("momentum", 0.1)))
    return y


def _over_batch(run: Running, values: Tensor, momentum: float) -> tuple[Tensor, Any, Any]:
    """Return the mean over the rows, the momentum, and whether it counts: 0 for a batch without weight."""
    weight = run.mode.weight
    if weight is None:
        return values.mean(0), momentum, 1
    _check_rows(run, values, weight)
    total = weight.sum()
    share = (weight / torch.where(total > 0, total, 1.0)).to(values.dtype)
    return share @ values.masked_fill((weight == 0).unsqueeze(1), 0), momentum, total > 0


def cumulative(module: Any, x: Tensor) -> Tensor:
    """Return batch norm with `momentum=None`: the mean over all batches, whose count stays a tensor.

    It stands for `forward` in the copies of such modules, whose own asks for the count as a Python number.
    """
    module._check_input_dim(x)
    statistics = module.running_mean, module.running_var
    if not module.training:
        return F.batch_norm(x, *statistics, module.weight, module.bias, False, 0.0, module.eps)
    count = module.num_batches_tracked
    count.add_(1)
    options = (module.weight, module.bias, True)
    return F.batch_norm(x, *statistics, *options, 1.0 / count.to(torch.float32), module.eps)
