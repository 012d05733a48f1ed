"""The CUDA graph backend: what holds without a device, on a stand-in for the recording, and the rest on one."""

import pytest
import torch

from functrain import engine
from functrain.engine.backends import cudagraph
from functrain.engine.transforms.scanning.scans import scan
from functrain.errors import CudaMissing

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def step(inputs):
    """(state, x, scale) -> [state + x into state, x * scale, x]."""
    state, x, scale = inputs
    state.add_(x)
    return [state, x * scale, x]


@pytest.fixture
def recorder(monkeypatch):
    """A recorder whose recordings run the function again, on the recorded tensors, into the recorded outputs."""
    made = []

    def capture(step, copies, inputs):
        for one in copies:
            step(one)
        _, y, _ = step([t.clone() for t in inputs])
        outputs = [inputs[0], y.fill_(float("nan")), inputs[1]]
        made.append(len(copies))

        def replay():
            y.copy_(step(inputs)[1])

        return replay, outputs

    monkeypatch.setattr(cudagraph, "capture", capture)
    found = cudagraph.Recorder(step, ((0, 0),))
    found.made = made
    return found


def test_results_are_right_and_later_calls_leave_them_alone(recorder):
    state, scale = torch.zeros(3), torch.tensor(2.0)
    kept = []
    for k in range(1, 5):
        x = torch.full((3,), float(k))
        new, y, same = recorder.call([state, x, scale])
        assert new is state and same is x
        kept.append(y)
    assert torch.equal(state, torch.full((3,), 10.0))
    assert [y[0].item() for y in kept] == [2.0, 4.0, 6.0, 8.0]
    assert recorder.made == [cudagraph.WARM_UPS]


def test_state_in_another_place_is_recorded_anew_and_few_recordings_are_kept(recorder):
    states = [torch.zeros(3) for _ in range(cudagraph.MOST + 1)]
    for state in (*states, states[-1]):
        assert recorder.call([state, torch.ones(3), torch.tensor(1.0)])[0] is state
    assert [s[0].item() for s in states] == [1.0] * cudagraph.MOST + [2.0]
    assert recorder.made == [cudagraph.WARM_UPS] + [0] * cudagraph.MOST
    assert len(recorder.recordings) == cudagraph.MOST


def test_without_a_device_the_error_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CudaMissing, match="needs a CUDA device, and PyTorch sees none; use backend='aten'"):
        engine.jit(lambda x: x + 1, backend="cudagraph")(torch.ones(3))


def test_tensors_on_the_cpu_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(CudaMissing, match=r"all arguments on one CUDA device, got cpu; move them with tree.to"):
        engine.jit(lambda x: x + 1, backend="cudagraph")(torch.ones(3))
    with pytest.raises(CudaMissing, match="got no tensor"):
        cudagraph.check_cuda([])


@needs_cuda
def test_on_a_device_equals_aten_and_results_stay():
    def f(state, x):
        state = {"w": state["w"] - 0.1 * x.sum(0), "n": state["n"] + 1}
        return state, (x @ state["w"]).tanh()

    def run(backend):
        gen = torch.Generator("cuda").manual_seed(0)
        g, ys = engine.jit(f, donate=0, backend=backend), []
        state = {"w": torch.zeros(4, device="cuda"), "n": torch.zeros((), device="cuda", dtype=torch.int64)}
        for _ in range(5):
            state, y = g(state, torch.randn(8, 4, device="cuda", generator=gen))
            ys.append(y)
        return state, ys

    torch.testing.assert_close(run("cudagraph"), run("aten"))


@needs_cuda
def test_on_a_device_a_scan_is_recorded_whole():
    def f(carry, xs):
        return scan(lambda c, x: engine.Stop(c + x, c, when=(c + x).sum() > 20), carry, xs)

    xs = torch.ones(10, 3, device="cuda")
    carry = torch.zeros(3, device="cuda")
    torch.testing.assert_close(engine.jit(f, backend="cudagraph")(carry, xs), f(carry, xs))
