"""Where batches come from: a loader, which can begin anywhere, or any iterable of batches, which begins as it does."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import attrs
from torch import Tensor

from functrain import arguments, data, foreign, random, tree
from functrain.data import Batch
from functrain.errors import InvalidArgument, SourceEnded


@attrs.frozen
class Source:
    """A source of batches.

    Attributes:
        batches: a `data.Loader`, or an iterable of batches.
        name: "train", or the name of the validation.
        length: how many batches an epoch has; None where nobody knows.
        device: where the batches go; None for where they are.
        plain: whether the step takes what the source yields as it is, instead of a `Batch`.
        begun: the iterator that gives what comes next, where `peek` has begun it; none otherwise.
    """

    batches: Any
    name: str
    length: int | None
    device: Any = None
    plain: bool = False
    begun: list[Iterator[Any]] = attrs.field(factory=list, eq=False, repr=False)

    @property
    def is_loader(self) -> bool:
        """Whether it is a loader."""
        return isinstance(self.batches, data.Loader)

    @property
    def begins_anywhere(self) -> bool:
        """Whether it gives the same batches each time, and from any batch on: a loader or a list."""
        return self.is_loader or isinstance(self.batches, list | tuple)

    @property
    def resident(self) -> bool:
        """Whether a compiled call may gather the batches from arrays by itself."""
        return self.is_loader and data.is_resident(self.batches)

    @property
    def yields_views(self) -> bool:
        """Whether its batches are views of the dataset's arrays."""
        return self.is_loader and data.yields_views(self.batches)

    @property
    def may_refill(self) -> bool:
        """Whether it may fill one tensor with one batch after the other: where who makes them is no code of ours."""
        return data.may_refill(self.batches) if self.is_loader else not self.begins_anywhere

    @property
    def batch_size(self) -> int | None:
        """The rows of a full batch; None where nobody knows."""
        return self.batches.sampler.batch_size if self.is_loader else getattr(self.batches, "batch_size", None)


def source(batches: Any, name: str, device: Any = None, plain: bool = False) -> Source:
    """Return a source of batches; a source is one.

    Raises:
        InvalidArgument: it is neither a loader nor an iterable of batches.

    >>> source([(1, 2), (3, 4)], "train").length
    2
    """
    if isinstance(batches, Source):
        return batches
    if isinstance(batches, data.Loader):
        return Source(_move(batches, device), name, len(batches), device, plain)
    if not isinstance(batches, Iterable) or isinstance(batches, Tensor | str | Mapping | Batch | data.ArrayDataset):
        raise InvalidArgument(
            f"{name} must be a Loader, or an iterable of batches, got {type(batches).__name__}; "
            f"data.loader(dataset, sampler) makes one{foreign.way_in(batches)}"
        )
    try:
        length = len(batches)  # pyright: ignore[reportArgumentType]
    except (TypeError, NotImplementedError):  # a generator, or a DataLoader over an iterable dataset
        length = None
    if length == 0:
        raise InvalidArgument(f"{name} is empty; an epoch needs at least one batch")
    return Source(batches, name, length, device, plain)


def _move(loader: data.Loader, device: Any) -> data.Loader:
    if device is None or not data.is_resident(loader):
        return loader
    arrays: Any = loader.dataset
    return attrs.evolve(loader, dataset=data.ArrayDataset(tree.to(arrays.arrays, device)))


ALL = "all"
"""As many batches as a source gives, which must end."""


def sources(valid: Any, device: Any = None, plain: bool = False, steps: Any = ALL) -> dict[str, Source]:
    """Return the sources to validate with by name: several by the names of a dict, one as "valid", or none.

    `steps` is how many batches of each to take, see `taking`; of several, a dict by their names may say it.

    >>> list(sources(None)), list(sources([(1, 2)])), list(sources({"clean": [(1, 2)], "noisy": [(1, 2)]}))
    ([], ['valid'], ['clean', 'noisy'])
    """
    named = {} if valid is None else valid if isinstance(valid, Mapping) else {"valid": valid}
    for name in named:
        if not isinstance(name, str) or name == "train" or not name:
            raise InvalidArgument(f"valid: a validation must have a name other than 'train', got {name!r}")
    if valid is None and steps not in (None, ALL):
        raise InvalidArgument(f"valid_steps is {steps!r}, and there is no valid")
    by_name = steps if isinstance(steps, Mapping) else dict.fromkeys(named, steps)
    if strangers := by_name.keys() - named.keys():
        raise InvalidArgument(f"valid_steps has {sorted(map(str, strangers))}, and the validations are {list(named)}")
    made = {name: source(batches, name, device, plain) for name, batches in named.items()}
    return {name: taking(one, by_name.get(name), "valid_steps") for name, one in made.items()}


def taking(source: Source, steps: Any, argument: str) -> Source:
    """Return a source that gives its first `steps` batches; None for all of one with a length.

    Whether a source without a length ever ends, nobody can tell: who passes "all" says that it does.

    Raises:
        InvalidArgument: the number is none, or larger than the length; or neither number nor length is there.

    >>> taking(source([(1, 2), (3, 4)], "valid"), 1, "valid_steps").length
    1
    """
    if steps is None and source.length is None:
        raise InvalidArgument(
            f"{source.name} has no length, so that nobody knows whether it ends; pass {argument}=, how many batches of "
            f"it to take, or {argument}='all' to take what it gives until it ends"
        )
    if steps is None or (isinstance(steps, str) and steps == ALL):
        return source
    if isinstance(steps, str):
        raise InvalidArgument(f"{argument} must be a number of batches, or 'all', got {steps!r}")
    arguments.whole(argument, steps)
    if source.length is not None and steps > source.length:
        raise InvalidArgument(
            f"{argument} must be at most {source.length}, the batches that {source.name} has, got {steps}"
        )
    return attrs.evolve(source, length=steps)


