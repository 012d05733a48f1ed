"""`torch.utils.checkpoint` inside a module goes to `remat`, which draws the same numbers when it computes again.

PyTorch's own would compute again in the backward pass, when the mode of the application is over: with other draws, and
in a trace with none at all. Where `checkpoint` is called outside of an application, it is PyTorch's.
"""

import contextlib
import functools
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack

from functrain.engine.statics.static_values import ABSENT
from functrain.engine.statics.walking import content
from functrain.engine.tracing.recording import recording
from functrain.engine.transforms.rematerializing import remat
from functrain.nn.interop.keeping.leaves import BUFFER

_now = threading.local()


def redirect(application: Any) -> contextlib.AbstractContextManager:
    """Let `torch.utils.checkpoint` inside, in this thread, be that of an application; with None, be PyTorch's."""
    return _Redirection(application)


class _Redirection(contextlib.AbstractContextManager):
    """A context that is entered at each application, for which a generator would take a microsecond longer."""

    def __init__(self, application: Any) -> None:
        self._application = application

    def __enter__(self) -> None:
        self._before = getattr(_now, "application", None)
        _now.application = self._application

    def __exit__(self, *_: object) -> None:
        _now.application = self._before


def _install() -> None:
    """Put the choice between the two in the place where PyTorch keeps what runs when `checkpoint` is called."""
    raw = torch.utils.checkpoint.checkpoint.__wrapped__  # pyright: ignore
    setattr(raw, "__dynamo_disable", functools.partial(_checkpoint, raw))


def _checkpoint(raw: Callable, function: Callable, *args: Any, **kwargs: Any) -> Any:
    application = getattr(_now, "application", None)
    if application is None:
        return _disable(raw)(function, *args, **kwargs)
    for name in ("use_reentrant", "context_fn", "determinism_check", "debug", "early_stop", "preserve_rng_state"):
        kwargs.pop(name, None)
    if not torch.is_grad_enabled():
        return function(*args, **kwargs)
    return rematerialise(application, function, args, kwargs)


@functools.cache
def _disable(raw: Callable) -> Callable:
    """Return what PyTorch itself would run: the function, of which `torch.compile` keeps out."""
    import torch._dynamo

    return torch._dynamo.disable(raw, True, wrapping=False)  # pyright: ignore


def modules_in(function: Any, is_module: Callable[[Any], bool]) -> list[Any]:
    """Return the modules that a function was made of: its `self`, and what it closes over or was given."""
    modules: dict[int, Any] = {}
    waiting, met = [function], set()
    while waiting:
        thing = waiting.pop()
        if id(thing) in met:
            continue
        met.add(id(thing))
        if is_module(thing):
            modules[id(thing)] = thing
        else:
            waiting += _parts(thing)
    return list(modules.values())


def _parts(thing: Any) -> list[Any]:
    if isinstance(thing, types.MethodType):
        return [thing.__self__, thing.__func__]
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, types.FunctionType):
        held = [one for one in map(content, thing.__closure__ or ()) if one is not ABSENT]
        return [*held, *(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
    if isinstance(thing, list | tuple):
        return list(thing)
    return list(thing.values()) if isinstance(thing, dict) else []


def _unwrap(function: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[Callable, tuple, dict[str, Any]]:
    """Return a call without partials: what they hold becomes arguments, whose gradients are not lost then."""
    while isinstance(function, functools.partial):
        function, args, kwargs = function.func, (*function.args, *args), {**function.keywords, **kwargs}
    return function, args, kwargs


def rematerialise(application: Any, function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Return function(*args, **kwargs), of which gradients keep the arguments alone.

    The values of the modules in the function, its key and the weights of the batch are arguments too; its new buffers
    are results.
    """
    function, args, kwargs = _unwrap(function, args, kwargs)
    places = _places(application, function)
    run, counts, first = application.run, dict(application.run.counts), [True]

    def again(values: list[Tensor], drawn: tuple, args: tuple, kwargs: dict[str, Any]) -> Any:
        new = [v.detach().clone() if p.is_buffer else v for p, v in zip(places, values, strict=True)]
        with _holding(application, places, new, drawn, counts, first):
            y = function(*args, **kwargs)
            return y, [p.value for p in places if p.is_buffer]

    drawn = run.root_key, run.mode.weight
    with redirect(None):  # remat calls PyTorch's checkpoint itself
        y, after = remat(again)([p.value for p in places], drawn, args, kwargs)
    for place, buffer in zip([p for p in places if p.is_buffer], after, strict=True):
        place.put(buffer.detach())  # it is a result of what is differentiated
    run.slots = {**run.slots, **_slots(places)}
    return y


class _Place:
    """The places in an application that hold one parameter or buffer."""

    def __init__(self, owners: list[tuple[Any, Any]], is_buffer: bool) -> None:
        self.owners, self.is_buffer = owners, is_buffer

    @property
    def value(self) -> Tensor:
        owner, key = self.owners[0]
        return owner[key]

    def put(self, value: Tensor) -> None:
        for owner, key in self.owners:
            owner[key] = value


def _places(application: Any, function: Callable) -> list[_Place]:
    """Return the places of all that the modules in a function hold; of everything where no module is seen in it."""
    kept, parts = application.kept, application.parts
    modules = modules_in(function, lambda thing: application.run.path_of(thing) is not None)
    inside = {id(t) for module in modules for t in [*module.parameters(), *module.buffers()]}
    owners: dict[int, list[tuple[Any, Any]]] = {}
    for owner, key, number in kept.recipe.slots:
        if not modules or id(parts[owner][key]) in inside:
            owners.setdefault(number, []).append((parts[owner], key))
    return [_Place(held, kept.leaves.kinds[number] == BUFFER) for number, held in owners.items()]


def _slots(places: list[_Place]) -> dict[int, list[tuple[Any, Any]]]:
    return {id(place.value): place.owners for place in places if place.is_buffer}


@contextlib.contextmanager
def _holding(
    application: Any,
    places: list[_Place],
    values: list[Tensor],
    drawn: tuple,
    counts: dict[str, int],
    first: list,
) -> Iterator[None]:
    """Run a part of the module with these values in their places, and with the draws that it had the first time."""
    run = application.run
    before = [place.value for place in places], run.slots, run.counts, run.root_key, run.mode
    moment = run.recorded_in, run.is_over
    for place, value in zip(places, values, strict=True):
        place.put(value)
    run.slots, run.counts = _slots(places), dict(counts)
    run.set_root_key(drawn[0])
    run.recorded_in, run.is_over = recording(), False  # its new buffers are results
    run.mode = attrs.evolve(run.mode, weight=drawn[1])
    is_on = any(mode is run for mode in _get_current_function_mode_stack())
    try:
        with redirect(application), contextlib.nullcontext() if is_on else run:
            yield
    finally:
        after = run.counts
        values, run.slots, run.counts, root_key, run.mode = before
        run.recorded_in, run.is_over = moment
        run.set_root_key(root_key)
        for place, value in zip(places, values, strict=True):
            place.put(value)
        if first:
            first.clear()
            run.counts = after


_install()
