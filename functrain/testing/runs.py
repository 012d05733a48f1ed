"""The laws of whole runs: that one stopped or saved anywhere goes on exactly, and what a callback must keep to."""

import tempfile
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from functrain import checkpoint, tree
from functrain.engine import Stop
from functrain.errors import DonatedValueUsed
from functrain.testing.laws import Laws, break_law, hold, same
from functrain.train import Callback, Run, remember
from functrain.train.looping.compiling import DONATED_FROM

Fitting = Callable[..., Run]
"""(state, callbacks=..., chunk=..., jit=...) -> the run: a `partial` of `fit` or `loop`."""

GUEST = "a guest of the laws"
"""The name of the callback that takes part beside those of the user."""


def check_resume(
    fitting: Fitting, state: Any, callbacks: Iterable[Callback] = (), *, skip: Collection[str] = ()
) -> tuple[str, ...]:
    """Check that a run goes on exactly from wherever it was saved, and return the names of the laws.

    The results are the same, bit for bit: the state, the history, each callback's memory.

    - "boundaries": saved between any two chunks or events, restored, and gone on with.
    - "stops": stopped before any batch, of training or validation, saved, restored, and gone on with.

    Args:
        fitting: `partial(fit, learner, train=..., epochs=...)`, or of `loop`, with all but the state and the callbacks.
            The fewer batches, the better: it is run as often as there are.
        state: the state to begin with.
        callbacks: the callbacks that take part.
        skip: the names of laws that are not checked.

    Raises:
        LawBroken: a law does not hold; the message says where it was stopped, and what differs.

    >>> import torch
    >>> from functrain import data, losses, nn, optim, random
    >>> from functrain.train import Learner, fit, init
    >>> rows = data.ArrayDataset((torch.ones(6, 3), torch.zeros(6, dtype=torch.int64)))
    >>> learner = Learner(nn.serial(nn.dense(2), nn.dropout(0.5)), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> fitting = partial(fit, learner, train=data.loader(rows, data.shuffled(2)), epochs=1, jit=False)
    >>> check_resume(fitting, init(learner, random.key(0), rows[:1]))
    ('boundaries', 'stops')
    """
    return hold("this run", resume_laws(fitting, state, callbacks), skip)


def resume_laws(fitting: Fitting, state: Any, callbacks: Iterable[Callback] = ()) -> Laws:
    """Return the laws of `check_resume` by name, to be checked one by one.

    >>> import torch
    >>> from functrain import data, random
    >>> from functrain.train import loop
    >>> rows = data.loader(data.ArrayDataset((torch.ones(6, 1), torch.ones(6))), data.sequential(2))
    >>> fitting = partial(loop, lambda total, batch: (total + 1, {}), key=random.key(0), train=rows, epochs=1)
    >>> resume_laws(fitting, torch.tensor(0.0))["stops"]()
    """
    arguments = (fitting, state, tuple(callbacks))
    return {"boundaries": partial(_boundaries, *arguments), "stops": partial(_stops, *arguments)}


def check_callback(callback: Callback, fitting: Fitting, state: Any, *, skip: Collection[str] = ()) -> tuple[str, ...]:
    """Check the laws of a callback in a fit, and return their names.

    - "pure": a second fit gives the same bits, and the state that it began with is as it was.
    - "chunks": the results do not depend on how many batches are one call.
    - "compiled": plain Python and compiled give the same, within a tolerance.
    - "kept": one that says `keeps_state=False` keeps nothing of the state that the loop overwrites.
    - "boundaries", "stops": it goes on exactly from wherever it was saved, as in `check_resume`.

    Args:
        callback: the callback.
        fitting: `partial(fit, learner, train=..., epochs=...)`, or of `loop`, with all but the state and the callbacks.
        state: the state to begin with.
        skip: the names of laws that it need not obey, such as ["chunks"] for one that counts chunks.

    Raises:
        LawBroken: a law does not hold; the message says which, and what differs.

    >>> import torch
    >>> from functrain import callbacks, data, losses, nn, optim, random
    >>> from functrain.train import Learner, fit, init
    >>> rows = data.ArrayDataset((torch.ones(6, 3), torch.zeros(6, dtype=torch.int64)))
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=0.1))
    >>> fitting = partial(fit, learner, train=data.loader(rows, data.shuffled(2)), epochs=1)
    >>> check_callback(callbacks.record(), fitting, init(learner, random.key(0), rows[:1]))
    ('pure', 'chunks', 'compiled', 'kept', 'boundaries', 'stops')
    """
    return hold(f"callback {callback.name!r}", callback_laws(callback, fitting, state), skip)


