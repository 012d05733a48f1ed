"""What only some users put into a fit: weights of elements, mixed precision, live resources, sources of every kind."""

from contextlib import contextmanager

import attrs
import torch
from torch.utils.data import DataLoader

import functrain as ft
from functrain import data, losses, metrics


def with_rare_parts(fit, rng):
    """Return a fit with some parts that are rare."""
    words = [fit.words]
    for part, share in PARTS.items():
        if rng.random() < share:
            before, fit = fit, part(fit, rng)
            words += [] if fit is before else [part.__name__]
    return attrs.evolve(fit, words="; ".join(words))


def weights_of_elements(fit, rng):
    """Targets of one number for each output, and a weight for each."""
    if "weighted True" in fit.words:
        return fit
    inputs, targets = fit.train.dataset.arrays
    generator = torch.Generator().manual_seed(rng.randrange(1000))
    weight = (torch.rand(len(inputs), 3, generator=generator) > 0.3).float() * rng.choice([1.0, 0.5])
    weight[3] = 0.0
    targets = torch.nn.functional.one_hot(targets, 3).float()
    targets[weight == 0] = torch.nan
    rows = data.ArrayDataset((inputs, targets, weight))
    learner = attrs.evolve(fit.learner, loss=LOSSES[rng.choice([*LOSSES])], metrics={"error": metrics.mean(losses.mae)})
    valid = {name: _over(one, rows) for name, one in fit.valid.items()}
    state = ft.init(learner, fit.state.key, rows[:1])
    return attrs.evolve(fit, learner=learner, state=state, train=_over(fit.train, rows), valid=valid)


LOSSES = {
    "plain": losses.mse,
    "parts": lambda p, t: {"loss": losses.mse(p, t) + 0.01 * p.square(), "penalty": p.square()},
}


def _over(loader, rows):
    return attrs.evolve(loader, dataset=rows)


def short_precision(fit, rng):
    """The model computes in bfloat16, in which a threshold may fall to one side or the other."""
    at_a_threshold = ("skipping", "early", "a NaN is skipped")
    if any(name in fit.words for name in at_a_threshold):
        return fit
    return attrs.evolve(fit, options={**fit.options, "precision": "bfloat16"})


@contextmanager
def notebook(run):
    """Open a list of what was seen."""
    pages = []
    yield pages
    pages.clear()


def note(run, pages):
    pages.append(run.step)
    return ft.train.remember(run, "live", run.memory["live"] + 1)


def live_resource(fit, rng):
    """A callback with a resource, which looks at batches or not."""
    events = rng.choice([("after_batch", "begin_epoch"), ("after_chunk",), ("begin_validate", "after_epoch")])
    callback = ft.Callback("live", dict.fromkeys(events, note), memory=0, resource=notebook, phases=("train", "valid"))
    if "after_chunk" in events:  # which comes as often as there are chunks
        callback = attrs.evolve(callback, handlers={"after_chunk": lambda run, pages: pages.append(run.step)})
    return attrs.evolve(fit, callbacks=(*fit.callbacks, callback))


def validation_from_anywhere(fit, rng):
    """A validation that is a list, or a DataLoader of it, and takes some batches or all."""
    name = rng.choice([*fit.valid])
    batches = list(data.batches(fit.valid[name], ft.random.key(1)))
    kind = rng.choice(["list", "list", "DataLoader"])
    source = batches if kind == "list" else DataLoader(batches, batch_size=None)
    options = {**fit.options, "valid_steps": {name: rng.choice([1, len(batches)])}}
    return attrs.evolve(fit, valid={**fit.valid, name: source}, options=options)


def source_of_another_kind(fit, rng):
    """Training batches that are a DataLoader's."""
    return attrs.evolve(fit, source="DataLoader")


PARTS = {
    weights_of_elements: 0.4,
    short_precision: 0.5,
    live_resource: 0.2,
    validation_from_anywhere: 0.25,
    source_of_another_kind: 0.15,
}
