"""One application of a module: its fresh copy, where its draws come from, and what becomes of its buffers.

A `TorchFunctionMode` stands above autograd and vmap, so it sees each function of PyTorch that the module calls with
the arguments as the module sees them. What a table of rules names is answered by a rule (`draws`, `layers`, `norms`,
`writes`); all else runs as it is.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from functrain import random
from functrain.dispatch_state import current_level, level, plain, rows_drawn_apart
from functrain.engine.tracing.abstract_tensor import storage_of
from functrain.engine.tracing.modes.staying_modes import StayingMode, answers_itself
from functrain.engine.tracing.recording import recording
from functrain.errors import HiddenRandomness, InvalidArgument, InvalidKey
from functrain.nn.mode import Mode

Rule = Callable[["Running", Callable, tuple, dict[str, Any]], Any]

RULES: dict[Any, Rule] = {}
"""Function -> what is done in its place: (running, function, args, kwargs) -> result."""


def rule(*functions: Any) -> Callable[[Rule], Rule]:
    """Return a decorator that enters a rule for these functions of PyTorch; those that are None are left out."""

    def enter(f: Rule) -> Rule:
        for function in functions:
            if function is not None:
                RULES[function] = f
        return f

    return enter


_BETWEEN = frozenset(
    ("torch.nn.functional", "torch.overrides", *(f"{__package__}.{name}" for name in ("running", "layers", "draws")))
)
"""The names of the Python modules whose code stands between a draw and the module that asks for it."""

_WRITING = ("inplace", "out")
"""The names of arguments by which functions write to a tensor."""


class Running(StayingMode):
    """The application of a module, as the mode in which its functions run.

    Args:
        mode: how the model is applied.
        paths: id of each module -> its path.
        originals: id -> (reference, name) of tensors that the module must not meet.

    Attributes:
        mode: how the model is applied.
        guarded: (name, tensor) of all that the module may not write to.
        touched: the ids of buffers that were written to by functions that do not say so.
        read: the ids of statistics that batch norm at rest has read, in training; its gradients need them as they were.
        slots: id of a buffer -> the places that hold it, as (dict or list, key).
        counts: path of a module -> how many draws it has made, but one.
        recorded_in: the trace that the module runs in, None for none.
        is_over: whether the module has returned, and what runs now is a backward pass.
    """

    def __init__(self, mode: Mode, paths: dict[int, str], originals: dict[int, Any]) -> None:
        super().__init__()
        self.mode, self._paths, self._originals = mode, paths, originals
        self.guarded: list[tuple[str, Tensor]] = []
        self.touched: set[int] = set()
        self.read: set[int] = set()
        self.slots: dict[int, list[tuple[Any, Any]]] = {}
        self.counts: dict[str, int] = {}
        self._root_key: Tensor | None = None  # made when it is asked for
        self._memories: dict[int, str] | None = None
        self._around, self._level = "", current_level()
        self.recorded_in, self.is_over = recording(), False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Answer a function, or let it run."""
        if types and answers_itself(types):
            return self.ask_classes(func, types, args, kwargs or {})
        answer = RULES.get(func)
        if answer is not None:
            return answer(self, func, args, kwargs or {})
        originals = self._originals
        for arg in args:
            if id(arg) in originals:
                self._check_own(arg)
            elif type(arg) is tuple or type(arg) is list:
                for part in arg:
                    if id(part) in originals:
                        self._check_own(part)
        if kwargs:
            for name, arg in kwargs.items():
                if id(arg) in originals:
                    self._check_own(arg)
                if name in _WRITING and arg is not None and arg is not False:
                    self.guard_all(args[:1] if arg is True else (arg,), name)
            return func(*args, **kwargs)
        return func(*args)

    def check(self, args: Sequence[Any]) -> None:
        """Raise where one of these is a tensor of the module that the model was made from."""
        for arg in args:
            if id(arg) in self._originals:
                self._check_own(arg)

    def _check_own(self, tensor: Any) -> None:
        reference, name = self._originals[id(tensor)]
        if reference() is tensor:
            raise InvalidArgument(
                f"from_module: the forward uses the tensor {name} of the original module, not that of the copy that "
                "runs, so it would never be trained: a function stored on the module, or a global one, closes over "
                f"the module or over {name}; make it a method, or a submodule"
            )

    def as_now(self) -> Callable[[], AbstractContextManager]:
        """Return what gives a context in which what runs draws the numbers that it would draw now."""
        counts, place = dict(self.counts), self.place()

        @contextmanager
        def again() -> Iterator[None]:
            before = self.counts, self._around, self.recorded_in
            self.counts, self._around, self.recorded_in = dict(counts), place, recording()
            try:
                with self.again():
                    yield
            finally:
                drawn = self.counts
                self.counts, self._around, self.recorded_in = before
                # The first time it goes on from there; later, others have drawn more meanwhile.
                self.counts = {path: max(n, drawn.get(path, n)) for path, n in (drawn | self.counts).items()}

        return again

    @property
    def is_vmapped(self) -> bool:
        """Whether there is a key for each row of a `vmap`, so that all that is drawn into must have its rows too."""
        return self.mode.key is not None and level(self.mode.key) >= 0

    @property
    def rows_apart(self) -> list[Tensor]:
        """The number of the row for each `vmap` in the module whose rows draw other numbers."""
        return rows_drawn_apart(self._level)

    # Places

    def place(self) -> str:
        """Return the path of the module whose code is running: of the innermost frame whose first argument is one."""
        frame = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            # To look at the arguments of a frame copies all its locals.
            if code.co_argcount and frame.f_globals.get("__name__") not in _BETWEEN:
                path = self._paths.get(id(frame.f_locals.get(code.co_varnames[0])))
                if path is not None:
                    return path
            frame = frame.f_back
        return self._around

    def path_of(self, thing: Any) -> str | None:
        """Return the path of a module of this application, None for anything else."""
        return self._paths.get(id(thing))

    # Randomness

    def key(self, what: str) -> Tensor:
        """Return the key of the next draw of the module whose code is running."""
        root, place = self.root_key, self.place()
        if recording() is not self.recorded_in:
            raise HiddenRandomness(
                f"from_module: {place or 'the module'} draws random numbers ({what}) in what is traced apart, the step "
                "of a scan or a branch of cond: each time that it runs they would be the same; draw before it, and "
                "pass the numbers in"
            )
        if root is None:
            when = "in training, which needs a key" if self.mode.train else "in evaluation too"
            raise InvalidKey(
                f"from_module: {place or 'the module'} draws random numbers ({what}) {when}; apply the model with "
                "nn.training(key), or with nn.Mode(key=key) to evaluate"
            )
        count = self.counts[place] = self.counts.get(place, -1) + 1
        return random.fold_in(root, place, count, *self.rows_apart)

    @property
    def root_key(self) -> Tensor | None:
        """The key that paths and counts are folded into; None where there is none."""
        if self._root_key is None and self.mode.key is not None:
            self._root_key = random.fold_in(self.mode.key, *self.mode.path)
        return self._root_key

    def set_root_key(self, key: Tensor | None) -> None:
        """Let draws come from another key."""
        self._root_key = key

    # Writes

    def guard(self, tensor: Any, what: str) -> None:
        """Raise where a tensor that is about to be written to shares memory with what the module may not change."""
        if not isinstance(tensor, Tensor):
            return
        if self.is_over:
            self._check_over(tensor)
        memory = _memory(tensor)
        if memory is None:
            return
        if self._memories is None:
            pairs = [(_memory(guarded), name) for name, guarded in self.guarded]
            self._memories = {m: name for m, name in pairs if m}
        if memory in self._memories:
            where = self.place()
            raise InvalidArgument(
                f"from_module: {where or 'the module'} changes {self._memories[memory]} in place ({what}); what a "
                "model is applied to is never changed: register what the forward changes as a buffer, or return a new "
                "value (inplace=False)"
            )

    def _check_over(self, tensor: Tensor) -> None:
        """Raise where this is the memory of a buffer: after the module has returned nobody takes its new value."""
        held = [(key, owner[key]) for places in self.slots.values() for owner, key in places]
        written = storage_of(plain(tensor))
        name = next((key for key, buffer in held if storage_of(plain(buffer)) == written), None)
        if name is not None:
            raise InvalidArgument(
                f"from_module: the buffer {name} is changed in a backward pass, when the module has returned its new "
                "buffers; change it in the forward"
            )

    def guard_all(self, tensors: Any, what: str) -> None:
        """Raise where one of these, or of what is in them, may not be written to."""
        for tensor in tensors:
            for one in tensor if isinstance(tensor, tuple | list) else (tensor,):
                self.guard(one, what)

    def rebind(self, old: Tensor, new: Tensor) -> None:
        """Put a new value into each place that holds a buffer; it is then what the application returns."""
        if self.is_over:
            self._check_over(old)
        places = self.slots.pop(id(old), None)
        if places is None:  # no registered buffer
            self.guard(old, "running statistics")
            with torch.no_grad():
                old.copy_(new)
            return
        for owner, key in places:
            owner[key] = new
        self.slots[id(new)] = places


def _memory(tensor: Tensor) -> int | None:
    """Return the address of the memory of a tensor, None where it has none (in a trace, which guards its arguments)."""
    tensor = plain(tensor)
    # `isinstance` says of a tensor of a trace, too, that it is a parameter.
    if type(tensor) is not Tensor and (not issubclass(type(tensor), torch.nn.Parameter) or is_lazy(tensor)):
        return None
    with torch._C.DisableTorchFunction():  # a trace around would take it for a question of the user's
        return tensor.untyped_storage().data_ptr() or None
