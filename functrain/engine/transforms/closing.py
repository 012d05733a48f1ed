"""Closures: the tensors that a function closes over become arguments of it.

A function that is traced to a graph of its own meets tensors from outside. Plain ones become constants of the graph.
One that a transform of `torch.func` wraps is seen as such by no dispatch mode, only by a mode of functions: that shows
the trace what stands for it, and shows a later run of the same function, under another transform, the argument that it
is then.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import torch
import torch._functorch.utils as functorch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import BackwardCFunction
from torch.overrides import handle_torch_function

from functrain import tree
from functrain.dispatch_contexts import unseen
from functrain.dispatch_state import alive, current_level, innermost, is_transformed, level
from functrain.engine.tracing.abstract_tensor import Abstract, abstract_as_seen
from functrain.engine.tracing.modes.staying_modes import StayingMode
from functrain.engine.tracing.recording import Recording, recording
from functrain.engine.tracing.to_graph import trace
from functrain.errors import InvalidArgument


def pass_on(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors as the functions around the running code know them, which may be traced to graphs.

    Whoever hands tensors to what no mode of functions sees, such as an `autograd.Function`, asks this first.

    >>> x = torch.ones(2)
    >>> pass_on([x])[0] is x
    True
    """
    if torch._C._len_torch_function_stack():  # pyright: ignore
        return handle_torch_function(_pass_on, (), list(tensors))
    return list(tensors)


def all_passed_on(values: Any) -> Any:
    """Return a tree with its tensors as `pass_on` returns them.

    >>> all_passed_on({"n": 1})
    {'n': 1}
    """
    if not torch._C._len_torch_function_stack():  # pyright: ignore
        return values
    leaves, spec = tree.flatten(values)
    tensors = iter(pass_on([x for x in leaves if isinstance(x, Tensor)]))
    return tree.unflatten(spec, [next(tensors) if isinstance(x, Tensor) else x for x in leaves])


def _pass_on(tensors: list[Tensor]) -> list[Tensor]:
    return pass_on(tensors)


class _Swapping(StayingMode):
    """A mode that hands other tensors to each function than it is called with."""

    def __enter__(self) -> Any:
        _applications.begin()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        _applications.end()

    def swap(self, tensor: Tensor) -> Tensor:
        """Return what is handed on for a tensor."""
        raise NotImplementedError

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        named = {k: _swap(self.swap, v) for k, v in kwargs.items()} if kwargs else {}
        return self.pass_on(func, types, _swap(self.swap, args), named)


class _Question(threading.local):
    """Whether the function of `torch.autograd.Function` that is about to run in this thread has asked the modes."""

    asked = False
    skipped = False

    def pass_on(self, values: Any) -> Any:
        """Ask the modes."""
        values = all_passed_on(values)
        self.asked = True
        return values

    def begin(self, *_: Any) -> None:
        """Note that the function runs: its context has been made."""
        self.asked, self.skipped = False, not (self.asked or is_transformed())

    def check(self, tensor: Tensor) -> None:
        """Refuse a tensor that a function takes which has not asked: a gradient would not find what stands in for it.

        Such a function runs where no gradients are recorded.
        """
        self.skipped = self.skipped and not torch.is_grad_enabled()
        if self.skipped and tensor.requires_grad:
            raise InvalidArgument(_TAKEN_BEFORE)


_TAKEN_BEFORE = (
    "a function that is traced hands a tensor that it closes over and that is being differentiated to an `apply` that "
    "was taken from its torch.autograd.Function before; write F.apply(...) inside of it, or pass the tensor as an "
    "argument"
)
_question = _Question()


