"""The loader: a dataset and a sampler make batches, from any epoch and step on."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import foreign, random, tree
from functrain.data import sampler as samplers
from functrain.data.batch import Batch, as_batch, check_weight, parts, shaped_batch
from functrain.data.collate import pad, stack
from functrain.data.dataset import ArrayDataset, Dataset, gather
from functrain.data.sampler import Sampler
from functrain.errors import InvalidArgument
from functrain.records import reprs

CHUNK = 65_536
"""Positions of an epoch whose indices are computed at once, where the sampler does not ask for all of them."""

GATHERED = 1 << 20
"""Bytes of rows that are gathered at once, if they are of more than one batch."""


def _check_dataset(_loader: Any, _attribute: Any, dataset: Any) -> None:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise InvalidArgument(
            f"dataset must have __len__ and __getitem__, got {type(dataset).__name__}; "
            f"put tensors in ArrayDataset((x, y)){foreign.way_in(dataset)}"
        )
    if len(dataset) == 0:
        raise InvalidArgument("the dataset is empty; a loader needs at least one example")


def _check_sampler(_loader: Any, _attribute: Any, sampler: Any) -> None:
    if not isinstance(sampler, Sampler):
        raise InvalidArgument(
            f"sampler must be made by data.sequential or data.shuffled, got {foreign.in_words(sampler)}"
        )


def _check_callable(loader: Any, attribute: Any, f: Any) -> None:
    if f is not None and not callable(f):
        raise InvalidArgument(f"{attribute.name} must be a function, got {f!r}")


@attrs.frozen(repr=False)
class Loader:
    """Where batches come from; made by `loader`. Its length is the number of batches in an epoch.

    It has no position of its own: `batches(loader, key, epoch, start)` yields from wherever you say.

    Attributes:
        dataset: the examples.
        sampler: which of them make up which batch.
        collate: a list of examples -> a tree with a new first axis.
        transform: (key, batch) -> batch, or None.

    >>> len(loader(ArrayDataset((torch.zeros(10, 2), torch.zeros(10))), samplers.sequential(3)))
    4
    """

    dataset: Dataset = attrs.field(validator=_check_dataset)
    sampler: Sampler = attrs.field(validator=_check_sampler)
    collate: Callable[[Sequence[Any]], Any] = attrs.field(default=stack, validator=_check_callable)
    transform: Callable[[Tensor, Batch], Batch] | None = attrs.field(default=None, validator=_check_callable)

    __repr__ = reprs.record

    def __attrs_post_init__(self) -> None:
        n, size = len(self.dataset), self.sampler.batch_size
        if len(self) == 0:
            raise InvalidArgument(
                f"the dataset has {n} examples, fewer than one batch of {size}, and remainder='drop' drops them all; "
                "use 'keep' or 'pad', or a smaller batch"
            )
        if self.collate is not stack:
            return
        if isinstance(self.dataset, ArrayDataset):
            check_weight(parts(self.dataset.arrays, "the tree of the ArrayDataset")[2], "the weights of the dataset")
        elif isinstance(self.dataset, (tuple, list, Tensor)):  # where looking at an example costs nothing
            hint = "; put tensors in ArrayDataset((x, y))" if isinstance(self.dataset[0], Tensor) else ""
            parts(self.dataset[0], "an example of the dataset", hint)

    def __len__(self) -> int:
        return samplers.steps_per_epoch(self.sampler, len(self.dataset))


def loader(
    dataset: Dataset,
    sampler: Sampler,
    collate: Callable[[Sequence[Any]], Any] = stack,
    transform: Callable[[Tensor, Batch], Batch] | None = None,
) -> Loader:
    """Return a loader of batches.

    Args:
        dataset: examples (input, target), (input, target, weight) or `Batch`: an `ArrayDataset((x, y))`, whose rows are
            gathered at once, or anything with `__len__` and `__getitem__`, whose examples are fetched one by one.
        sampler: `sequential(batch_size)` or `shuffled(batch_size)`.
        collate: makes a batch of a list of examples, a pair, a triple or a `Batch`: `stack`, `pad`, or one of your own.
        transform: a pure function (key, batch) -> batch, applied to each batch; its key is that batch's own. It may
            return a pair or a triple too.

    Returns:
        A `Loader`, whose `len` is the number of batches in an epoch.

    Raises:
        InvalidArgument: the dataset is empty, is no dataset, or has fewer rows than "drop" needs, or another argument
            is not what it should be.

    >>> train = loader(ArrayDataset((torch.zeros(10, 2), torch.arange(10))), samplers.shuffled(batch_size=4))
    >>> [len(batch.target) for batch in batches(train, random.key(0))]
    [4, 4, 2]
    """
    return Loader(dataset, sampler, collate, transform)


def batches(loader: Loader, key: Tensor | None = None, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
    """Yield the batches of one epoch, from any of them on; those before it cost nothing.

    Args:
        loader: the loader.
        key: the random key of all epochs; None will do where nothing is random.
        epoch: the epoch, from 0; each has its own order and draws.
        start: the first batch to yield, from 0.

    Yields:
        A `Batch` each; from a sequential sampler and an `ArrayDataset`, without a transform, views of its arrays. The
        weight is the dataset's, None where it has none; with remainder "pad" and a last batch that needs filling, it
        is a tensor in every batch, and zero for the rows that fill it.

    Raises:
        InvalidArgument: there is no such epoch or step, the examples are no pairs or triples, or a weight is negative
            or not finite.
        Exception: whatever the dataset raises, with a note that names the index of the example.

    >>> rows = ArrayDataset((torch.arange(10.0), torch.arange(10)))
    >>> [batch.target.tolist() for batch in batches(loader(rows, samplers.sequential(3)), start=2)]
    [[6, 7, 8], [9]]
    """
    samplers.check_range(loader.sampler, len(loader.dataset), epoch, start, len(loader))
    if key is not None:
        random.check_key(key)
    rows = _in_memory(loader)
    if rows is not None and loader.sampler.order is samplers.in_order and loader.transform is None:
        stream = _in_views(loader, rows, start)
    else:
        stream = _by_index(loader, key, epoch, start)
    if loader.transform is None:
        return stream
    if key is None:
        raise InvalidArgument("a loader with a transform needs a key; pass one, such as random.key(0)")
    return _transform(loader.transform, stream, key, epoch, start)


def _in_memory(loader: Loader) -> ArrayDataset | None:
    """Return the dataset if the rows of a batch come from its arrays at once, None if examples come one by one."""
    return loader.dataset if isinstance(loader.dataset, ArrayDataset) and loader.collate is stack else None


def is_resident(loader: Loader) -> bool:
    """Return whether the batches are exactly the rows of `loader.dataset.arrays` that `index_block` names.

    That is so for an `ArrayDataset` without a transform or a collate function of its own. A compiled loop can then
    gather the rows by itself; a short last batch that is kept has another shape than the others.

    >>> rows = ArrayDataset((torch.zeros(10, 2), torch.zeros(10)))
    >>> [is_resident(loader(rows, samplers.sequential(3, remainder))) for remainder in samplers.REMAINDERS]
    [True, True, True]
    """
    return _in_memory(loader) is not None and loader.transform is None


def yields_views(loader: Loader) -> bool:
    """Return whether the batches are views of the dataset's arrays, so that who writes to one changes the dataset.

    A transform gets copies, for it may write to what it gets.

    >>> rows = ArrayDataset((torch.zeros(10, 2), torch.zeros(10)))
    >>> yields_views(loader(rows, samplers.sequential(3))), yields_views(loader(rows, samplers.shuffled(3)))
    (True, False)
    """
    return is_resident(loader) and loader.sampler.order is samplers.in_order


def may_refill(loader: Loader) -> bool:
    """Return whether the batches may come in one memory, one after the other: from code of the user's own.

    >>> rows = ArrayDataset((torch.zeros(10, 2), torch.zeros(10)))
    >>> may_refill(loader(rows, samplers.sequential(3))), may_refill(loader(rows, samplers.sequential(3), list))
    (False, True)
    """
    return loader.collate not in (stack, pad) or loader.transform is not None


def _in_views(loader: Loader, rows: ArrayDataset, start: int) -> Iterator[Batch]:
    """Yield the batches of examples as they lie: views of the arrays, which are ten times faster than copies."""
    (inputs, targets, weights), sampler = parts(rows.arrays, "the dataset"), loader.sampler
    size, n = sampler.batch_size, len(rows)
    plain = weights is None and all(isinstance(part, Tensor) and not part.is_sparse for part in (inputs, targets))
    weigh = _weigher(loader)
    for step in range(start, len(loader)):
        first, last = step * size, (step + 1) * size
        if last > n and sampler.remainder == "pad":
            filled = gather(rows.arrays, samplers.indices(sampler, None, n, 0, step))
            yield shaped_batch(filled, padding=weigh(step))
        elif plain:
            yield Batch(inputs[first:last], targets[first:last], weigh(step))
        else:
            yield shaped_batch(rows[first:last], padding=weigh(step))


def _by_index(loader: Loader, key: Tensor | None, epoch: int, start: int) -> Iterator[Batch]:
    rows, weigh = _in_memory(loader), _weigher(loader)
    indices = _indices(loader, key, epoch, start)
    stream = _one_by_one(loader, indices) if rows is None else _gather(rows, indices, loader.sampler.batch_size)
    for step, batch in enumerate(stream, start):
        padding = weigh(step)
        if type(batch) is tuple and len(batch) == 2:
            yield Batch(*batch, padding)
        else:
            yield shaped_batch(batch, padding)


def _indices(loader: Loader, key: Tensor | None, epoch: int, start: int) -> Iterator[Tensor]:
    """Yield the indices of many batches in a row; an order that must be computed whole is computed once."""
    sampler, n, steps = loader.sampler, len(loader.dataset), len(loader)
    at_once = steps if sampler.whole else max(1, CHUNK // sampler.batch_size)
    for first in range(start, steps, at_once):
        positions = samplers.positions(sampler, key, n, epoch, first, min(first + at_once, steps))
        yield samplers.fill_up(sampler, positions)


def _gather(rows: ArrayDataset, indices: Iterator[Tensor], size: int) -> Iterator[Any]:
    """Yield the (input, target) trees of batches whose rows are gathered from arrays, for a few small batches at once.

    One call for several is quicker, as long as what it makes stays in the processor's cache until it is used.
    """
    everything, structure = tree.flatten(rows.arrays)
    leaves = [leaf for leaf in everything if leaf is not None]
    is_pair = len(leaves) == 2 and structure == tree.structure((0, 0))  # the usual case, without building a tree
    nbytes = sum(_nbytes(leaf) for leaf in leaves) * size // len(rows)
    several = max(1, GATHERED // max(1, nbytes))
    for positions in indices:
        for some in positions.split(size * several):
            batches = zip(*(_select(leaf, some.to(leaf.device), size) for leaf in leaves), strict=True)
            yield from batches if is_pair else (_restore(structure, everything, batch) for batch in batches)


def _restore(structure: tree.Structure, everything: list[Any], batch: Iterable[Tensor]) -> Any:
    """Return the tree of the batch's tensors, with None where the dataset has None."""
    some = iter(batch)
    return tree.unflatten(structure, [None if leaf is None else next(some) for leaf in everything])


