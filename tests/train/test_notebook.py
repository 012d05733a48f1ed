"""A fit in a real Jupyter kernel is interrupted by its button: the run is there, and goes on to the bit."""

import time

import pytest

jupyter_client = pytest.importorskip("jupyter_client", reason="the extra test installs it")

SETUP = """
import torch, functrain as ft
from functrain import callbacks, data, losses, nn, optim, tree

rows = data.ArrayDataset((torch.randn(512, 4), torch.randint(3, (512,))))
learner = ft.Learner(nn.dense(3), losses.cross_entropy, optim.sgd(0.1, momentum=0.9))
state = ft.init(learner, ft.random.key(0), rows[:1])
options = dict(train=data.loader(rows, data.shuffled(8)), valid=data.loader(rows, data.sequential(16)))
"""
# The line and its end are one write, as Ctrl-C may come between two.
FIT = """
say = ft.Callback("say", {"begin_epoch": lambda run: print("epoch\\n", end="", flush=True)})
try:
    ft.fit(learner, state, epochs=100000, callbacks=[say], jit=JIT, **options)
except KeyboardInterrupt as error:
    interrupted = error
print("interrupted", interrupted.run.epoch, flush=True)
"""
GO_ON = """
enough = {"after_epoch": lambda run: ft.Stop(run, when=run.epoch == interrupted.run.epoch + 1)}
rest, whole = (
    ft.fit(learner, begun, epochs=100000, callbacks=[ft.Callback("say", enough)], jit=JIT, **options)
    for begun in (interrupted.run, state)
)
print("equal", tree.equal(rest.state, whole.state) and rest.history == whole.history, len(whole.history) > 2)
"""
STOPPED = """
stopping = [ft.Callback("say", say.handlers), callbacks.stop_on_signal()]
run = ft.fit(learner, state, epochs=100000, callbacks=stopping, **options)
print("stopped", run.stopped.reason, flush=True)
"""


class Kernel:
    """A kernel and its client."""

    def __init__(self):
        self.manager, self.client = jupyter_client.manager.start_new_kernel(startup_timeout=60)

    def run(self, code, interrupt_after=None):
        """Return what a cell printed; interrupt it some time after it has printed three lines."""
        message = self.client.execute(code)
        printed, interrupted = "", False
        while True:
            answer = self.client.get_iopub_msg(timeout=60)
            if answer["parent_header"].get("msg_id") != message:
                continue
            kind, content = answer["msg_type"], answer["content"]
            printed += content["text"] if kind == "stream" else "\n".join(content.get("traceback", ()))
            if interrupt_after is not None and not interrupted and printed.count("epoch\n") >= 3:
                time.sleep(interrupt_after)
                self.manager.interrupt_kernel()
                interrupted = True
            if kind == "status" and content["execution_state"] == "idle":
                return printed.replace("epoch\n", "").strip()

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture(scope="module")
def kernel():
    kernel = Kernel()
    try:
        assert kernel.run(SETUP) == ""
        yield kernel
    finally:
        kernel.close()


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("moment", [0.0, 0.0123])
def test_an_interrupted_fit_has_its_run_and_goes_on_to_the_bit(kernel, moment, jit):
    cell = FIT.replace("JIT", repr(jit))
    assert kernel.run(cell, interrupt_after=moment).startswith("interrupted")
    assert kernel.run(GO_ON.replace("JIT", repr(jit))) == "equal True True"


def test_a_cell_without_a_try_has_the_run_in_the_last_error(kernel):
    cell = FIT[: FIT.index("try:")] + "run = ft.fit(learner, state, epochs=100000, callbacks=[say], **options)"
    assert "KeyboardInterrupt" in kernel.run(cell, interrupt_after=0.0)
    assert kernel.run("import sys; print(sys.last_value.run.epoch > 0)") == "True"


def test_by_stop_on_signal_the_button_is_a_stop(kernel):
    kernel.run("say = ft.Callback('say', {'begin_epoch': lambda run: print('epoch', flush=True)})")
    assert kernel.run(STOPPED, interrupt_after=0.0) == "stopped SIGINT came"
    assert kernel.run("import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)") == "True"