def open_source(source: Source, key: Tensor, epoch: int, start: int, stop: int | None) -> Iterator[Any]:
    """Yield the batches of an epoch from one on; an iterable that is neither loader nor list begins where it begins.

    Raises:
        SourceEnded: it has fewer batches than are needed.

    >>> list(open_source(source([1, 2, 3], "train", plain=True), None, 0, 1, 3))
    [2, 3]
    """
    if source.is_loader:
        batches: Iterator[Any] = iter(data.batches(source.batches, key, epoch, start))
    elif source.begins_anywhere:
        batches = (source.batches[k] for k in range(start, len(source.batches)))
    else:
        batches = source.begun.pop() if source.begun else iter(source.batches)
    at = start
    while stop is None or at < stop:
        try:
            batch = next(batches)
        except StopIteration:
            if at == start == 0 or stop is not None:  # a run that goes on may have had all
                _end(source, at - start, stop)
            return
        yield _prepare(source, batch)
        at += 1


def peek(source: Source) -> Any:
    """Return the batch that a source gives first, or, where it begins as it begins, next; it still gives it. Or None.

    >>> batches = source((k for k in range(3)), "train", plain=True)
    >>> peek(batches), list(open_source(batches, None, 0, 0, None))
    (0, [0, 1, 2])
    """
    if source.begins_anywhere:
        return next(open_source(source, random.key(0), 0, 0, None))
    batches = source.begun.pop() if source.begun else iter(source.batches)
    first = list(islice(batches, 1))
    source.begun.append(chain(first, batches))
    return _prepare(source, first[0]) if first else None


def _prepare(source: Source, batch: Any) -> Any:
    if not source.is_loader and (isinstance(batch, Batch) or not source.plain):
        batch = data.as_batch(batch)
    return batch if source.device is None else tree.to(batch, source.device)


def are_batches(inputs: Any) -> bool:
    """Return whether these are batches to go over, and not what a model takes, a tree of tensors.

    A list is taken for batches where it holds nothing but pairs, triples and `Batch`es.

    >>> import torch
    >>> are_batches(torch.zeros(2)), are_batches([torch.zeros(2)]), are_batches([(torch.zeros(2), None)])
    (False, False, True)
    """
    if isinstance(inputs, list):
        pairs = (isinstance(one, Batch) or (isinstance(one, list | tuple) and len(one) in (2, 3)) for one in inputs)
        return len(inputs) > 0 and all(pairs)
    if not tree.structure(inputs).is_leaf() or isinstance(inputs, Tensor) or hasattr(inputs, "__array__"):
        return False
    return isinstance(inputs, Iterable | data.Loader) or hasattr(inputs, "__getitem__")


@contextmanager
def explaining_inputs(inputs: Any) -> Iterator[None]:
    """Add to what a model says to some inputs what they may have been meant for.

    Raises:
        InvalidArgument: they are empty.

    >>> with explaining_inputs([]):
    ...     pass
    Traceback (most recent call last):
        ...
    functrain.errors.InvalidArgument: inputs must be what the model takes, or batches of it; got an empty list
    """
    if isinstance(inputs, list | tuple | Mapping) and not inputs:
        raise InvalidArgument(
            f"inputs must be what the model takes, or batches of it; got an empty {type(inputs).__name__}"
        )
    try:
        yield
    except Exception as error:
        if isinstance(inputs, tuple):
            error.add_note(
                f"the tuple of {len(inputs)} was taken for the input of the model, which has so many parts; of a pair "
                "(input, target) pass the input, or data.Batch(input, target)"
            )
        elif isinstance(inputs, list):
            error.add_note(
                f"the list of {len(inputs)} was taken for the input of the model, which has so many parts; of batches "
                "make pairs, [(x, None), ...], or pass a generator and steps='all'"
            )
        raise


def open_inputs(source: Source, key: Tensor) -> Iterator[Any]:
    """Yield the inputs of the batches of an epoch; where the source is no loader, a batch may be an input alone.

    >>> import torch
    >>> pairs = [(torch.zeros(2), None), (torch.ones(1), None)]
    >>> list(open_inputs(Source(pairs, "inputs", 2, plain=True), None))
    [tensor([0., 0.]), tensor([1.])]
    """
    for batch in open_source(source, key, 0, 0, source.length):
        if isinstance(batch, Tensor | Mapping):
            yield batch
        elif isinstance(batch, list | tuple) and len(batch) == 1:
            yield batch[0]
        else:
            yield data.as_batch(batch, what="a batch of the inputs").input


def _end(source: Source, gave: int, stop: int | None) -> None:
    planned = "at least one" if stop is None else str(stop)
    why = f"{type(source.batches).__name__} ends there: pass fewer steps"
    if isinstance(source.batches, Iterator):
        why = (
            "a generator can be gone through once: pass fewer steps, or something that can be iterated again, such as "
            "a DataLoader"
        )
    raise SourceEnded(f"{source.name} gave {gave} batches, and {planned} were planned; {why}")