def _select(array: Tensor, indices: Tensor, size: int) -> Iterable[Tensor]:
    """Return the rows of several batches, each as it lies in memory of its own: from a multiple of 64 bytes on.

    Kernels give other last bits from elsewhere on, and a run that is resumed gathers other batches together.
    """
    if array.is_sparse or _nbytes(array) // len(array) * size % 64:
        return (array.index_select(0, some) for some in indices.split(size))
    return array.index_select(0, indices).split(size)


def _nbytes(array: Tensor) -> int:
    return array.numel() * array.element_size()  # `Tensor.nbytes` refuses sparse arrays


def _one_by_one(loader: Loader, indices: Iterator[Tensor]) -> Iterator[Any]:
    for positions in indices:
        for row in positions.split(loader.sampler.batch_size):
            yield _collate(loader, row)


def _collate(loader: Loader, row: Tensor) -> Any:
    indices = row.tolist()
    examples = [_example(loader.dataset, index) for index in indices]
    if loader.collate is stack:
        parts(examples[0], "an example of the dataset")
    try:
        batch = shaped_batch(loader.collate(examples), what="what the collate function returns")
        check_weight(batch.weight, "the weights of the examples")
    except Exception as error:
        error.add_note(f"raised while collating the examples of the indices {_as_list(indices)}")
        raise
    return batch


