"""The backend that records all kernels of a graph once, as one CUDA graph, and then launches them at once.

It saves what the host spends on each operation, without compiling anything. A recorded graph reads and writes the same
memory at each launch. So arguments are copied into buffers of its own, and results out of them: they are never
overwritten under the user. Donated tensors alone are read and written where they are; since the next call gets them
back, that is the same place each time, and another place is recorded anew, in milliseconds.
"""

from collections.abc import Callable

import attrs
import torch
from torch import Tensor
from torch.fx import GraphModule

from functrain.engine.backends import aten
from functrain.engine.graph.scan_node import Body, Pairs
from functrain.errors import CudaMissing

WARM_UPS = 3
"""Calls before the first recording: libraries choose kernels and allocate their workspaces in the first ones."""

MOST = 4
"""Recordings kept, one for each place where donated tensors were; each holds the memory of its intermediate values."""


def compile(gm: GraphModule, example_inputs: list[Tensor], donated: Pairs = ()) -> Body:
    """Return the function of a graph, recorded as a CUDA graph at its first call.

    Args:
        gm: a graph that takes tensors and returns a list of tensors, all on one CUDA device.
        example_inputs: tensors like the inputs, without memory.
        donated: pairs (input, output): the output is put into the memory of the input, which is returned for it.

    Raises:
        CudaMissing: there is no CUDA device, or an input is not on it.
    """
    check_cuda(example_inputs)
    return Recorder(aten.compile(gm, example_inputs, donated), donated).call


def check_cuda(inputs: list[Tensor]) -> None:
    """Raise `CudaMissing` unless there is a CUDA device and all inputs are on one."""
    if not torch.cuda.is_available():
        raise CudaMissing("backend='cudagraph' needs a CUDA device, and PyTorch sees none; use backend='aten'")
    devices = sorted({str(t.device) for t in inputs})
    if len(devices) != 1 or not devices[0].startswith("cuda"):
        raise CudaMissing(
            f"backend='cudagraph' needs all arguments on one CUDA device, got {', '.join(devices) or 'no tensor'}; "
            "move them with tree.to(tree, 'cuda'), or use backend='aten'"
        )


@attrs.frozen
class Recording:
    """A CUDA graph and what it reads and writes.

    Attributes:
        replay: launches it.
        buffers: the buffer for each input by position, without those that are donated.
        outputs: its results, overwritten by each launch.
    """

    replay: Callable[[], None]
    buffers: dict[int, Tensor]
    outputs: list[Tensor]


class Recorder:
    """A function of tensors, and its recordings by the addresses of what is donated.

    It holds no donated tensor itself: what it would hold, nobody could donate again. A recording is only launched when
    its caller passes tensors at those addresses, and so keeps their memory alive.
    """

    def __init__(self, step: Body, donated: Pairs):
        self.step = step
        self.owned = {i for i, _ in donated}
        self.into = {o: i for i, o in donated}
        self.recordings: dict[tuple[int, ...], Recording] = {}

    def call(self, inputs: list[Tensor]) -> list[Tensor]:
        """Run the function; a first call, and one with donated tensors in another place, records it."""
        key = tuple(inputs[i].data_ptr() for i in sorted(self.owned))
        recording = self.recordings.get(key)
        if recording is None:
            recording = self._record(key, inputs)
        _copy(recording.buffers, inputs)
        recording.replay()
        return self._results(recording, inputs)

    def _record(self, key: tuple[int, ...], inputs: list[Tensor]) -> Recording:
        # Warmed up on copies, because each call writes into what is donated.
        copies = [[_like(t) for t in inputs] for _ in range(0 if self.recordings else WARM_UPS)]
        buffers = {i: _like(t) for i, t in enumerate(inputs) if i not in self.owned}
        if len(self.recordings) >= MOST:
            del self.recordings[next(iter(self.recordings))]
        replay, outputs = capture(self.step, copies, [buffers.get(i, t) for i, t in enumerate(inputs)])
        kept = [t.new_empty(0) if o in self.into else t for o, t in enumerate(outputs)]
        self.recordings[key] = Recording(replay, buffers, kept)
        return self.recordings[key]

    def _results(self, recording: Recording, inputs: list[Tensor]) -> list[Tensor]:
        unchanged = {id(buffer): i for i, buffer in recording.buffers.items()}
        results = []
        for o, t in enumerate(recording.outputs):
            if o in self.into:
                results.append(inputs[self.into[o]])
            else:
                results.append(inputs[unchanged[id(t)]] if id(t) in unchanged else t.clone())
        return results


def capture(step: Body, copies: list[list[Tensor]], inputs: list[Tensor]) -> tuple[Callable[[], None], list[Tensor]]:
    """Record a function on these very inputs, without running it on them; return how to launch it, and its outputs."""
    with torch.cuda.device(inputs[0].device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for one in copies:
                step(one)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = step(inputs)
    return graph.replay, outputs


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def _copy(buffers: dict[int, Tensor], inputs: list[Tensor]) -> None:
    if buffers:
        torch._foreach_copy_(list(buffers.values()), [inputs[i] for i in buffers])  # pyright: ignore
