"""A signal as a stop: the fit returns, the run goes on to the bit, and the handlers of before are back."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings

import pytest
from training_problems import problem

import functrain as ft
from functrain import callbacks, tree
from functrain.errors import InvalidArgument

OF_BATCHES = ("begin_batch", "after_batch", "after_chunk")
MOMENTS = [
    *((event, "train") for event in ("begin_fit", "begin_epoch", *OF_BATCHES, "after_epoch")),
    *((event, "valid") for event in ("begin_validate", *OF_BATCHES, "after_validate")),
]


def sending(number, event, phase, epoch=1, times=1):
    """Return a callback that sends this process a signal at an event, the first time that it comes in an epoch."""
    left = [times]

    def send(run):
        if left[0] and run.epoch == epoch and run.phase == phase:
            left[0] -= 1
            os.kill(os.getpid(), number)

    return ft.Callback("send", {event: send}, phases=("train", "valid"), order=-1)


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize(
    ("number", "jit"), [(signal.SIGINT, "aten"), (signal.SIGTERM, False), (signal.SIGTERM, "aten")]
)
@pytest.mark.parametrize(("event", "phase"), MOMENTS)
def test_a_signal_at_any_moment_stops_and_the_run_goes_on_to_the_bit(event, phase, number, jit):
    learner, state, train, valid = problem()
    options = dict(train=train, valid={"valid": valid, "second": valid}, jit=jit, chunk=3)
    epoch = 0 if event == "begin_fit" else 1
    before = handlers()

    def more(send):
        return [callbacks.stop_on_signal(), callbacks.record(), send]

    quiet = ft.Callback("send", {})
    whole = ft.fit(learner, state, epochs=3, callbacks=more(quiet), **options)
    run = ft.fit(learner, state, epochs=3, callbacks=more(sending(number, event, phase, epoch)), **options)
    assert handlers() == before
    assert (run.stopped.callback, run.stopped.scope) == ("stop_on_signal", "fit")
    assert run.stopped.reason == f"{number.name} came" and run.stopped.epoch == epoch
    assert not run.finished
    rest = ft.fit(learner, run, callbacks=more(quiet), **options)
    assert tree.equal(rest.state, whole.state) and rest.history == whole.history
    assert tree.equal(rest.memory["record"], whole.memory["record"]) and rest.stopped is None


def test_a_stop_inside_validation_does_not_wait_for_its_end():
    learner, state, train, valid = problem()
    noted = []
    seen = ft.Callback("seen", {"after_chunk": lambda run: noted.append((run.phase, run.step))}, phases=("valid",))
    send = sending(signal.SIGTERM, "begin_batch", "valid", epoch=0)
    run = ft.fit(learner, state, train=train, valid=valid, epochs=2, callbacks=[seen, send, callbacks.stop_on_signal()])
    assert noted == [("valid", 1)] and (run.stopped.phase, run.stopped.batch) == ("valid", 0)


def test_a_second_signal_does_what_it_does_without():
    learner, state, train, _ = problem()
    before = handlers()
    send = sending(signal.SIGINT, "begin_batch", "train", epoch=0, times=2)
    slow = ft.Callback("again", send.handlers, order=-2)
    with pytest.raises(KeyboardInterrupt) as caught:
        ft.fit(learner, state, train=train, epochs=2, callbacks=[send, slow, callbacks.stop_on_signal()])
    assert handlers() == before and int(caught.value.run.state.step) == 0
    came = []
    earlier = signal.signal(signal.SIGTERM, lambda *args: came.append(args[0]))
    try:
        once, twice = (sending(signal.SIGTERM, "begin_batch", "train", 0, times) for times in (1, 2))
        ft.fit(learner, state, train=train, epochs=2, callbacks=[once, callbacks.stop_on_signal()])
        assert came == []
        again = ft.Callback("again", twice.handlers)
        run = ft.fit(learner, state, train=train, epochs=2, callbacks=[twice, again, callbacks.stop_on_signal()])
        assert came == [signal.SIGTERM] and run.stopped.reason == "SIGTERM came"
    finally:
        signal.signal(signal.SIGTERM, earlier)


def test_other_signals_and_one_alone():
    learner, state, train, _ = problem()
    for chosen in (signal.SIGUSR1, [signal.SIGUSR1, signal.SIGUSR2]):
        stop = callbacks.stop_on_signal(chosen)
        run = ft.fit(
            learner, state, train=train, epochs=2, callbacks=[stop, sending(signal.SIGUSR1, "after_batch", "train", 0)]
        )
        assert run.stopped.reason == "SIGUSR1 came"


def test_one_that_comes_when_the_fit_is_over_is_warned_of():
    learner, state, train, _ = problem()
    late = ft.Callback("late", {"after_fit": lambda run: os.kill(os.getpid(), signal.SIGTERM)})
    with pytest.warns(UserWarning, match="SIGTERM came when the fit was over, and has done nothing; send it again"):
        run = ft.fit(learner, state, train=train, epochs=1, callbacks=[late, callbacks.stop_on_signal()])
    assert run.finished


def test_an_error_gives_the_handlers_back():
    learner, state, train, _ = problem()
    before = handlers()
    bad = ft.Callback("bad", {"after_epoch": lambda run: 1 / 0})
    with warnings.catch_warnings(), pytest.raises(ZeroDivisionError):
        ft.fit(learner, state, train=train, epochs=1, callbacks=[bad, callbacks.stop_on_signal()])
    assert handlers() == before


def test_outside_of_the_main_thread_it_is_refused():
    learner, state, train, _ = problem()
    raised = []

    def fit():
        try:
            ft.fit(learner, state, train=train, epochs=1, callbacks=[callbacks.stop_on_signal()])
        except InvalidArgument as error:
            raised.append(str(error))

    thread = threading.Thread(target=fit)
    thread.start()
    thread.join()
    assert raised and raised[0].startswith("signals come in the main thread alone, and this fit runs in another one")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["SIGTERM"], "signals must be signals, such as signal.SIGTERM, got 'SIGTERM'"),
        (9999, "signals must be signals, such as signal.SIGTERM, got 9999"),
        (signal.SIGKILL, "signals: SIGKILL ends or halts a process at once, and no process can handle it"),
    ],
)
def test_what_is_no_signal_is_refused(wrong, message):
    with pytest.raises(InvalidArgument, match=message):
        callbacks.stop_on_signal(wrong)


def test_a_handler_that_is_not_pythons_is_not_taken_over(monkeypatch):
    learner, state, train, _ = problem()
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    with pytest.raises(InvalidArgument, match="SIGINT has a handler that is not Python's, which could not be put back"):
        ft.fit(learner, state, train=train, epochs=1, callbacks=[callbacks.stop_on_signal()])


SCRIPT = """
import sys, torch, functrain as ft
from functrain import callbacks, data, losses, nn, optim, tree