def _example(dataset: Dataset, index: int) -> Any:
    try:
        return dataset[index]
    except Exception as error:
        error.add_note(f"raised by the dataset ({type(dataset).__name__}) for the example of index {index}")
        raise


def _as_list(indices: list[int]) -> str:
    return ", ".join(map(str, indices[:16])) + f" and {len(indices) - 16} more" * (len(indices) > 16)


def _weigher(loader: Loader) -> Callable[[int], Tensor | None]:
    """Return step -> the weight of its rows, a tensor of its own for who writes to it, on the device of the data."""
    n = len(loader.dataset)
    if not samplers.pads(loader.sampler, n):
        return lambda step: None
    device = _device(loader.dataset)
    last = len(loader) - 1
    full = torch.ones(loader.sampler.batch_size, device=device)
    short = samplers.weights(loader.sampler, n, last)
    short = None if short is None else short.to(device)
    return lambda step: short if step == last else full.clone()


def _device(dataset: Any) -> torch.device | None:
    if not isinstance(dataset, ArrayDataset):
        return None
    return next(leaf.device for leaf in tree.leaves(dataset.arrays) if leaf is not None)


def _transform(
    transform: Callable[[Tensor, Batch], Batch], stream: Iterator[Batch], key: Tensor, epoch: int, start: int
) -> Iterator[Batch]:
    key = random.fold_in(random.check_key(key), "transform", epoch)
    for step, batch in enumerate(stream, start):
        yield as_batch(transform(random.fold_in(key, step), batch), what="what the loader's transform returns")


