"""From values to numbers: the weighted mean that trains, its gradient, and losses of named parts."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from functrain import tree, weighted
from functrain.errors import InvalidArgument, NotATensor


def weighted_mean(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the weighted mean of a loss's values: sum(weight * value) / sum(weight).

    Examples of zero weight have no influence on it, nor any gradient, even where their value is NaN. When all
    weights are zero the mean is 0, with a gradient of zero: such a batch asks for no change.

    Args:
        values: (n, ...), what a loss gives.
        weight: (n,), not negative, counted for each of an example's values; or of more leading axes of the values, such
            as (n, time). None counts all alike.

    Returns:
        A scalar in float32 at least, in which the sums are taken too.

    Raises:
        ShapeMismatch: the values are a scalar already, or the weight does not fit.
        DtypeMismatch: the values are complex.

    >>> import torch
    >>> weighted_mean(torch.tensor([1.0, 3.0]))
    tensor(2.)
    >>> weighted_mean(torch.tensor([1.0, 3.0, float("nan")]), torch.tensor([3.0, 1.0, 0.0]))
    tensor(1.5000)
    """
    weighted.check_values(values)
    if weight is None:
        return values.mean(dtype=weighted.wide(values.dtype))
    total, mass = weighted.total(values, weight)
    return total / (mass + (mass == 0))


def shares(values: Tensor, weight: Tensor | None = None) -> Tensor | float:
    """Return the part that each value has in `weighted_mean`, its gradient by the values: weight / sum(weight).

    Args:
        values: (n, ...), what a loss gives.
        weight: as in `weighted_mean`.

    Returns:
        As many numbers, of the same dtype, all zero where all weights are; one number for all values without weight.

    Raises:
        ShapeMismatch: the values are a scalar already, or the weight does not fit.
        DtypeMismatch: the values are complex.

    >>> import torch
    >>> shares(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([3.0, 1.0, 0.0]))
    tensor([0.7500, 0.2500, 0.0000])
    >>> shares(torch.tensor([1.0, 3.0, 2.0, 2.0]))
    0.25
    """
    weighted.check_values(values)
    if weight is None:
        return 1 / max(values.numel(), 1)
    spread, mass = weighted.spread_over(values, weight)
    return (spread * (1 / (mass + (mass == 0)))).to(values.dtype).expand(values.shape)


def mass(values: Tensor, weight: Tensor | None = None) -> Tensor | float:
    """Return the weight of all values, by which `weighted_mean` divides: what a batch counts among other batches.

    The mean over several batches is the mean of their means weighted by this, also where their values have other axes
    (sequences of another length); `optim.Context.weight` is this.

    Args:
        values: (n, ...), what a loss gives.
        weight: as in `weighted_mean`.

    Returns:
        A scalar in float32 at least; without weight the number of values, a plain number.

    Raises:
        ShapeMismatch, DtypeMismatch: as in `weighted_mean`.

    >>> import torch
    >>> mass(torch.zeros(2, 3)), mass(torch.zeros(2, 3), torch.tensor([1.0, 0.5]))
    (6.0, tensor(4.5000))
    """
    weighted.check_values(values)
    return float(values.numel()) if weight is None else weighted.spread_over(values, weight)[1]


def by_name(result: Any) -> dict[str, Tensor]:
    """Return what a loss gave as a dict of named values, of which "loss" is the one that trains.

    A loss returns its values; or a dict of values by name, such as {"loss": a + b, "reconstruction": a, "kl": b}, whose
    other parts are recorded. Each is reduced with the batch's weights.

    Args:
        result: what a loss returned: a tensor (n, ...), or a dict of such.

    Returns:
        A dict with "loss" first.

    Raises:
        NotATensor: the result, or a part, is no tensor.
        InvalidArgument: there is no part "loss", or a name is no string.
        ShapeMismatch, DtypeMismatch: a part is a scalar, or complex.

    >>> import torch
    >>> by_name(torch.ones(2))
    {'loss': tensor([1., 1.])}
    >>> list(by_name({"penalty": torch.ones(2), "loss": torch.ones(2)}))
    ['loss', 'penalty']
    """
    if isinstance(result, Tensor):
        weighted.check_values(result)
        return {"loss": result}
    if not isinstance(result, Mapping):
        raise NotATensor(
            "a loss must return a tensor with one value per target, or a dict of such tensors by name, got "
            f"{tree.describe(result)}"
        )
    if "loss" not in result:
        names = ", ".join(map(repr, result)) or "nothing"
        raise InvalidArgument(f"the parts of a loss must hold 'loss', the values that train; got {names}")
    parts = {"loss": result["loss"], **{name: part for name, part in result.items() if name != "loss"}}
    for name, part in parts.items():
        _check_part(name, part)
    return parts


def _check_part(name: Any, part: Any) -> None:
    if not isinstance(name, str):
        raise InvalidArgument(f"the parts of a loss must be named by strings, got {name!r}")
    if not isinstance(part, Tensor):
        raise NotATensor(f"the part {name!r} of a loss must be a tensor (n, ...), got {tree.describe(part)}")
    weighted.check_values(part, f"the part {name!r} of a loss")


def widen(x: Tensor) -> Tensor:
    """Return a tensor in float32 or wider, in which losses are computed.

    >>> import torch
    >>> widen(torch.ones(1, dtype=torch.bfloat16))
    tensor([1.])
    """
    dtype = weighted.wide(x.dtype)
    return x if x.dtype == dtype else x.to(dtype)


def times(factor: Tensor, value: Tensor) -> Tensor:
    """Return factor * value, where 0 * inf is 0, with gradients that are finite there: what has no share adds nothing.

    >>> import torch
    >>> times(torch.tensor([0.0, 0.5]), torch.tensor([float("inf"), 3.0]))
    tensor([0.0000, 1.5000])
    """
    # Only where the value is not finite: elsewhere the derivative by a factor of zero is the value.
    return factor * value.masked_fill((factor == 0) & ~value.isfinite(), 0)
