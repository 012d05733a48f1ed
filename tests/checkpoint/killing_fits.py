"""Kills fits that save, at random moments: `python killing_fits.py FOLDER KILLS SEED JIT`.

Each time the script is "started again", by a fork of a process that has imported everything, and goes on with the
newest checkpoint. In the end the run must be the uninterrupted one. Prints how often it was killed, and how far it
came.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from saving_problem import numbers, problem

import functrain as ft
from functrain import callbacks, checkpoint, tree

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def go_on(fit, state, folder, begun=None):
    """Go on with the newest checkpoint, as a script does, slowly enough to be killed in the middle."""

    def begin_epoch(run):
        if begun is not None:
            os.write(begun, b".")

    handlers = {"begin_epoch": begin_epoch, "after_batch": lambda run: time.sleep(0.002)}
    slow = ft.Callback("slow", handlers, keeps_state=False)
    taking_part = [callbacks.record(), slow, callbacks.save_checkpoints(folder, every=2, keep_last=2)]
    return fit(checkpoint.latest(folder) or state, callbacks=taking_part)


def kill_one(fit, state, folder, chance):
    """Let a process go on for a while, send it a signal, and return whether it was still at it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            go_on(fit, state, folder, writer)
            os._exit(0)
        except KeyboardInterrupt:
            os._exit(3)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(5)
    os.close(writer)
    if chance.random() < 0.9:
        os.read(reader, 1)  # until it has begun
    time.sleep(chance.uniform(0.0, 0.15))
    which = chance.choice(SIGNALS)
    os.kill(child, which)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            raise AssertionError(f"{which!r} did not end it")
        time.sleep(0.002)
    os.close(reader)
    code = os.waitstatus_to_exitcode(ended[1])
    assert code in (0, -which, 3 if which == signal.SIGINT else 0), f"{which!r} ended it with {code}"
    return code != 0


def main():
    """Kill, check, and print."""
    folder, kills, chance = Path(sys.argv[1]) / "run", int(sys.argv[2]), random.Random(int(sys.argv[3]))
    torch.set_num_threads(1)
    fit, state = problem(jit=sys.argv[4] != "False" and sys.argv[4], epochs=4)
    whole = fit(state, callbacks=[callbacks.record()])
    go_on(fit, state, folder.with_name("first"))  # so that everything is traced already
    killed, went_on = 0, []
    while killed < kills:
        was_at_it = kill_one(fit, state, folder, chance)
        killed += was_at_it
        newest = checkpoint.latest(folder)  # always whole
        step = newest.info["step"] if newest else 0
        assert not went_on or step >= went_on[-1], f"{step} after {went_on[-1]}"
        went_on.append(step)
        if not was_at_it or step == 28:
            check(go_on(fit, state, folder), whole)
            for path in folder.iterdir():
                path.unlink()
            went_on.append(0)
    check(go_on(fit, state, folder), whole)
    left = [path.name for path in folder.iterdir() if not path.name.startswith("checkpoint-")]
    assert not left, left
    print(killed, max(went_on))


def check(run, whole):
    """Raise unless a run is the uninterrupted one."""
    lines = tree.differences(numbers(run, "slow"), numbers(whole))
    assert not lines, "\n".join(lines)


if __name__ == "__main__":
    main()
