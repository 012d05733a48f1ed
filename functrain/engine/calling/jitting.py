"""`jit`: a pure function of trees, traced once for each signature and compiled by a backend.

The call path is generated (`cache_entry.py`): it takes arguments of exactly that signature apart, checks it, calls the
compiled graph and puts the result together. What does not fit any entry takes the way of this module.
"""

import functools
import importlib
import os
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Generic, ParamSpec, TypeVar

import attrs
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from functrain.dispatch_state import (
    dispatch_modes,
    is_in_mode_of_functions,
    is_plain,
    keeps_for_gradients_otherwise,
    peek_interpreter_stack,
)
from functrain.engine.backends.aten.predictions import Mispredicted
from functrain.engine.backends.freed_memory import keep_freed_memory, largest_value
from functrain.engine.calling.cache_entry import RETRY, Compiled, Entry, make_entry
from functrain.engine.calling.call_arguments import Call, parameter_names, read_call, same_arguments, takes_any
from functrain.engine.calling.call_results import Results
from functrain.engine.calling.donation import pair
from functrain.engine.calling.explaining import Explanation, Signature, Work, work_of
from functrain.engine.calling.locks import seldom_collecting, tracing
from functrain.engine.calling.tree_code import MISS
from functrain.engine.graph.passes.functionalizing import functionalize
from functrain.engine.graph.passes.simplifying import simplify
from functrain.engine.graph.passes.without_vectors import without_vectors
from functrain.engine.graph.printing import source_of
from functrain.engine.graph.queries import outputs, placeholders
from functrain.engine.graph.replaying import replay
from functrain.engine.statics.surroundings import surroundings
from functrain.engine.tracing.to_graph import Traced, trace
from functrain.errors import InvalidArgument, TooManyTraces
from functrain.records import reprs

BACKENDS = {
    "aten": "functrain.engine.backends.aten.source",
    "inductor": "functrain.engine.backends.inductor.compiling",
    "cudagraph": "functrain.engine.backends.cudagraph",
}
"""Name -> the module whose `compile(gm, example_inputs, donated)` makes a function of a list of tensors."""

MOST_RETRACES = 8
"""How many traces are worth a warning; the next come at 16, 32 and so on."""
MOST_LESSONS = 4
"""How often a function is traced again because a value was laid out another way; then it runs as it was recorded."""
P = ParamSpec("P")
R = TypeVar("R")
REPLAY = "FUNCTRAIN_REPLAY"
"""Where this environment variable is set, compiled functions run as recorded: no pass, no plan, no backend."""


@attrs.frozen(repr=False)
class Trace:
    """What is known of one trace of a function.

    Attributes:
        reason: why it was made: "first call", or what differed from the most similar trace before, by dotted path.
        graph: the `fx.GraphModule`, as traced.
        seconds_traced: the time that tracing took.
        seconds_compiled: the time that the backend took.
        work: what was recorded, and what the backend made of it.
    """

    reason: str
    graph: Any = attrs.field(repr=False)
    seconds_traced: float
    seconds_compiled: float
    work: Work = attrs.field(repr=False)

    __repr__ = reprs.record


@attrs.frozen(repr=False)
class Lowered:
    """A function traced for some arguments, and not compiled yet: what `Jitted.lower` returns.

    Attributes:
        graph: the `fx.GraphModule`: flat tensors in, a list of tensors out.
        compile: () -> the function of trees, compiled; calls of the jitted function with such arguments use it too.
        named: the name of the function, and the dotted paths of what it takes and returns.
    """

    graph: Any
    compile: Callable[[], Callable] = attrs.field(repr=False)
    named: tuple[str, list[str], list[str]] = attrs.field(repr=False)

    __repr__ = reprs.record

    @property
    def code(self) -> str:
        """Return the graph as Python source to read: each operation below the line of your code that made it."""
        return source_of(self.graph, *self.named)


