"""Random faults: a random fit with something in it that raises at one batch, and the same fit without."""

import random

import attrs
import torch
from training_problems import Rows

import functrain as ft
from functrain import data

SIZE = 5
"""The batch size of the random fits."""


@attrs.frozen
class Fault:
    """Where a fit fails.

    Attributes:
        broken: the fit with the fault.
        whole: the same fit without it, of callbacks by the same names.
        batch: how many batches of an epoch are done when it comes; None where that is no matter.
        alike: whether plain Python and compiled code say the same; else the class of the error alone is the same.
    """

    broken: object
    whole: object
    batch: int | None
    alike: bool = True


class Failing(Rows):
    """A dataset of which one example cannot be read."""

    def __init__(self, rows, bad):
        super().__init__(rows)
        self.bad = bad

    def __getitem__(self, index):
        if index == self.bad:
            raise OSError(f"example {index} is gone")
        return self.rows[index]


def dataset(fit, rng):
    """A row that cannot be read: an order that is no matter of chance says in which batch."""
    n = len(fit.train.dataset)
    bad = rng.randrange(SIZE, n - n % SIZE)
    loader = attrs.evolve(fit.train, sampler=data.sequential(SIZE, fit.train.sampler.remainder))
    loaders = [attrs.evolve(loader, dataset=rows) for rows in (Failing(loader.dataset, bad), Rows(loader.dataset))]
    return Fault(*(attrs.evolve(fit, train=one) for one in loaders), bad // SIZE)


def batches(fit, rng, spoil):
    """Batches in a list, which are not looked at beforehand, one of them spoiled."""
    plain = attrs.evolve(fit.train, transform=None, sampler=data.sequential(SIZE, "drop"))
    whole = list(data.batches(plain, ft.random.key(0)))
    at = rng.randrange(1, len(whole))
    broken = [spoil(batch) if k == at else batch for k, batch in enumerate(whole)]
    return [attrs.evolve(fit, train=one) for one in (broken, whole)], at


def shape(fit, rng):
    fits, at = batches(fit, rng, lambda batch: attrs.evolve(batch, input=batch.input[:, :3]))
    return Fault(*fits, at)


def label(fit, rng):
    # One and the same: of several, PyTorch names that which one of its threads meets first.
    fits, at = batches(fit, rng, lambda batch: attrs.evolve(batch, target=torch.full_like(batch.target, 9)))
    return Fault(*fits, at, alike=False)


def dtype(fit, rng):
    fits, at = batches(fit, rng, lambda batch: attrs.evolve(batch, input=batch.input.double()))
    return Fault(*fits, at)


def arrays_label(fit, rng):
    """A label in an `ArrayDataset` that a handler might repair, so that training begins."""
    inputs, targets, *weight = fit.train.dataset.arrays
    n = len(targets)
    at = rng.randrange(SIZE, n - n % SIZE)
    bad = targets.clone()
    bad[at] = 9
    weight = [torch.ones(n)] if weight else []  # a row of no weight would not matter
    look = ft.Callback("look", {"begin_step": lambda step: None})
    loaders = [
        attrs.evolve(
            fit.train,
            dataset=data.ArrayDataset((inputs, t, *weight)),
            sampler=data.sequential(SIZE, fit.train.sampler.remainder),
        )
        for t in (bad, targets)
    ]
    fits = (attrs.evolve(fit, train=one, callbacks=(*fit.callbacks, look)) for one in loaders)
    return Fault(*fits, at // SIZE, alike=False)


def handler(event):
    def fault(fit, rng):
        """A handler that raises the third time that it is called, or the first of events that are few."""
        number = 1 if event in ("begin_fit", "begin_validate", "after_validate", "begin_epoch", "after_epoch") else 3

        def raising(run):
            calls = run.memory["fault"] + 1
            if calls == number:
                raise OSError("the disk is full")
            return ft.train.remember(run, "fault", calls)

        def quiet(run):
            return ft.train.remember(run, "fault", run.memory["fault"] + 1)

        fits = (
            attrs.evolve(fit, callbacks=(*fit.callbacks, ft.Callback("fault", {event: f}, memory=0)))
            for f in (raising, quiet)
        )
        return Fault(*fits, None)

    return fault


def wrong_answer(fit, rng):
    """A handler that returns what is no answer, at the third batch."""

    def wrong(run):
        return 3 if run.step == 3 and run.epoch == 0 else None

    fits = (
        attrs.evolve(fit, callbacks=(*fit.callbacks, ft.Callback("fault", {"after_batch": f})))
        for f in (wrong, lambda run: None)
    )
    return Fault(*fits, 3)


def gone(fit, rng):
    """An iterable with fewer batches than were planned."""
    fits, _ = batches(fit, rng, lambda batch: batch)
    return Fault(attrs.evolve(fits[0], train=Short(fits[0].train)), fits[1], 2)


class Short:
    """An iterable that says it is longer than it is."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches[:2])


EVENTS = ("begin_fit", "begin_epoch", "begin_batch", "after_batch", "begin_validate", "after_validate", "after_epoch")
FAULTS = {
    "dataset": dataset,
    "shape": shape,
    "dtype": dtype,
    "label": label,
    "label in arrays": arrays_label,
    "wrong answer": wrong_answer,
    "too few": gone,
    **{f"handler of {event}": handler(event) for event in EVENTS},
}


def spoil(fit, name, seed):
    """Return the fault of this name in a random fit."""
    return FAULTS[name](attrs.evolve(fit, source="arrays", steps=None), random.Random(seed))
