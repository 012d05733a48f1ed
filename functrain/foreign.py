"""What comes from torch, or from a library around it, where functrain's own is expected: the way in, in words."""

from types import FunctionType
from typing import Any

from functrain.records import reprs

_WAYS = (
    ("torch.nn.modules.loss._Loss", "functrain's losses are functions, such as losses.cross_entropy"),
    ("torchmetrics.metric.Metric", "metrics.mean(f) makes a metric of a function of (prediction, target)"),
    ("torch.nn.modules.module.Module", "nn.from_module(module) makes a model of a torch Module"),
    ("torch.optim.lr_scheduler.LRScheduler", "a schedule stands where the number would: lr=schedule.cosine(0.1, 0.0)"),
    ("torch.optim.optimizer.Optimizer", "functrain's optimizers are values, such as optim.adamw(lr=1e-3)"),
    ("torch.utils.data.dataloader.DataLoader", "a DataLoader goes to fit itself: train=loader, valid=loader"),
    ("torch.utils.data.sampler.Sampler", "functrain's samplers are data.shuffled(batch_size) and data.sequential"),
    ("torch.utils.data.dataset.Dataset", "data.loader(dataset, data.shuffled(batch_size)) takes a torch Dataset"),
    ("torch._C.Generator", "randomness comes from a key: random.key(seed)"),
)
"""Class, by its full name so that nothing is imported for it -> the way in."""


def way_in(value: Any) -> str:
    """Return the end of an error message: where a thing of torch belongs, or what takes its place; "" for others.

    >>> import torch
    >>> way_in(torch.nn.Linear(2, 3)), way_in(3)
    ('; nn.from_module(module) makes a model of a torch Module', '')
    """
    kind = value if isinstance(value, type) else type(value)
    names = {f"{each.__module__}.{each.__qualname__}" for each in kind.__mro__}
    return next((f"; {way}" for name, way in _WAYS if name in names), "")


def in_words(value: Any) -> str:
    """Return what came in a few words, and the way in where it is a thing of torch.

    >>> in_words(3)
    '3'
    """
    kind = "the class " if isinstance(value, type) else "the function " if isinstance(value, FunctionType) else ""
    return f"{kind}{reprs.short(value)}{way_in(value)}"