def jit(
    f: Callable[P, R],
    donate: int | str | Iterable[int | str] = (),
    static: int | str | Iterable[int | str] = (),
    backend: str = "aten",
) -> "Jitted[P, R]":
    """Return a function that runs `f` once to see its operations, and from then on only the operations, compiled.

    `f` is a pure function of trees: it returns tensors (or None) and changes nothing. Tensors in the arguments are
    dynamic; whatever else is in them is static: a new value, like a new shape, dtype, device, memory layout or
    structure, makes a new trace; so does one tensor at two places. What `f` closes over is compared at each call, by
    type and value, tensors by identity. (Not seen: names that are computed, as `globals()[prefix + name]`; what is
    rebound in a library but plain values; the insides of objects of the standard library and of classes written in C;
    a change by another thread during a trace. `docs/explanation/engine.md` says it in full.) Threads may share it.

    Inside another `jit`, `grad` or `vmap`, where an argument requires gradients, in a `TorchFunctionMode` or
    `TorchDispatchMode`, and while PyTorch detects anomalies (`torch.autograd.set_detect_anomaly`), which takes a
    backward pass, `f` itself runs; otherwise results have no autograd history. A result that is an argument unchanged
    is that tensor itself.

    Args:
        f: the function.
        donate: positions or names of arguments whose memory may be used for the result; they must not be used again,
            and using them raises `DonatedValueUsed`. A donated tensor whose memory another tensor shares is copied
            first. (Not seen: a NumPy array that a tensor was made from, and `torch.tensor(old)`.) When a call fails
            after it began to write, the donated values are lost, and say so.
        static: positions or names of arguments that are static as a whole, and hashable.
        backend: "aten" (PyTorch's operations one by one, ready in milliseconds), "inductor" (compiled kernels, ready
            in seconds), "cudagraph" ("aten" captured as one CUDA graph) or "replay" (what was recorded, in order, with
            no pass and no plan: the bits of eager execution).

    Raises:
        NotTraceable: `f` decides in Python by the values of a tensor.
        NonTensorOutput: `f` returns a number, or anything else that is neither tensor nor None.
        UnhashableStatic: an argument is neither a tree of tensors nor hashable.
        SideEffect: `f` changes an argument in place.
        HiddenRandomness: `f` draws from PyTorch's global generator.
        DonatedValueUsed: an argument was donated before.

    >>> double = jit(lambda params: {name: 2 * p for name, p in params.items()}, donate=0)
    >>> params = {"w": torch.ones(2)}
    >>> double(params)
    {'w': tensor([2., 2.])}
    >>> params["w"].sum()
    Traceback (most recent call last):
        ...
    functrain.errors.DonatedValueUsed: params.w was donated to <lambda>, which has been reused for the result; go on \
with the value that the call returned, or donate a copy

    See also: `scan`, `check`.
    """
    return Jitted(f, donate, static, backend)


