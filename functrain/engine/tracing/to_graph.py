"""From a pure function of tensors to the graph of the operations that it performed, writes included."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from functrain.dispatch_contexts import unseen
from functrain.dispatch_state import innermost
from functrain.engine.tracing.compiling_flag import compiling
from functrain.engine.tracing.modes.watching import Watching, watching_storages
from functrain.engine.tracing.recording import Recording, record_apart
from functrain.engine.tracing.refusals import in_words


@attrs.frozen
class Traced:
    """A function of tensors as a graph.

    Attributes:
        gm: an `fx.GraphModule` that takes the tensors and returns a list of tensors. It holds what was done in the
            order in which it was done, with the writes to its own values; it changes no input and no constant.
        inputs: a tensor without memory for each, of its shape, strides, offset, dtype and device.
        offsets: which inputs must have the storage offset of these ones, as the function looked at it.
        closed: the tensors closed over, without numbers written in the code.
        asked: the tensors closed over whose values Python looked at, each with these values.
        looked: what else Python asked of tensors closed over, as (tensor, question, answer).
        seconds: how long it took.
        inferred: how the layouts of results were found, counted, see `meta.inference`.
    """

    gm: GraphModule
    inputs: list[Tensor]
    offsets: frozenset[int]
    closed: list[Tensor]
    asked: list[tuple[Tensor, Tensor]]
    looked: list[tuple[Tensor, Callable[[Tensor], Any], Any]]
    seconds: float
    inferred: dict[str, int] = attrs.field(factory=dict)

    @property
    def placeholders(self) -> list[Node]:
        """The nodes of the inputs."""
        return list(self.gm.graph.find_nodes(op="placeholder"))

    @property
    def results(self) -> list[Any]:
        """The nodes of the results."""
        return list(self.gm.graph.output_node().args[0])  # pyright: ignore


def trace(f: Callable[..., list[Tensor]], tensors: list[Tensor], names: list[str] | None = None) -> Traced:
    """Run a function on tensors without memory and return the operations that it performed.

    Args:
        f: a function of tensors that returns a list of tensors.
        tensors: what to trace it with; their shapes, strides, dtypes and devices count, not their values.
        names: the name of each, for messages.

    Raises:
        NotTraceable: the function looks at the values of a tensor.
        SideEffect: it changes one in place.
        HiddenRandomness: it draws from the global generator.
        DeviceMismatch: it combines tensors of different devices.

    >>> trace(lambda x: [x.t() @ x], [torch.ones(2, 3)]).gm.code.split()[-1]
    '[mm]'
    """
    began = time.perf_counter()
    names = names or [f"argument {k}" for k in range(len(tensors))]
    with torch.no_grad(), _by_itself(), compiling(), in_words(), record_apart() as recording:
        with unseen():
            inputs = [recording.input(t, name) for t, name in zip(tensors, names, strict=True)]
        with Watching(recording), watching_storages():
            results = f(*inputs)
        with unseen():
            gm = recording.finish([innermost(t) for t in results])
    return _trace(gm, recording, time.perf_counter() - began)


def _trace(gm: GraphModule, recording: Recording, seconds: float) -> Traced:
    examples = [node.meta["val"] for node in gm.graph.find_nodes(op="placeholder")]
    closed = [t for name, t in recording.constants.items() if name not in recording.literals]
    return Traced(
        gm=gm,
        inputs=examples,
        offsets=frozenset(recording.offsets),
        closed=closed,
        asked=recording.asked,
        looked=[*recording.looked.values()],
        seconds=seconds,
        inferred=recording.inferred,
    )


@contextlib.contextmanager
def _by_itself() -> Iterator[None]:
    # The cache would give tensors of the trace to what runs after it, and of what ran before to the trace; and the
    # detection of anomalies looks at the values of gradients.
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.autograd.set_detect_anomaly(False):
            yield
    finally:
        torch.set_autocast_cache_enabled(before)