def callback_laws(callback: Callback, fitting: Fitting, state: Any) -> Laws:
    """Return the laws of `check_callback` by name, to be checked one by one.

    >>> import torch
    >>> from functrain import data, random
    >>> from functrain.train import loop
    >>> rows = data.loader(data.ArrayDataset((torch.ones(6, 1), torch.ones(6))), data.sequential(2))
    >>> fitting = partial(loop, lambda total, batch: (total + 1, {}), key=random.key(0), train=rows, epochs=1)
    >>> callback_laws(Callback("mine", {}), fitting, torch.tensor(0.0))["pure"]()
    """
    arguments = (callback, fitting, state)
    return {
        "pure": partial(_pure, *arguments),
        "chunks": partial(_chunks, *arguments),
        "compiled": partial(_compile, *arguments),
        "kept": partial(_keep, *arguments),
        **resume_laws(fitting, state, [callback]),
    }


def _outcome(run: Run) -> dict[str, Any]:
    memory = {name: value for name, value in run.memory.items() if name != GUEST}
    stopped = None if run.stopped is None else str(run.stopped)
    return {"state": run.state, "history": list(run.history), "memory": memory, "stopped": stopped}


def _boundaries(fitting: Fitting, state: Any, callbacks: tuple[Callback, ...]) -> None:
    still = Callback(GUEST, {})
    whole = _outcome(fitting(state, callbacks=[*callbacks, still]))
    with tempfile.TemporaryDirectory() as folder:
        fitting(state, callbacks=[*callbacks, attrs.evolve(still, boundary=partial(_save, Path(folder)))])
        for entry in checkpoint.entries(folder):
            saved = checkpoint.restore(entry.path)
            resumed = fitting(saved, callbacks=[*callbacks, still])
            same(whole, _outcome(resumed), f"uninterrupted, and saved at {entry.info['at']},")


def _save(folder: Path, run: Run) -> None:
    if run.point is not None and not run.finished:  # the fit was stopped, and would go on after that
        return
    at = f"epoch {run.epoch + 1}, phase {run.phase!r}, batch {run.step}, before {run.cursor.event!r}"
    checkpoint.add(folder, run, info={"at": at})


def _stops(fitting: Fitting, state: Any, callbacks: tuple[Callback, ...]) -> None:
    whole = _outcome(fitting(state, callbacks=[*callbacks, _stopping(-1)]))
    at, stopped = 0, fitting(state, callbacks=[*callbacks, _stopping(0)])
    while stopped.stopped is not None and stopped.stopped.callback == GUEST:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.add(folder, stopped)
            resumed = fitting(checkpoint.latest(folder), callbacks=[*callbacks, _stopping(-1)])
        where = str(stopped.stopped).partition(", ")[2].partition(":")[0]
        same(whole, _outcome(resumed), f"uninterrupted, and stopped in {where},")
        at += 1
        stopped = fitting(state, callbacks=[*callbacks, _stopping(at)])


def _stopping(at: int) -> Callback:
    """Return a callback that ends the fit before the batch `at` of all, those of validations among them."""

    def begin_batch(run: Run) -> Stop:
        seen = run.memory[GUEST]
        return Stop(remember(run, GUEST, seen + 1), scope="fit", reason="to go on with", when=seen == at)

    return Callback(GUEST, {"begin_batch": begin_batch}, memory=0, phases=("train", "valid"), keeps_state=False)


def _pure(callback: Callback, fitting: Fitting, state: Any) -> None:
    before = tree.clone(state)
    first, second = (_outcome(fitting(state, callbacks=[callback])) for _ in range(2))
    same(first, second, "two fits with it")
    same(before, state, "the state before and after a fit with it")


def _chunks(callback: Callback, fitting: Fitting, state: Any) -> None:
    one, several = (_outcome(fitting(state, callbacks=[callback], chunk=chunk)) for chunk in (1, 3))
    same(one, several, "chunks of one batch and of three")


def _compile(callback: Callback, fitting: Fitting, state: Any) -> None:
    eager, compiled = (_outcome(fitting(state, callbacks=[callback], jit=jit)) for jit in (False, "aten"))
    same(eager, compiled, "plain Python and compiled", rtol=1e-4, atol=1e-5)


def _keep(callback: Callback, fitting: Fitting, state: Any) -> None:
    if callback.keeps_state:
        return
    keeping = _outcome(fitting(state, callbacks=[attrs.evolve(callback, keeps_state=True)]))
    before = DONATED_FROM.set(0)  # as a large state is
    try:
        quiet = _outcome(fitting(state, callbacks=[callback]))
        lines = tree.differences(keeping, quiet)
    except DonatedValueUsed as error:
        lines = [str(error)]
    finally:
        DONATED_FROM.reset(before)
    if lines:
        break_law("\n  ".join(["with keeps_state=False what it keeps is overwritten; say True, or copy:", *lines]))
