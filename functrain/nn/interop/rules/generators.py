"""Generators that no key reproduces: a forward that draws from one of them is refused."""

import random as python_random
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from functrain.dispatch_contexts import outside_of_transforms
from functrain.dispatch_state import is_traced
from functrain.errors import HiddenRandomness
from functrain.nn.interop.keeping.generators import Watched

States = list[tuple[Watched, Any]]


def generator_states(thorough: bool, held: Sequence[Watched] = ()) -> States:
    """Return the global generators, and those that a module holds, each with its state.

    Args:
        thorough: whether to look at those of Python and NumPy too, whose states take 0.2 ms to copy; PyTorch's takes
            3 microseconds. A trace looks at that itself.
        held: the generators that the module holds.

    >>> [name for (name, *_), _ in generator_states(thorough=False)]
    ["PyTorch's global generator"]
    """
    with outside_of_transforms():
        return [(generator, generator[1]()) for generator in [*_generators(thorough), *held]]


def check_generators(before: States) -> None:
    """Raise `HiddenRandomness` where a generator has another state than before, after that is put back.

    >>> before = generator_states(thorough=True)
    >>> _ = torch.rand(1)
    >>> check_generators(before)
    Traceback (most recent call last):
        ...
    functrain.errors.HiddenRandomness: from_module: the forward draws from, or seeds, PyTorch's global generator, ...
    """
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
    watched: list[Watched] = []
    if not is_traced():
        watched.append(("PyTorch's global generator", torch.get_rng_state, torch.set_rng_state))
        if torch.cuda.is_initialized():
            watched += [_of_cuda(device) for device in range(torch.cuda.device_count())]
    if thorough:
        watched.append(("Python's module random", python_random.getstate, python_random.setstate))
    if thorough and "numpy" in sys.modules:
        numpy = sys.modules["numpy"].random
        watched.append(("NumPy's global generator", numpy.get_state, numpy.set_state))
    return watched


def _of_cuda(device: int) -> Watched:
    generator = torch.cuda.default_generators[device]
    return f"the global generator of CUDA device {device}", generator.get_offset, generator.set_offset


def _differs(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return not torch.equal(a, b)
    if isinstance(a, tuple) and len(a) == 5:  # NumPy's: name, words, position, two of a cached normal draw
        return a[2:] != b[2:] or bool((a[1] != b[1]).any())
    return a != b
