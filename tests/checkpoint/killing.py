"""Kills processes that save, at random moments, and looks at what is left: `python killing.py FOLDER KILLS SEED`.

A process of its own, because it forks: it has one thread, and has imported everything already.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from functrain import checkpoint


def value(number):
    """Return a value of several tensors, in which everything says the number; each other is laid out at once."""
    sizes = (3, 40_000, 200_000 + number % 2 * 100_000)
    return {"numbers": [torch.full((size,), number) for size in sizes], "number": number}


def check(loaded, least):
    """Return the number that a checkpoint says, which must be one everywhere and not less than what was finished."""
    number = loaded["number"]
    assert all(bool((part == number).all()) for part in loaded["numbers"]), "parts of two checkpoints"
    assert number >= least, f"{least} was finished, and {number} is the newest"
    return number


def save_for_ever(folder, done):
    """Save ever larger numbers, in a folder and over one file, and say when one is finished."""
    saved = checkpoint.latest(folder)
    number = saved.leaves["number"] if saved else 0
    while True:
        number += 1
        checkpoint.add(folder, value(number), info={"loss": number % 7})
        checkpoint.save(folder.parent / "one.safetensors", value(number))
        os.write(done, number.to_bytes(4, "little"))
        checkpoint.keep(folder, last=2, best=1, by="loss")


def kill_one(folder, delay):
    """Let a process save for some time, kill it, and return the last number that it finished."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            save_for_ever(folder, writer)
        finally:
            os._exit(1)
    os.close(writer)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it ended by itself"
    with os.fdopen(reader, "rb") as told:
        finished = told.read()
    return int.from_bytes(finished[-4:], "little")


def main():
    """Kill, check, and print how many were killed in the middle of a file."""
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    moments = random.Random(seed)
    least, left = 0, 0
    for _ in range(kills):
        least = max(least, kill_one(folder, moments.uniform(0, 0.1)))
        left += any(folder.glob(".*.partial"))
        saved = checkpoint.latest(folder)
        if saved:
            newest = check(checkpoint.load(checkpoint.entries(folder)[-1].path), least)
            assert saved.leaves["number"] == newest
        if (folder.parent / "one.safetensors").exists():
            check(checkpoint.load(folder.parent / "one.safetensors"), least)
    checkpoint.add(folder, value(least + 10))
    checkpoint.save(folder.parent / "one.safetensors", value(0))
    assert not list(folder.glob(".*")) and not list(folder.parent.glob(".one*")), "something half-done was left"
    print(left)


if __name__ == "__main__":
    main()
