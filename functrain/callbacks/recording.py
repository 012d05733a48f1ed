"""The recorder: what every single step measured, as data."""

from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.train.events import Callback, remember
from functrain.train.run import Run, batches_done
from functrain.train.tally import check_name


def record(name: str = "record") -> Callback:
    """Return a callback that records the values of every training step.

    After the fit, `run.memory["record"]` is a dict of 1-d CPU tensors with an entry a step: "step" (from the beginning
    of the run), "epoch" (with its fraction), "loss", each metric, what `log` added, and each scheduled hyperparameter
    at the value that the step used. Nothing waits for the device before the fit ends. `plot.history` draws it.

    >>> record().name
    'record'
    """

    def after_chunk(run: Run) -> Run | None:
        if run.phase != "train" or not run.logs:
            return None
        for column in run.logs:
            check_name(column, f"callback {name!r}, run.logs")
        rows = len(next(iter(run.logs.values())))
        step = torch.arange(batches_done(run) - rows, batches_done(run))
        return remember(run, name, _append(run.memory[name], {"step": step, **run.logs}))

    def after_fit(run: Run) -> Run:
        return remember(run, name, _columns(run, run.memory[name]))

    return Callback(name, {"after_chunk": after_chunk, "after_fit": after_fit}, order=50, keeps_state=False)


def _append(blocks: tuple, block: dict[str, Tensor]) -> tuple:
    """Return the blocks with one more, those of about its length joined with it.

    So there are few of them, however many steps, and each row is copied few times: the lengths are as those of the
    digits of a binary counter.
    """
    while blocks and len(blocks[-1]["step"]) <= len(block["step"]) and blocks[-1].keys() == block.keys():
        block = _join([blocks[-1], block])
        blocks = blocks[:-1]
    return (*blocks, block)


def _join(blocks: Any) -> dict[str, Tensor]:
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def _columns(run: Run, blocks: tuple) -> dict[str, Tensor]:
    if not blocks:
        return {}
    names = dict.fromkeys(name for block in blocks for name in block)
    whole = [{name: block[name] if name in block else _nothing(block) for name in names} for block in blocks]
    columns = tree.to(_join(whole), "cpu")
    length = run.plan.lengths["train"]
    return {"step": columns["step"], "epoch": columns["step"].double() / length, **columns}


def _nothing(block: dict[str, Tensor]) -> Tensor:
    return torch.full(block["step"].shape, float("nan"), dtype=torch.float64)
