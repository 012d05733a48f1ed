"""The recorder: what every single step measured, as data."""

from typing import Any

import torch
from torch import Tensor

from functrain.schedule import Progress
from functrain.train.events import Callback
from functrain.train.learner import hyperparameters
from functrain.train.run import Run, remember


def record(name: str = "record") -> Callback:
    """Return a callback that records the values of every training step.

    After the fit, `result.memory["record"]` is a dict of 1-d CPU tensors with an entry a step: "step" (from the
    beginning of the run), "epoch" (with its fraction), "loss", each metric, and each hyperparameter at its value in
    that step. Nothing waits for the device before the fit ends. `plot.history` draws it.

    >>> record().name
    'record'
    """

    def after_chunk(run: Run) -> Run | None:
        if run.phase != "train" or not run.logs:
            return None
        rows = len(run.logs["loss"])
        first = run.epoch * run.steps + run.step - rows
        # A linked list: one more link does not copy the ones before.
        return remember(run, name, ((first, rows, run.logs), run.memory[name]))

    def after_fit(run: Run) -> Run:
        return remember(run, name, _columns(run, _unlink(run.memory[name])))

    return Callback(name, {"after_chunk": after_chunk, "after_fit": after_fit}, order=50, keeps_state=False)


def _unlink(links: Any) -> list[Any]:
    found = []
    while links:
        link, links = links
        found.append(link)
    return found[::-1]


def _columns(run: Run, chunks: list[Any]) -> dict[str, Tensor]:
    if not chunks:
        return {}
    step = torch.cat([torch.arange(first, first + rows) for first, rows, _ in chunks])
    measured = {name: torch.cat([logs[name] for _, _, logs in chunks]).cpu() for name in chunks[0][2]}
    position = step.double() / int(run.state.end - run.state.start)
    at = Progress(position, step, position * run.epochs)
    hypers = {name: _column(value, step) for name, value in hyperparameters(run.learner, at).items()}
    return {"step": step, "epoch": position * run.epochs, **measured, **hypers}


def _column(value: Any, step: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).expand(len(step))