class Jitted(Generic[P, R]):
    """A function made by `jit`.

    Attributes:
        traces: a `Trace` for each signature so far.
    """

    memo_of = ("_f",)

    def __init__(self, f: Callable[P, R], donate: Any, static: Any, backend: str) -> None:
        if not callable(f):
            raise InvalidArgument(f"f must be a function, got {type(f).__name__}")
        if backend not in (*BACKENDS, "replay"):
            names = ", ".join(map(repr, (*BACKENDS, "replay")))
            raise InvalidArgument(f"backend must be one of {names}, got {backend!r}")
        self._f, self._backend = f, backend
        self._names = parameter_names(f)
        self._donate, self._static = self._positions("donate", donate), self._positions("static", static)
        both = self._donate & self._static
        if both:
            raise InvalidArgument(f"an argument is both donated and static: {sorted(map(str, both))}")
        self._around: Any = None
        self._reasons: list[str] = []
        self._entries: tuple[Entry, ...] = ()
        self._fresh: dict[Entry, Trace] = {}  # what no call has returned from yet
        self.traces: tuple[Trace, ...] = ()
        functools.update_wrapper(self, f, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function, compiled."""
        is_usual = peek_interpreter_stack() is None and not dispatch_modes() and forward_ad._current_level < 0
        if is_usual and not torch.is_anomaly_enabled():
            for entry in self._entries:
                result = entry.run(args, kwargs)
                if result is not MISS:
                    if result is RETRY:
                        break
                    return result
        return self._unusual(args, kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """Return the function traced for such arguments, without running or compiling it.

        >>> "aten.mul" in jit(lambda x: 2 * x).lower(torch.ones(2)).code
        True
        """
        call = self._read(args, kwargs)
        with tracing():
            traced, results = self._trace(call)
        named = (_name(self._f), call.tensor_paths, results.paths)
        return Lowered(traced.gm, lambda: self._compile_for(call, traced, results), named)

    def explain(self) -> Explanation:
        """Return why the function was traced, how long it took, and what runs where, for each trace.

        >>> double = jit(lambda x: 2 * x)
        >>> _ = double(torch.ones(2)), double(torch.ones(3))
        >>> [signature.reason for signature in double.explain().signatures]
        ['first call', 'x: float32(2,) became float32(3,)']
        >>> print(double.explain())  # doctest: +ELLIPSIS
        <lambda>: 2 traces, backend 'aten', ... ms
        1. first call
           arguments    x: float32(2,)
           traced       ... ms, 1 operations (1 by own rules)
           compiled     ... ms by 'aten' for cpu, 1 calls of kernels, 0 of them in place
        2. x: float32(2,) became float32(3,)
           ...
        """
        signatures = (Signature(t.reason, t.seconds_traced, t.seconds_compiled, t.work) for t in self.traces)
        return Explanation(_name(self._f), self._backend, tuple(signatures))

    def __repr__(self) -> str:
        return f"jit({_name(self._f)}, backend={self._backend!r})"

    def _positions(self, option: str, value: Any) -> frozenset:
        chosen = (value,) if isinstance(value, (int, str)) else tuple(value)
        for one in chosen:
            number = isinstance(one, int) and not isinstance(one, bool) and one >= 0
            if not number and not isinstance(one, str):
                raise InvalidArgument(f"{option} must be positions from 0 or names of arguments, got {one!r}")
            if isinstance(one, str) and self._names and one not in self._names and not takes_any(self._f):
                raise InvalidArgument(f"{option}: {_name(self._f)} has no argument {one!r}, it has {list(self._names)}")
        by_name: dict[Any, int] = {name: k for k, name in enumerate(self._names)}
        return frozenset(by_name.get(one, one) for one in chosen)

    def _read(self, args: tuple, kwargs: dict) -> Call:
        return read_call(args, kwargs, self._names, self._donate, self._static)

    def _unusual(self, args: tuple, kwargs: dict) -> Any:
        """Run what no entry takes: a new signature, memory that is shared, or code that is transformed."""
        if not is_plain() or keeps_for_gradients_otherwise() or torch.is_anomaly_enabled() or is_in_mode_of_functions():
            return self._f(*args, **kwargs)
        with seldom_collecting():
            call = self._read(args, kwargs)
            wants_gradients = torch.is_grad_enabled() and any(t.requires_grad for t in call.originals)
            result = MISS if wants_gradients else self._by_entry(call)
        return self._f(*args, **kwargs) if result is MISS else result

    def _by_entry(self, call: Call) -> Any:
        """Return the result by an entry, traced again after each lesson; MISS where no graph will do."""
        for attempt in range(MOST_LESSONS + 1):
            try:
                entry = self._entry(call, replayed=attempt == MOST_LESSONS)
                if entry is None:
                    return MISS  # a graph would cut what is closed over off from its gradient
                return entry.run_apart(call) if entry in self._entries else self._first_call(entry, call)
            except Mispredicted as error:
                error.learn()
        return MISS

    def _entry(self, call: Call, replayed: bool) -> Entry | None:
        """Return the entry for a call, made if there is none; None where a tensor closed over requires gradients."""
        entry = self._fitting(call)
        if entry is not None:
            return entry
        with tracing():
            entry = self._fitting(call)  # made by another thread
            if entry is not None:
                return entry
            traced, results = self._trace(call)
            if torch.is_grad_enabled() and any(t.requires_grad for t in traced.closed):
                return None
            return self._compile(call, traced, results, replayed)

    def _fitting(self, call: Call) -> Entry | None:
        entries = (*self._entries, *self._fresh)
        return next((one for one in entries if one.matches(call.args, call.kwargs) is not MISS), None)

    def _first_call(self, entry: Entry, call: Call) -> Any:
        """Run a new entry, which compares what it predicted; only when it has returned others may use it.

        Raises:
            Mispredicted: a value is laid out another way; the entry is gone.
        """
        with entry.first:
            trace = self._fresh.get(entry)
            if trace is not None:
                try:
                    result = entry.run_apart(call)
                except Mispredicted:
                    del self._fresh[entry]
                    self.traces = tuple(one for one in self.traces if one is not trace)
                    raise
                self._entries = (entry, *self._entries)
                del self._fresh[entry]
                return result
        return self._unusual(call.args, call.kwargs)  # another thread has made the first call meanwhile

    def _trace(self, call: Call) -> tuple[Traced, Results]:
        results = Results()

        def flat(*tensors: Tensor) -> list[Tensor]:
            args, kwargs = call.rebuild(tensors)
            result = self._f(*args, **kwargs)
            return results.take(result, _name(self._f))

        self._look_around()
        traced = trace(flat, call.tensors, call.tensor_paths)
        without_vectors(traced.gm.graph)
        if not self._around.same():  # what the trace itself changes, such as a memo, is no reason for another
            self._around = self._around.after_trace()
        return traced, results

    def _look_around(self) -> None:
        if self._around is None:
            self._around = surroundings(self._f)
        elif not self._around.same():
            self._reasons.append(self._around.difference())
            self._around = surroundings(self._f, self._around)

    def _compile_for(self, call: Call, traced: Traced, results: Results) -> "Jitted":
        for attempt in range(MOST_LESSONS + 1):
            with tracing():
                try:
                    self._compile(call, traced, results, replayed=attempt == MOST_LESSONS)
                    break
                except Mispredicted as error:
                    error.learn()
                traced, results = self._trace(call)
        return self

    def _compile(self, call: Call, traced: Traced, results: Results, replayed: bool = False) -> Entry:
        began = time.perf_counter()
        replayed = replayed or self._backend == "replay" or bool(os.environ.get(REPLAY))
        run, pairs, written = (replay(traced.gm), (), ()) if replayed else self._backend_function(call, traced, results)
        made = Compiled(run, pairs, written, results.spec, results.tensor_at, traced, self._around, _name(self._f))
        entry = make_entry(call, made)
        seconds = time.perf_counter() - began
        work = work_of("replay" if replayed else self._backend, call, traced, run, pairs)
        trace = self._fresh[entry] = Trace(self._reason(call), traced.gm, traced.seconds, seconds, work)
        self.traces = (*self.traces, trace)
        count = len(self.traces)
        if count >= MOST_RETRACES and count & (count - 1) == 0:
            self._warn()
        return entry

    def _backend_function(self, call: Call, traced: Traced, results: Results) -> tuple[Callable, tuple, tuple]:
        """Return the function of a list of tensors, what donated input each result is put into, and what is written."""
        gm = simplify(functionalize(traced.gm))
        gm.meta["name"] = _name(self._f)
        inputs = {n: i for i, n in enumerate(placeholders(gm.graph))}
        nodes = outputs(gm.graph)
        described = [(p, n.meta["val"], inputs.get(n)) for p, n in zip(results.paths, nodes, strict=True)]
        donated = {i: (call.tensor_paths[i], traced.inputs[i]) for i in call.donated}
        pairs = tuple(sorted(pair(donated, described).items()))
        written = tuple(i for i, k in pairs if inputs.get(nodes[k]) != i)
        largest = largest_value(gm)
        run = importlib.import_module(BACKENDS[self._backend]).compile(gm, traced.inputs, pairs)
        keep_freed_memory(largest)
        return run, pairs, written

    def _reason(self, call: Call) -> str:
        if not self.traces:
            return "first call"
        entries = (*self._entries, *self._fresh)
        differences = min((same_arguments(entry.signature, call.signature) for entry in entries), key=len)
        reasons, self._reasons = self._reasons, []
        return "; ".join([*differences[:3], *reasons]) or "closed-over tensors, a mode or the default dtype differ"

    def _warn(self) -> None:
        seen: dict[str, list[str]] = {}
        for entry in (*reversed(self._entries), *self._fresh):
            for path, what in entry.signature.items():
                if what not in seen.setdefault(path, []):
                    seen[path].append(what)
        path, values = max(seen.items(), key=lambda item: len(item[1]), default=("", []))
        what = f"{path} was {', '.join(values[-MOST_RETRACES:])}" if len(values) > 1 else self.traces[-1].reason
        warnings.warn(
            f"{_name(self._f)} has been traced {len(self.traces)} times: {what}; make a number that changes a tensor, "
            "and pad what changes its shape",
            TooManyTraces,
            stacklevel=5,
        )


def _name(f: Callable) -> str:
    return getattr(f, "__name__", None) or type(f).__name__
