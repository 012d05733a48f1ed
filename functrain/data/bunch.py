"""All the data of a task: the loaders to train and to validate with, and a first look at a batch."""

from typing import Any

import attrs
from torch import Tensor

from functrain import arguments, foreign, random
from functrain.data.batch import Batch
from functrain.data.dataset import Dataset
from functrain.data.loading import Loader, batches, loader
from functrain.data.sampler import sequential, shuffled
from functrain.errors import InvalidArgument
from functrain.records import reprs


def loaders(train: Dataset, valid: Dataset, batch_size: int, remainder: str = "keep") -> tuple[Loader, Loader]:
    """Return a shuffled loader to train on and a sequential one to validate on, with batches twice as large.

    Validation stores no gradients, so twice the batch takes about the same memory.

    Args:
        train: the examples to train on.
        valid: the examples to validate on.
        batch_size: rows in a training batch.
        remainder: what becomes of a last training batch that is not full; validation keeps every example.

    >>> rows = [(0.5, 1)] * 10
    >>> [one.sampler.batch_size for one in loaders(rows, rows, batch_size=4)]
    [4, 8]
    """
    training = loader(train, shuffled(batch_size, remainder))
    return training, loader(valid, sequential(2 * batch_size, "pad" if remainder == "pad" else "keep"))


def one_batch(loader: Loader, key: Tensor | None = None) -> Batch:
    """Return the first batch of the first epoch, to look at, or to try a model on.

    Args:
        loader: the loader.
        key: the random key that decides the order; None for `random.key(0)`.

    >>> one_batch(loader([(0.1, 7), (0.2, 8), (0.3, 9)], sequential(2))).target
    tensor([7, 8])
    """
    return next(batches(loader, random.key(0) if key is None else key))


def _check_loader(_bunch: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, Loader):
        raise InvalidArgument(f"{attribute.name} must be made by data.loader, got {foreign.in_words(value)}")


def _check_count(_bunch: Any, attribute: Any, value: Any) -> None:
    arguments.whole(attribute.name, value)


@attrs.frozen(repr=False)
class Bunch:
    """All the data of a task in one place: the lesson's DataBunch.

    Attributes:
        train: the loader to train on.
        valid: the loader to validate on.
        n_out: how many outputs the model needs, such as the number of classes.

    >>> rows = [(0.5, 1)] * 10
    >>> Bunch(*loaders(rows, rows, batch_size=4), n_out=10).n_out
    10
    """

    train: Loader = attrs.field(validator=_check_loader)
    valid: Loader = attrs.field(validator=_check_loader)
    n_out: int = attrs.field(validator=_check_count)

    __repr__ = reprs.record