def index_block(loader: Loader, key: Tensor | None, epoch: int, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
    """Return the indices of many batches of an epoch at once, for a loop that gathers rows by itself.

    Args:
        loader: the loader.
        key: the random key of all epochs; None will do where nothing is random.
        epoch: the epoch, from 0.
        start: the first batch, from 0.
        stop: the batch after the last.

    Returns:
        A pair. The indices, int64, shape (stop - start, batch_size): a last batch that is not full is filled up, with
        "keep" as with "pad", by rows of zero weight. The weights, float32 and of the same shape; None where no batch
        of this epoch needs filling. A dataset of less than one batch makes a block of its own width under "keep".

    Raises:
        InvalidArgument: there are no such steps.

    >>> rows = ArrayDataset((torch.zeros(5, 2), torch.zeros(5)))
    >>> index_block(loader(rows, samplers.sequential(3)), None, 0, 0, 2)
    (tensor([[0, 1, 2],
            [3, 4, 4]]), tensor([[1., 1., 1.],
            [1., 1., 0.]]))
    """
    sampler, n = loader.sampler, len(loader.dataset)
    samplers.check_range(sampler, n, epoch, start, stop)
    width = min(sampler.batch_size, n) if sampler.remainder == "keep" else sampler.batch_size
    positions = (
        samplers.positions(sampler, key, n, epoch, start, stop) if stop > start else torch.zeros(0, dtype=torch.int64)
    )
    missing = (stop - start) * width - len(positions)
    block = (samplers.fill(positions, missing) if missing else positions).view(stop - start, width)
    if sampler.remainder == "drop" or n % width == 0:
        return block, None
    weight = torch.ones(stop - start, width)
    if missing:
        weight[-1, width - missing :] = 0
    return block, weight
