"""Keys: made from a seed, derived from one another."""

from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import takewhile
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from functrain.dispatch_state import is_plain
from functrain.errors import InvalidArgument, InvalidKey
from functrain.random import leaf
from functrain.random.philox import MASK
from functrain.random.reuse import note_derived, note_use
from functrain.random.words import FOLD, child, children, children_quickly, descendant_quickly
from functrain.records import reprs

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def key(seed: int) -> Tensor:
    """Return the key of a seed.

    Args:
        seed: any integer. Those from 0 to 2**64 - 1 are the 64 bits of the key, others are hashed to 64 bits.

    Returns:
        The key, int64 of shape (2,), on the CPU; move it with `.to`, and what is drawn from it follows.

    Raises:
        InvalidArgument: the seed is no integer.

    >>> key(0), key(2**32 + 7)
    (tensor([0, 0]), tensor([7, 1]))
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise InvalidArgument(f"a seed must be an integer, got {seed!r} of type {type(seed).__name__}")
    seed = int(seed)
    if not 0 <= seed < 2**64:
        digits = f"{seed:x}".encode()
        seed = int.from_bytes(blake2b(digits, digest_size=8).digest(), "little")
    return torch.tensor((seed & MASK, seed >> 32))


def check_key(key: Any) -> Tensor:
    """Return the key as it is, or raise.

    A key is two words of 32 bits. Whatever its integers have above their lower 32 bits counts nowhere, so that a key
    means the same wherever it comes, also where no value can be looked at.

    Args:
        key: a key, shape (2,), or many, shape (..., 2).

    Raises:
        InvalidKey: it is no int64 tensor of shape (..., 2).

    >>> check_key(key(0))
    tensor([0, 0])
    """
    if isinstance(key, Tensor) and key.dtype is torch.int64 and key.dim() and key.shape[-1] == 2:
        return key
    got = f"{key.dtype} of shape {tuple(key.shape)}" if isinstance(key, Tensor) else reprs.short(key)
    raise InvalidKey(
        f"a random key must be an int64 tensor of shape (..., 2), got {got:.200}; random.key(seed) makes one"
    )


def check_one(key: Any) -> Tensor:
    """Return the key as it is if it is a single one, or raise `InvalidKey`."""
    if check_key(key).dim() == 1:
        return key
    raise InvalidKey(
        f"a draw takes one random key of shape (2,), got keys of shape {tuple(key.shape)}; "
        "draw for each with engine.vmap over the keys"
    )


def is_concrete(tensor: Tensor) -> bool:
    """Return whether the value of a tensor is at hand, in the processor's memory."""
    return type(tensor) is Tensor and tensor.device.type == "cpu" and is_plain()


def split(key: Tensor, n: int = 2) -> Tensor:
    """Return `n` new keys, independent of each other and of what is drawn from or folded into this one.

    Args:
        key: a key, shape (2,), or many, shape (..., 2). It is used up: neither draw from it nor split it again.
        n: how many keys to make.

    Returns:
        The keys, shape (..., n, 2). The first of them do not depend on `n`.

    Raises:
        InvalidKey: the key is none.
        InvalidArgument: n is no integer, or is negative.

    >>> a, b = split(key(0))
    >>> split(key(0), 3).shape
    torch.Size([3, 2])
    """
    check_key(key)
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise InvalidArgument(f"n must be the number of keys to make, an integer of at least 0, got {n!r}")
    note_use(key, "split")
    if not is_plain():
        return leaf.children(key, n)
    return children_quickly(key, n) if is_concrete(key) else children(key, n)


def fold_in(key: Tensor, *data: int | Tensor | str) -> Tensor:
    """Return the key of this one and of data: a step, the number of an example, the path of a layer.

    Equal data give equal keys, whether a number comes as an int or as a tensor; other data, in value, number or order,
    give independent keys. As many as needed can be derived from one key.

    Each number costs one call of the generator, and so do names that stand together, however many: they are hashed
    together. So `fold_in(key, a, b)` is `fold_in(fold_in(key, a), b)` wherever `a` or `b` is a number, and
    `fold_in(key, "a", "b")` is another key than `fold_in(fold_in(key, "a"), "b")`.

    Args:
        key: a key, shape (2,), or many, shape (..., 2).
        data: integers of 64 bits with sign; tensors of them, whose shapes broadcast with that of the keys; strings,
            which are hashed to 60 bits. Without data, the key itself is returned.

    Returns:
        The key, shape (2,); or many keys, of the shape that keys and tensors broadcast to, and (2,).

    Raises:
        InvalidKey: the key is none.
        InvalidArgument: a datum is neither integer nor string, or is too large.
        ShapeMismatch: the shapes of keys and tensors do not broadcast.

    >>> step_key = fold_in(key(0), 17)
    >>> fold_in(step_key, "encoder", "dropout").shape
    torch.Size([2])
    >>> fold_in(step_key, torch.arange(64)).shape
    torch.Size([64, 2])
    """
    pieces = list(_pieces(data))
    if check_key(key).dim() == 1 and pieces and is_concrete(key):
        ones = list(takewhile(lambda piece: _is_one(piece[1]), pieces))
        key = descendant_quickly(key, [(number, *hash_words(names)) for names, number in ones]) if ones else key
        pieces = pieces[len(ones) :]
    for names, number in pieces:
        key = _fold_one(key, names, number)
    return key


def _pieces(data: tuple) -> Iterator[tuple[tuple[str | None, ...], int | Tensor]]:
    """Cut data into names that stand together, each time with 0, and numbers, each with None for a name."""
    names: list[str] = []
    for datum in data:
        if isinstance(datum, str):
            names.append(datum)
            continue
        number = _integer(datum)
        if names:
            yield tuple(names), 0
            names = []
        yield (None,), number
    if names:
        yield tuple(names), 0


def _integer(datum: Any) -> int | Tensor:
    if isinstance(datum, Tensor) and datum.dtype in _INTEGERS:
        return datum
    if isinstance(datum, Integral) and not isinstance(datum, bool):
        if -(2**63) <= int(datum) < 2**63:
            return int(datum)
        raise InvalidArgument(f"a number to fold in must fit 64 bits with sign, got {datum}; fold in its str()")
    got = f"a tensor of {datum.dtype}" if isinstance(datum, Tensor) else f"{datum!r} of type {type(datum).__name__}"
    raise InvalidArgument(f"what is folded in must be an integer, a tensor of integers or a string, got {got:.200}")


@lru_cache(maxsize=4096)
def hash_words(names: tuple[str | None, ...]) -> tuple[int, int]:
    """Words 1 and 3 of the counter: 60 bits of hash and the domain. Each name with its length, so none runs on."""
    parts = [b"number;" if name is None else name.encode("utf-8", "surrogatepass") for name in names]
    text = b"".join(
        b"%d:%b" % (-1 if name is None else len(part), part) for name, part in zip(names, parts, strict=True)
    )
    number = int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
    return number & MASK, FOLD | (number >> 36)


def _fold_one(key: Tensor, names: tuple[str | None, ...], number: int | Tensor) -> Tensor:
    made = (child if is_plain() else leaf.child)(key, number, *hash_words(names))
    note_derived(made, key, (names, number))
    return made


def _is_one(number: int | Tensor) -> bool:
    return isinstance(number, int) or (number.dim() == 0 and type(number) is Tensor and number.device.type == "cpu")