def _asking_modes(apply: Any) -> classmethod:
    def ask(cls: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs = all_passed_on(kwargs)
        return apply.__get__(None, cls)(*_question.pass_on(args), **kwargs)

    return classmethod(ask)


def _beginning(making: Any) -> Callable:
    def begin(context: Any, *args: Any) -> None:
        _question.begin()
        if making is not None:
            making(context, *args)

    return begin


class _Applications:
    """What makes `autograd.Function.apply` ask the modes, as other functions do, as long as one is on in any thread.

    Who has kept `F.apply` from before has the old one, which unwraps its arguments by a function (until 2.13), and
    makes a context, which notices that nobody has asked (2.14).
    """

    def __init__(self) -> None:
        self._lock, self._count = threading.Lock(), 0
        self._before: Any = None
        self._making: Any = None

    def begin(self) -> None:
        with self._lock:
            if self._count == 0:
                self._before = vars(Function)["apply"], functorch.unwrap_dead_wrappers
                Function.apply = _asking_modes(self._before[0])  # pyright: ignore
                functorch.unwrap_dead_wrappers = lambda args, unwrap=self._before[1]: unwrap(_question.pass_on(args))
                if not isinstance(self._before[0], classmethod):  # written in C
                    self._making = vars(BackwardCFunction).get("__init__")
                    BackwardCFunction.__init__ = _beginning(self._making)  # pyright: ignore
            self._count += 1

    def end(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                Function.apply, functorch.unwrap_dead_wrappers = self._before
                if isinstance(self._before[0], classmethod):
                    return
                if self._making is None:
                    del BackwardCFunction.__init__
                else:
                    BackwardCFunction.__init__ = self._making


_applications = _Applications()


def _swap(swap: Callable, value: Any) -> Any:
    if isinstance(value, Tensor):
        return swap(value)
    if type(value) in (list, tuple):
        return type(value)(_swap(swap, v) for v in value)
    if type(value) is dict:
        return {k: _swap(swap, v) for k, v in value.items()}
    return value


class Discovering(_Swapping):
    """The mode in which a function is traced for the first time: for what transforms wrap stands a constant."""

    def __init__(self, name: str) -> None:
        super().__init__()
        current = recording()
        assert current is not None
        self._recording: Recording = current
        self._level, self._name = current_level(), name
        self._seen: dict[int, tuple[Tensor, Tensor]] = {}

    def swap(self, tensor: Tensor) -> Tensor:
        """Return the stand-in of a tensor that is wrapped by a transform around the trace."""
        if self._recording.has_made(innermost(tensor)):
            return tensor
        if id(tensor) not in self._seen:
            self._seen[id(tensor)] = tensor, self._resolve(tensor)
        resolved = self._seen[id(tensor)][1]
        if level(resolved) >= 0:
            return self._recording.stand_in(resolved)
        if resolved is tensor:
            return tensor
        with unseen():
            return self._recording.abstract_of(resolved)

    def _resolve(self, tensor: Tensor) -> Tensor:
        # The functions around this one, which may be traced too, know first what it is.
        resolved = alive(pass_on([tensor])[0])
        if level(resolved) > self._level:
            raise InvalidArgument(
                f"{self._name} closes over a tensor that is being differentiated or vmapped, and hands it straight to "
                "a transform of torch.func inside; use functrain's transform of that name, or pass it as an argument"
            )
        return resolved

    def is_exchanged(self, tensor: Tensor) -> bool:
        """Return whether the functions around this one know by a tensor what this one knows by another.

        Where this one runs inside an `autograd.Function`, their modes are off, and nobody else exchanges it.
        """
        return any(resolved is tensor is not old for old, resolved in self._seen.values())

    def select(self, tensors: Iterable[Tensor]) -> "Closed":
        """Return what is closed over, where these are the tensors that the trace holds."""
        tensors = list(tensors)
        self._check_seen(tensors)
        at = {id(t): k for k, t in enumerate(tensors)}
        places = {key: at[id(t)] for key, (_, t) in self._seen.items() if id(t) in at}
        # What no transform changes stays itself, so that Python may ask for its values.
        places = {key: k for key, k in (at | places).items() if not _is_fixed(tensors[k])}
        return Closed(tensors, places, [old for old, _ in self._seen.values()])

    def _check_seen(self, tensors: list[Tensor]) -> None:
        """Refuse what is being differentiated and came in past this mode: a later run could not exchange it."""
        seen = {id(t) for pair in self._seen.values() for t in pair}
        if any(isinstance(t, Abstract) and t.requires_grad and id(t) not in seen for t in tensors):
            raise InvalidArgument(_TAKEN_BEFORE)


def _is_fixed(tensor: Tensor) -> bool:
    return not isinstance(tensor, Abstract) and level(tensor) < 0 and not tensor.requires_grad


@attrs.frozen
class Closed:
    """The tensors that a function closes over.

    Attributes:
        tensors: what they are where the function is called.
        places: the id of each as the function knows it -> which of them it is.
        alive: those whose ids these are.
    """

    tensors: list[Tensor]
    places: dict[int, int]
    alive: list[Tensor]


class Filling(_Swapping):
    """The mode in which a function that was traced before runs again, with other tensors for those it closes over."""

    def __init__(self, closed: Closed, replacements: Sequence[Tensor]) -> None:
        super().__init__()
        self._places, self._replacements = closed.places, replacements

    def swap(self, tensor: Tensor) -> Tensor:
        """Return what stands in for a tensor."""
        place = self._places.get(id(tensor))
        if place is None:
            return tensor
        _question.check(tensor)
        return self._replacements[place]


def results(mode: _Swapping, tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return the results of a function that ran in a mode: one that it closes over may be among them."""
    return [mode.swap(t) for t in tensors]


def closures(f: Callable[[Sequence[Tensor]], Iterable[Tensor]], tensors: Sequence[Tensor], name: str) -> Closed:
    """Return what a function closes over that is being differentiated or vmapped, inside a trace.

    Args:
        f: a function of a list of tensors that returns tensors.
        tensors: what it is called with.
        name: of the function, for messages.
    """
    with unseen():
        examples: list[Tensor] = [abstract_as_seen(t) for t in tensors]
    modes: list[Discovering] = []

    def discovering(*inputs: Tensor) -> list[Tensor]:
        with Discovering(name) as mode:
            made = f(inputs)
        modes.append(mode)
        return results(mode, made)

    closed = trace(discovering, examples).closed
    return modes[0].select(t for t in closed if level(t) >= 0 or t.requires_grad or modes[0].is_exchanged(t))
