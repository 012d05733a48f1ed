"""Datasets: anything with `__len__` and `__getitem__`; arrays in memory, indexed by many rows at once."""

from collections.abc import Callable
from numbers import Integral
from typing import Any, Protocol, runtime_checkable

import attrs
import torch
from toolz import curry
from torch import Tensor

from functrain import tree
from functrain.data.batch import Batch, parts
from functrain.dispatch_state import is_plain
from functrain.errors import DtypeMismatch, IndexOutOfRange, InvalidArgument, ShapeMismatch
from functrain.records import reprs


@runtime_checkable
class Dataset(Protocol):
    """Anything that has a length and gives an example for an index from 0 on.

    `loader` wants (input, target) pairs, (input, target, weight) triples or `Batch`es of one example.

    >>> isinstance([(0.5, 1), (0.7, 0)], Dataset)
    True
    """

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return the example at this index."""
        ...


def _check_arrays(_dataset: Any, _attribute: Any, arrays: Any) -> None:
    tree.check_tensors(arrays, "the dataset's arrays", or_none=True)
    named = [(path, leaf) for path, leaf in tree.leaves_with_path(arrays) if leaf is not None]
    if not named:
        raise InvalidArgument("the dataset has no arrays; pass a tree of tensors, such as ArrayDataset((x, y))")
    for path, array in named:
        if array.dim() == 0:
            raise ShapeMismatch(
                f"the dataset's array {path or 'given'} is a scalar; its first axis must be the examples"
            )
    lengths = {path: array.shape[0] for path, array in named}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{path}: {n}" for path, n in list(lengths.items())[:10])
        raise ShapeMismatch(f"the dataset's arrays must have equally many rows, got {said}")
    if named[0][1].shape[0] == 0:
        raise InvalidArgument("the dataset is empty: its arrays have 0 rows; pass at least one example")


@attrs.frozen(eq=False, repr=False)
class ArrayDataset:
    """Examples held as a tree of tensors with equal first axes, usually the pair `ArrayDataset((x, y))`.

    Or the triple `ArrayDataset((x, y, weight))`; and the target may be None.

    An integer index gives one example, the tree without the first axis. A slice, a list of integers, an index tensor
    or a mask of shape (n,) gives the tree of those rows, which for a pair is a batch; slices are views.

    Attributes:
        arrays: the tree of tensors, each of shape (n, ...), n at least 1; None stays None in each example.

    Raises:
        NotATensor: a leaf is no tensor.
        ShapeMismatch: the tensors have different numbers of rows.
        InvalidArgument: there are no rows.
        IndexOutOfRange, DtypeMismatch, InvalidArgument: when indexed by what is no index.

    >>> dataset = ArrayDataset((torch.arange(6.0).reshape(3, 2), torch.tensor([7, 8, 9])))
    >>> dataset
    ArrayDataset(3 rows of (float32(2,), int64()))
    >>> dataset[0]
    (tensor([0., 1.]), tensor(7))
    >>> dataset[[2, 0]]
    (tensor([[4., 5.],
            [0., 1.]]), tensor([9, 7]))
    """

    arrays: Any = attrs.field(validator=_check_arrays)

    def __len__(self) -> int:
        return next(leaf.shape[0] for leaf in tree.leaves(self.arrays) if leaf is not None)

    def __getitem__(self, index: Any) -> Any:
        n = len(self)
        if isinstance(index, slice):
            return _slice(self.arrays, index, n)
        if isinstance(index, Tensor) and index.dim() == 0 and index.dtype != torch.bool:
            index = int(index)
        if isinstance(index, Integral) and not isinstance(index, bool):
            at = _position(int(index), n)
            return _each(lambda array: array[at], self.arrays)
        return gather(self.arrays, _indices(index, n))

    def __repr__(self) -> str:
        row = _each(lambda array: _Word(tree.describe(array[0])), self.arrays)
        return f"ArrayDataset({len(self):,} rows of {row})"


class _Word(str):
    """A string that prints without quotes inside a container."""

    __repr__ = str.__str__


def gather(arrays: Any, indices: Tensor) -> Any:
    """Return the tree of these rows of each tensor, None where it is None; the indices are not checked.

    >>> gather({"x": torch.tensor([5, 6, 7])}, torch.tensor([2, 0]))
    {'x': tensor([7, 5])}
    """
    return _each(lambda array: array.index_select(0, indices.to(array.device)), arrays)


def _each(f: Callable[[Tensor], Any], arrays: Any) -> Any:
    return tree.map(lambda array: None if array is None else f(array), arrays)


def _slice(arrays: Any, rows: slice, n: int) -> Any:
    if rows.step is not None and rows.step < 0:  # tensors have no negative steps
        return gather(arrays, torch.tensor(range(n)[rows], dtype=torch.int64))

    def some(array: Tensor) -> Tensor:  # of a sparse tensor there are no views
        return array.index_select(0, torch.arange(n, device=array.device)[rows]) if array.is_sparse else array[rows]

    return _each(some, arrays)


def _position(index: int, n: int) -> int:
    if not -n <= index < n:
        raise IndexOutOfRange(f"index {index} is out of range: the dataset has {n} rows, pass {-n} to {n - 1}")
    return index % n


def _indices(index: Any, n: int) -> Tensor:
    """Return indices from 0 on as an int64 tensor of one axis, from a list, an index tensor or a mask."""
    rows = _as_tensor(index)
    if rows.dtype == torch.bool:
        if rows.shape != (n,):
            raise ShapeMismatch(f"a mask of the dataset must have shape ({n},), got {tuple(rows.shape)}")
        return rows.nonzero().squeeze(1)
    if rows.is_floating_point() or rows.is_complex():
        raise DtypeMismatch(f"indices of a dataset must be integers, got {rows.dtype}; convert them with .long()")
    if rows.dim() != 1:
        raise ShapeMismatch(f"indices of a dataset must have one axis, got shape {tuple(rows.shape)}")
    rows = rows.long()
    if is_plain() and rows.numel():
        low, high = (int(bound) for bound in rows.aminmax())
        for bound in (low, high):
            _position(bound, n)
        if low >= 0:
            return rows
    return torch.where(rows < 0, rows + n, rows)


def _as_tensor(index: Any) -> Tensor:
    if isinstance(index, Tensor):
        return index
    if isinstance(index, list) and not index:
        return torch.zeros(0, dtype=torch.int64)
    try:
        if not isinstance(index, tuple):  # dataset[1, 2] may mean a row and a column, or two rows
            return torch.as_tensor(index)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise InvalidArgument(
        "a dataset is indexed by an integer, a slice, a list of integers or an index tensor, got "
        f"{type(index).__name__}: {index!r}"
    )


@attrs.frozen(eq=False, repr=False)
class MappedDataset:
    """A dataset whose inputs go through a function each time an example is asked for; made by `map_input`.

    Attributes:
        f: the function of one input.
        dataset: the dataset below, of (input, target) pairs, triples with a weight, or `Batch`es.

    >>> MappedDataset(str.upper, [("a", 0), ("b", 1)])[1]
    ('B', 1)
    """

    f: Callable[[Any], Any]
    dataset: Dataset

    __repr__ = reprs.record

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return _with_input(self.f, self.dataset[index], "an example of the dataset")


def _with_input(f: Callable[[Any], Any], value: Any, what: str) -> Any:
    input, *_ = parts(value, what)
    return tree.evolve(value, input=f(input)) if isinstance(value, Batch) else (f(input), *value[1:])


@curry
def map_input(f: Callable[[Any], Any], dataset: Any) -> Any:
    """Return the dataset with a function applied to its inputs; curried, so that it stands in a `toolz.pipe`.

    Args:
        f: a function of inputs that treats each row by itself, such as what `fit_normalizer` returns. An
            `ArrayDataset` calls it once with all rows, shape (n, ...); any other dataset with one input, when asked
            for that example.
        dataset: a dataset of (input, target) pairs, (input, target, weight) triples or `Batch`es.

    Returns:
        An `ArrayDataset` for an `ArrayDataset`, else a `MappedDataset`.

    Raises:
        InvalidArgument: the dataset is not one of these.
        ShapeMismatch: the function changed the number of rows.

    >>> from toolz import pipe
    >>> dataset = ArrayDataset((torch.tensor([1.0, 2.0]), torch.tensor([0, 1])))
    >>> pipe(dataset, map_input(lambda x: 10 * x), map_input(lambda x: x + 1))[:]
    (tensor([11., 21.]), tensor([0, 1]))
    """
    if not isinstance(dataset, ArrayDataset):
        return MappedDataset(f, dataset)
    return ArrayDataset(_with_input(f, dataset.arrays, "the tree of the ArrayDataset"))


def example(dataset: Any, i: int = 0) -> Any:
    """Return one example of a dataset, to look at.

    Args:
        dataset: a dataset, or a loader, whose dataset is then meant.
        i: the index of the example, from 0; negative ones count from the end.

    Raises:
        IndexOutOfRange: there is no such example.

    >>> example([("a", 0), ("b", 1)], 1)
    ('b', 1)
    """
    below = getattr(dataset, "dataset", None)
    if below is not None and not hasattr(dataset, "__getitem__"):
        dataset = below
    if isinstance(i, bool) or not isinstance(i, Integral):
        raise InvalidArgument(f"i must be the index of one example, an integer, got {i!r}")
    return dataset[_position(int(i), len(dataset))]