rows = data.ArrayDataset((torch.randn(512, 4), torch.randint(3, (512,))))
learner = ft.Learner(nn.dense(3), losses.cross_entropy, optim.sgd(0.1, momentum=0.9))
state = ft.init(learner, ft.random.key(0), rows[:1])
options = dict(train=data.loader(rows, data.shuffled(8)), valid=data.loader(rows, data.sequential(16)))
first = [ft.Callback("say", {"begin_epoch": lambda run: print("epoch", flush=True)}), callbacks.stop_on_signal()]
hang = ft.Callback("hang", {"after_epoch": lambda run: __import__("time").sleep(60)})
if sys.argv[1] == "hang":
    ft.fit(learner, state, epochs=100000, callbacks=[first[0], hang, first[1]], **options)
run = ft.fit(learner, state, epochs=100000, callbacks=first, **options)
print("stopped", run.stopped.reason, flush=True)
at = run.epoch + 2
short = [ft.Callback("say", {}), callbacks.stop_on_signal(), ft.Callback("end", {})]
enough = {"after_epoch": lambda run: ft.Stop(run, when=run.epoch == at)}
rest, whole = (
    ft.fit(learner, begun, epochs=100000, callbacks=[ft.Callback("say", enough), callbacks.stop_on_signal()], **options)
    for begun in (run, state)
)
print("equal", tree.equal(rest.state, whole.state) and rest.history == whole.history, flush=True)
"""


def started(how):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "epoch\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_a_script(number):
    with started("once") as process:
        for _ in range(2):
            process.stdout.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=100)
    lines = [line for line in out.splitlines() if line != "epoch"]
    assert (process.returncode, lines) == (0, [f"stopped {number.name} came", "equal True"]), err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_one_ends_a_script_that_hangs(number):
    with started("hang") as process:
        threading.Event().wait(1.0)  # in the first epoch, or where it hangs
        process.send_signal(number)
        threading.Event().wait(0.5)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    if number == signal.SIGTERM:
        assert process.returncode == -signal.SIGTERM
    else:
        assert "KeyboardInterrupt" in err and process.returncode != 0
