"""Updates that are made only where they agree with the gradient."""

from typing import Any

from torch import Tensor

from functrain.errors import InvalidArgument
from functrain.optim.context import Context
from functrain.optim.hypers import check_fixed
from functrain.optim.leaves import per_leaf
from functrain.optim.transform import Transform, check_transform
from functrain.records import reprs
from functrain.schedule import Number


def cautious(optimizer: Transform, least: Number = 1e-3) -> Transform:
    """Return the optimizer whose updates are 0 where they do not go against the gradient, and larger elsewhere.

    With mask = 1 where the update goes down (its sign is not that of the gradient) and 0 elsewhere, the update of each
    array becomes u mask / max(mean of mask, least). (Liang et al., 2024, https://arxiv.org/abs/2411.16085.)

    Weight decay inside of it is masked as well; the authors leave it out of the mask, as `cautious_adamw` and
    `cautious_lion` do. For a piece before the learning rate, whose updates have the gradient's direction, see
    `scale_by_caution`.

    Args:
        optimizer: a whole optimizer, whose updates are added to the parameters.
        least: above 0, the least mean of the mask that counts.

    Raises:
        InvalidArgument: the optimizer is no transform, or a call of it may make no update, as in `accumulate`, which
            belongs around it: another gradient would be compared; or `least` is not above 0.

    >>> import torch
    >>> from functrain import optim
    >>> careful, params = cautious(optim.sgd(1.0, momentum=0.9)), {"w": torch.zeros(2)}
    >>> _, state = careful.update({"w": torch.tensor([1.0, 1.0])}, careful.init(params), params)
    >>> careful.update({"w": torch.tensor([1.0, -0.1])}, state, params)[0]
    {'w': tensor([-3.8000, -0.0000])}
    """
    return _mask("cautious", optimizer, least, -1)


def scale_by_caution(piece: Transform, least: Number = 1e-3) -> Transform:
    """Return the piece whose updates are 0 where they have not the sign of what comes in, and larger elsewhere.

    For a piece before the learning rate; around a whole optimizer it would leave just the wrong half, see `cautious`.

    Args:
        piece: whose updates have the gradient's direction: `scale_by_adam()`, `trace(0.9)`.
        least: above 0, the least mean of the mask that counts.

    Raises:
        InvalidArgument: as in `cautious`.

    >>> import torch
    >>> from functrain import optim
    >>> careful, params = scale_by_caution(optim.trace(0.9)), {"w": torch.zeros(2)}
    >>> _, state = careful.update({"w": torch.tensor([1.0, 1.0])}, careful.init(params), params)
    >>> careful.update({"w": torch.tensor([1.0, -0.1])}, state, params)[0]
    {'w': tensor([3.8000, 0.0000])}
    """
    return _mask("scale_by_caution", piece, least, 1)


def _mask(word: str, transform: Transform, least: Number, direction: int) -> Transform:
    check_transform(transform)
    if not check_fixed(least=least)["least"] > 0:
        raise InvalidArgument(f"least must be above 0, got {least!r}")
    if transform.made is not None:
        raise InvalidArgument(
            f"{word}: a call of {transform!r} may make no update, and then what comes in is not the gradient of the "
            f"next; put it around: accumulate(k, {word}(...))"
        )

    def formula(now, u: Tensor, g: Tensor) -> Tensor:
        agrees = (u.sign() * g.sign() * direction > 0).to(u.dtype)
        return u * (agrees / agrees.mean().clamp(min=least))

    masking = per_leaf(word, formula)

    def update(updates: Any, state: Any, params: Any, context: Context) -> tuple[Any, Any]:
        made, after = transform.update(updates, state, params, context)
        return masking.update(made, (), updates, context)[0], after

    return Transform(
        transform.init,
        update,
        transform.hypers,
        needs=transform.needs,
        label=lambda: f"{word}({transform!r}, least={reprs.short(least)})",
        pieces=transform,
    )
