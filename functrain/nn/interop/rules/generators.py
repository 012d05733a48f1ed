"""Generators that no key reproduces: a forward that draws from one of them is refused."""

import random as python_random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from functrain.dispatch_state import is_traced, outside_of_transforms
from functrain.errors import HiddenRandomness

Watched = tuple[str, Callable[[], Any], Callable[[Any], Any]]


@contextmanager
def watch_generators(thorough: bool) -> Iterator[None]:
    """Raise `HiddenRandomness` where the code inside drew from a global generator, after its state is put back.

    Args:
        thorough: whether to look at those of Python and NumPy too, whose states take 0.2 ms to copy; PyTorch's takes
            3 microseconds. A trace looks at that itself.

    >>> with watch_generators(thorough=True):
    ...     torch.rand(1)
    Traceback (most recent call last):
        ...
    functrain.errors.HiddenRandomness: from_module: the forward draws from, or seeds, PyTorch's global generator, ...
    """
    with outside_of_transforms():
        before = [(generator, generator[1]()) for generator in _generators(thorough)]
    yield
    with outside_of_transforms():
        changed = [name for (name, get, put), state in before if _put_back(state, get, put)]
    if changed:
        raise HiddenRandomness(
            f"from_module: the forward draws from, or seeds, {' and '.join(changed)}, whose state no key reproduces; "
            "draw with PyTorch's functions without a generator (torch.rand, F.dropout), which get their numbers from "
            "the model's key"
        )


def _put_back(state: Any, get: Callable[[], Any], put: Callable[[Any], Any]) -> bool:
    """Return whether a state is another now; then it is put back."""
    differs = _differs(state, get())
    if differs:
        put(state)
    return differs


def _generators(thorough: bool) -> list[Watched]:
    watch_generators: list[Watched] = []
    if not is_traced():
        watch_generators.append(("PyTorch's global generator", torch.get_rng_state, torch.set_rng_state))
        if torch.cuda.is_initialized():
            watch_generators += [_of_cuda(device) for device in range(torch.cuda.device_count())]
    if thorough:
        watch_generators.append(("Python's module random", python_random.getstate, python_random.setstate))
    if thorough and "numpy" in sys.modules:
        numpy = sys.modules["numpy"].random
        watch_generators.append(("NumPy's global generator", numpy.get_state, numpy.set_state))
    return watch_generators


def _of_cuda(device: int) -> Watched:
    generator = torch.cuda.default_generators[device]
    return f"the global generator of CUDA device {device}", generator.get_offset, generator.set_offset


def _differs(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.numpy().tobytes() != b.numpy().tobytes()
    if isinstance(a, tuple) and len(a) == 5:  # NumPy's: name, words, position, two of a cached normal draw
        return a[2:] != b[2:] or bool((a[1] != b[1]).any())
    return a != b
