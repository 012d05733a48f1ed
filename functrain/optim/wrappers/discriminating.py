"""Discriminative learning rates: each group of parameters its own, often smaller the deeper it lies."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from functrain.errors import InvalidArgument
from functrain.optim.hypers import nonnegative
from functrain.optim.transform import Transform, made_by
from functrain.optim.wrappers.claiming import Where
from functrain.optim.wrappers.partitioning import partition
from functrain.schedule import Hyper, Schedule
from functrain.schedule.hyper import is_number


def discriminative(
    make: Callable[[Hyper], Transform], lrs: Mapping[str, Hyper], where: Mapping[str, Where]
) -> Transform:
    """Return the transform that gives each group of parameters an optimizer with a learning rate of its own.

    It is a `partition` of one optimizer with several rates; "head.lr" is the rate of the group "head".

    Args:
        make: lr -> an optimizer, such as `optim.adamw` or `lambda lr: optim.sgd(lr, momentum=0.9)`.
        lrs: the learning rate of each group by name, a number or a schedule; see `spread`.
        where: what each group claims, by name, as in `partition`.

    Raises:
        InvalidArgument: a rate is out of range, make gives no transform, or the names of both differ. In `init`, a
            leaf belongs to no group or to several, or a pattern matches nothing.

    Reference: Howard and Ruder, Universal language model fine-tuning for text classification, ACL 2018, section 3.1.

    >>> import torch
    >>> from functrain import optim
    >>> tuned = discriminative(optim.sgd, {"body": 0.01, "head": 0.1}, {"body": "0.*", "head": ...})
    >>> params = {"0": {"bias": torch.ones(1)}, "1": {"bias": torch.ones(1)}}
    >>> tuned.update(params, tuned.init(params), params)[0]
    {'0': {'bias': tensor([-0.0100])}, '1': {'bias': tensor([-0.1000])}}
    """
    return partition({name: made_by(make, lr) for name, lr in lrs.items()}, where)


def spread(
    names: Sequence[str], lr: Hyper, factor: float | None = None, first: float | None = None
) -> dict[str, Hyper]:
    """Return a learning rate for each group, in a geometric sequence over depth.

    Args:
        names: the groups, from the input of the model to its head.
        lr: the rate of the last group, a number or a schedule.
        factor: the rate of each group divided by that of the next one, positive; 1 / 2.6 in ULMFiT.
        first: instead of factor, the rate of the first group, positive; fastai's `slice(first, lr)`. lr must be a
            number then.

    Raises:
        InvalidArgument: there is no name or one twice; lr is out of range; not one of factor and first is there, or it
            is not positive; or first comes with a schedule.

    See also: `discriminative`.

    >>> spread(["stem", "body", "head"], 1e-2, first=1e-4)
    {'stem': 0.0001, 'body': 0.001, 'head': 0.01}
    >>> from functrain import schedule
    >>> spread(["body", "head"], schedule.linear(0.1, 0.0), factor=0.5)["body"]
    0.5 * linear(0.1, 0.0)  ██▇▇▆▆▅▅▄▄▃▃▂▂▁▁
    """
    nonnegative(lr=lr)
    if not names or isinstance(names, str) or len(set(names)) != len(names):
        raise InvalidArgument(f"names must be the groups' names, each once, got {names!r}")
    if (factor is None) == (first is None):
        raise InvalidArgument(f"spread needs either factor or first, got factor={factor!r} and first={first!r}")
    if factor is not None:
        _positive("factor", factor)
        return {group: lr * factor**depth if depth else lr for group, depth in _depths(names)}
    start = _positive("first", first)
    if isinstance(lr, (Schedule, Tensor)) or not lr > 0:
        raise InvalidArgument(f"with first, lr must be a positive number, got {lr!r}; with a schedule give factor")
    steps = max(len(names) - 1, 1)
    return {group: lr * (start / lr) ** (depth / steps) for group, depth in _depths(names)}


def _positive(name: str, number: Any) -> float:
    if not is_number(number) or not 0 < number < math.inf:
        raise InvalidArgument(f"{name} must be a positive number, got {number!r}")
    return number


def _depths(names: Sequence[str]) -> list[tuple[str, int]]:
    return [(name, len(names) - 1 - index) for index, name in enumerate(names)]
