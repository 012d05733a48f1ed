"""What a step of one's own measures is computed by its own metric, wherever its run was saved, and from any source."""

import math

import attrs
import pytest
import torch

import functrain as ft
from functrain import checkpoint, metrics
from functrain.errors import InvalidArgument, TreeMismatch

BATCHES = [torch.tensor([0.5, 1.0]), torch.tensor([2.0]), torch.tensor([0.25, 0.5, 1.5]), torch.tensor([1.0])]
PERPLEXITY = attrs.evolve(metrics.mean(lambda p, t: p), compute=lambda acc: (acc.total / acc.weight).exp())
"""One whose accumulator is a mean's, so that a file of it looks as one of a mean."""
EXPECTED = math.exp(float(torch.cat(BATCHES).double().mean()))
KEY = ft.random.key(0)


class Again:
    """Batches that can be gone through again."""

    def __iter__(self):
        return iter(BATCHES)


class Shared(Again):
    """An iterable that goes on where the last look at it ended."""

    def __init__(self):
        self.batches = iter(BATCHES)

    def __iter__(self):
        return self.batches


GO_ON = {"generator": lambda: (batch for batch in BATCHES), "shared": Shared}
"""Those that give what comes next."""
BEGIN_AGAIN = {"list": lambda: list(BATCHES), "tuple": lambda: tuple(BATCHES)}


def measure(batch):
    return ft.Measured(PERPLEXITY, PERPLEXITY.update(PERPLEXITY.init(), batch, batch))


def step(total, batch):
    return total + batch.sum(), {"perplexity": measure(batch), "sum": batch.sum()}


def evaluate(total, batch):
    return step(total, batch)[1]


def stopping(phase, after):
    def stop(run):
        now = run.phase == phase and run.step == after and run.memory["stop"] == 0
        return ft.Stop(ft.train.remember(run, "stop", 1), scope="fit") if now else None

    return ft.Callback("stop", {"after_batch": stop}, memory=0, phases=("train", "valid"))


def saved(folder, phase, after, train, valid, jit):
    options = dict(callbacks=[stopping(phase, after)], jit=jit, evaluate=evaluate, valid_steps=4)
    run = ft.loop(step, torch.tensor(0.0), key=KEY, train=train, steps=4, valid=valid, **options)
    assert run.stopped is not None
    checkpoint.save(folder / "run", run)
    return checkpoint.restore(folder / "run"), options


def check(run):
    assert float(run.state) == pytest.approx(float(torch.cat(BATCHES).sum()))
    for phase in ("train", "valid"):
        assert run.history[f"{phase}/perplexity"] == [pytest.approx(EXPECTED)]
        assert run.history[f"{phase}/sum"] == [pytest.approx(sum(len(b) * float(b.sum()) for b in BATCHES) / 7)]


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("kind", [*GO_ON, *BEGIN_AGAIN])
def test_the_measured_is_computed_by_its_metric_wherever_the_run_was_saved(tmp_path, kind, jit):
    make = {**GO_ON, **BEGIN_AGAIN}[kind]
    for phase in ("train", "valid"):
        for after in (1, 2, 4):
            train, valid = make(), make()
            start, options = saved(tmp_path, phase, after, train, valid, jit)
            if after == 4 and kind in GO_ON:  # nothing is left of it: only a new one has a batch to ask the step by
                with pytest.raises(InvalidArgument, match=rf"a file does not name metrics.* {phase} has none left"):
                    ft.loop(step, start, train=train, valid=valid, **options)
                train, valid = (make(), valid) if phase == "train" else (train, make())
            check(ft.loop(step, start, train=train, valid=valid, **options))


def test_no_batch_is_lost_where_the_step_is_asked_what_it_logs(tmp_path):
    """One that begins again each time gives its batches from the first on, as the note says."""
    start, options = saved(tmp_path, "train", 2, Again(), Again(), False)
    run = ft.loop(step, start, train=Again(), valid=Again(), **options)
    assert float(run.state) == float(torch.cat([*BATCHES[:2], *BATCHES[:2]]).sum())


def test_a_step_that_logs_a_name_another_way_is_refused(tmp_path):
    def once(total, batch):
        return total, {"value": measure(batch) if len(batch) == 1 else batch.sum()}

    def then(total, batch):
        return total, {"value": measure(batch) if len(batch) > 1 else batch.sum()}

    options = dict(key=KEY, train=BATCHES, epochs=1, jit=False)
    with pytest.raises(InvalidArgument, match=r"logged 'value' as a scalar in earlier batches, .* as Measured now"):
        ft.loop(once, torch.tensor(0.0), chunk=1, **options)
    with pytest.raises(InvalidArgument, match=r"logged 'value' as Measured in earlier batches, .* as a scalar now"):
        ft.loop(then, torch.tensor(0.0), chunk=1, **options)


@pytest.mark.parametrize("now", ["a scalar", "nothing"])
def test_a_run_that_was_saved_with_another_step_is_refused(tmp_path, now):
    start, options = saved(tmp_path, "train", 2, BATCHES, BATCHES, False)

    def other(total, batch):
        return total, {"perplexity": batch.sum()} if now == "a scalar" else None

    words = {"a scalar": "'perplexity' as a scalar", "nothing": "nothing"}[now]
    with pytest.raises(TreeMismatch, match=rf"'perplexity' as Measured, and of the first batch this step logs {words}"):
        ft.loop(other, start, train=BATCHES, valid=BATCHES, **options)
