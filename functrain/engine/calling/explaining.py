"""What is known of a compiled function: why it was traced, how long that took, and what runs where."""

from collections.abc import Callable, Iterable
from typing import Any

import attrs
from torch import Tensor

from functrain.engine.calling.call_arguments import Call
from functrain.engine.tracing.to_graph import Traced

_MOST_NAMES = 4
"""Dotted paths that are written out; the others are counted."""

_KINDS = {
    "view": "views",
    "rule": "by own rules",
    "write": "writes",
    "learned": "as seen at a first call",
    "trial": "by trial runs",
    "meta": "by PyTorch's meta kernels",
}
"""How the layout of a result was found -> the words for it."""


@attrs.frozen
class Work:
    """What one trace recorded, and what the backend made of it.

    Attributes:
        backend: what runs it: a backend, or "replay".
        devices: where its tensors are.
        arguments: dotted path of each argument -> its dtype and shape, or its static value.
        operations: how many were recorded.
        inferred: how the layouts of their results were found -> how many: "view", "rule" (functrain's own), "write",
            "trial" (the operation was run on zeros, once in a process), "learned" and "meta" (PyTorch's).
        kernels: how many calls of kernels the compiled function makes, None where that cannot be told.
        in_place: how many of them write into memory that is there already, None where that cannot be told.
        donated: the dotted paths of the donated tensors.
        reused: those of them whose memory holds a result.
        closed_over: how many tensors the function closes over; that they are the same is checked at each call.
        compared: how many of these have values that Python looked at, which are compared at each call.
    """

    backend: str
    devices: tuple[str, ...]
    arguments: dict[str, str]
    operations: int
    inferred: dict[str, int]
    kernels: int | None
    in_place: int | None
    donated: tuple[str, ...]
    reused: tuple[str, ...]
    closed_over: int
    compared: int


@attrs.frozen
class Signature:
    """One trace of a function, as `explain` tells it.

    Attributes:
        reason: why it was made: "first call", or what differed from the most similar trace before.
        seconds_traced: the time that tracing took.
        seconds_compiled: the time that the backend took.
        work: what was recorded and compiled.
    """

    reason: str
    seconds_traced: float
    seconds_compiled: float
    work: Work


@attrs.frozen(repr=False)
class Explanation:
    """What `Jitted.explain` returns; its repr is a table.

    Attributes:
        name: of the function.
        backend: what it was compiled by.
        signatures: one for each trace, in order.
    """

    name: str
    backend: str
    signatures: tuple[Signature, ...]

    @property
    def seconds(self) -> float:
        """The time that all tracing and compiling took."""
        return sum(s.seconds_traced + s.seconds_compiled for s in self.signatures)

    def __repr__(self) -> str:
        count = len(self.signatures)
        head = f"{self.name}: {count} trace{'' if count == 1 else 's'}, backend {self.backend!r}, {_time(self.seconds)}"
        return "\n".join([head, *(line for k, s in enumerate(self.signatures) for line in _lines_of(k + 1, s))])


def work_of(backend: str, call: Call, traced: Traced, run: Callable, pairs: Iterable[tuple[int, int]]) -> Work:
    """Return what there is to tell of a trace and what a backend made of it.

    Args:
        backend: its name.
        call: the arguments.
        traced: the trace.
        run: what the backend returned; its attributes `kernels` and `in_place` say how many calls it makes.
        pairs: (input, result): the donated input in whose memory the result is put.
    """
    nodes = [n for n in traced.gm.graph.nodes if n.op == "call_function"]
    values = (n.meta.get("val") for n in traced.gm.graph.nodes)
    devices = dict.fromkeys(str(v.device) for v in values if isinstance(v, Tensor))
    return Work(
        backend,
        tuple(devices),
        dict(call.signature),
        len(nodes),
        dict(traced.inferred),
        getattr(run, "kernels", None),
        getattr(run, "in_place", None),
        tuple(call.tensor_paths[i] for i in call.donated),
        tuple(call.tensor_paths[i] for i, _ in pairs),
        len(traced.closed),
        len(traced.asked),
    )


def _lines_of(number: int, signature: Signature) -> list[str]:
    work = signature.work
    inferred = ", ".join(f"{n} {_KINDS[kind]}" for kind, n in work.inferred.items())
    calls = "" if work.kernels is None else f", {work.kernels} calls of kernels"
    calls += "" if work.in_place is None else f", {work.in_place} of them in place"
    rows = {
        "arguments": _in_words([f"{path}: {what}" for path, what in work.arguments.items()]),
        "traced": f"{_time(signature.seconds_traced)}, {work.operations} operations ({inferred})",
        "compiled": f"{_time(signature.seconds_compiled)} by {work.backend!r} for {', '.join(work.devices)}{calls}",
        "donated": f"{_in_words(list(work.donated))}; {len(work.reused)} hold a result" if work.donated else "",
        "closed over": f"{work.closed_over} tensors, the values of {work.compared} compared"
        if work.closed_over
        else "",
    }
    return [f"{number}. {signature.reason}", *(f"   {name:<12} {words}" for name, words in rows.items() if words)]


def _in_words(names: list[Any]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"
