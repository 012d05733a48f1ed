"""The law of loops: a step of one's own gives the same in every chunking, from every stop, and from the disk."""

import os
import random

import pytest
from random_fits import stopper
from random_loops import draw, run
from torch.utils.data import DataLoader

import functrain as ft
from functrain import checkpoint, tree

SEEDS = range(int(os.environ.get("FUNCTRAIN_LOOPS", "6")))
"""How many loops are drawn."""


def same(one, other, words):
    memories = [{k: v for k, v in r.memory.items() if k != "stopper"} for r in (one, other)]
    assert tree.equal(one.state, other.state), (words, tree.differences(one.state, other.state))
    assert tree.equal(*memories), (words, tree.differences(*memories))
    assert repr(list(one.history)) == repr(list(other.history)), words
    assert one.stopped == other.stopped, words


def near(one, other, words):
    assert not tree.differences(one.state, other.state, rtol=2e-3, atol=2e-4), words
    assert len(one.history) == len(other.history), words
    for a, b in zip(one.history, other.history, strict=True):
        assert a == pytest.approx(b, rel=2e-3, abs=2e-4, nan_ok=True), words


@pytest.mark.parametrize("seed", SEEDS)
def test_chunks_change_no_bit_and_compiling_no_number(seed):
    loop = draw(seed)
    eager = [run(loop, jit=False, chunk=chunk) for chunk in (1, 3, 1000)]
    compiled = [run(loop, jit="aten", chunk=chunk) for chunk in (1, 3, 8, 1000)]
    for runs in (eager, compiled):
        for other in runs[1:]:
            same(runs[0], other, loop.words)
    near(eager[0], compiled[0], loop.words)


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_loop_goes_on_from_any_stop_and_from_the_disk(seed, jit, tmp_path):
    loop, rng = draw(seed), random.Random(seed)
    lists = {name: list(one) if isinstance(one, DataLoader) else one for name, one in loop.options["valid"].items()}
    train = loop.options["train"]
    options = dict(jit=jit, valid=lists, train=list(train) if isinstance(train, DataLoader) else train)
    for number in range(4):
        event = rng.choice([e for e in ft.train.HOST_EVENTS if e != "after_fit"])
        at = rng.choice([1, 2, 3, 7])
        whole = run(loop, more=[stopper(event, 10**6)], chunk=3, **options)
        more = [stopper(event, at)]
        stopped = run(loop, more=more, chunk=3, **options)
        words = (loop.words, event, at)
        if stopped.stopped is None or stopped.stopped.callback != "stopper":
            same(stopped, whole, words)
            continue
        chunk = rng.choice([1, 3, 8])
        same(run(loop, stopped, more=more, chunk=chunk, **options), whole, words)
        checkpoint.save(tmp_path / f"{number}.safetensors", stopped)
        saved = checkpoint.restore(tmp_path / f"{number}.safetensors")
        same(run(loop, saved, more=more, chunk=chunk, **options), whole, (*words, "from the disk"))
