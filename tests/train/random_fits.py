"""Random fits: everything that a user may put together, drawn from a seed, for the law that all ways give the same."""

import random

import attrs
import torch
from rare_parts import with_rare_parts
from torch.utils.data import DataLoader
from training_problems import Rows

import functrain as ft
from functrain import data, losses, metrics, nn, optim, schedule


@attrs.frozen
class Fit:
    """A fit to be run in several ways."""

    learner: ft.Learner
    state: ft.TrainState
    train: data.Loader
    valid: dict
    epochs: int
    callbacks: tuple
    words: str
    source: str = "arrays"
    steps: int | None = None
    options: dict = attrs.field(factory=dict)


def centred(x):
    return x - x.mean(0)


MODELS = {
    "plain": lambda: nn.serial(nn.dense(5), nn.relu, nn.dense(3)),
    "batch norm, dropout": lambda: nn.serial(nn.dense(5), nn.batch_norm(), nn.relu, nn.dropout(0.3), nn.dense(3)),
    "mixing layer": lambda: nn.serial(centred, nn.dense(3)),
}
LOSSES = {
    "plain": losses.cross_entropy,
    "mixing": lambda p, t: losses.cross_entropy(p - 0.1 * p.mean(0), t),
    "parts": lambda p, t: {"loss": losses.cross_entropy(p, t) + 0.01 * p.square().sum(1), "penalty": p.square().sum(1)},
}
OPTIMIZERS = {
    "sgd": lambda: optim.sgd(schedule.one_cycle(0.05, 0.2, 0.01), momentum=0.9),
    "accumulate": lambda inside=lambda transform: transform: optim.accumulate(
        3, inside(optim.sgd(schedule.over_updates(5, schedule.linear(0.2, 0.05))))
    ),
}
MIXES = {"mixing layer", "mixing", "mixing transform", "mixing handler"}


def noise(key, batch):
    return attrs.evolve(batch, input=batch.input + 0.1 * ft.random.normal(key, batch.input.shape))


def mixup(key, batch):
    return attrs.evolve(batch, input=0.9 * batch.input + 0.1 * batch.input.roll(1, 0))


TRANSFORMS = {"none": None, "noise": noise, "mixing transform": mixup}


def skipping(step):
    """Skip the update of some batches: those whose loss is above what is usual."""
    return ft.Stop(step, when=step.loss > 1.15, reason="too large")


def clipping(step):
    grads = ft.tree.map(lambda g: g.clamp(-0.5, 0.5), step.grads)
    step = attrs.evolve(step, grads=grads, memory={**step.memory, "clip": step.memory["clip"] + 1})
    return ft.log(step, "norm", ft.tree.global_norm(grads))


def mixing(step):
    return attrs.evolve(step, prediction=0.9 * step.prediction + 0.1 * step.prediction.mean(0))


def counting(run):
    return ft.train.remember(run, "host", run.memory["host"] + 1)


def shrinking(run):
    params = ft.tree.map(lambda p: 0.99 * p, run.state.params)
    return attrs.evolve(counting(run), state=attrs.evolve(run.state, params=params))


def blanking(run):
    return attrs.evolve(counting(run), batch=attrs.evolve(run.batch, input=0.5 * run.batch.input))


def ending_epoch(run):
    return ft.Stop(counting(run), scope="epoch", when=run.epoch == 0 and run.step == 3)


def ending_inside(step):
    return ft.Stop(step, scope="epoch", when=step.state.step - step.state.start == 2)


def averaging(step):
    return ft.train.remember(step, "average", 0.5 * step.memory["average"] + step.loss.detach())


def ending_validation(run):
    return ft.Stop(counting(run), scope="validate", when=run.epoch == 1)


def ending_a_validation_inside(step):
    return ft.Stop(step, scope="validate", when=(step.batch.input[:, 0] > 1.5).any())


def logging(step):
    weight, spread = step.batch.weight, step.prediction.square()
    spread = spread if weight is not None and weight.dim() == 2 else spread.mean(1)
    return ft.log(step, "spread", losses.weighted_mean(spread, weight))


HANDLERS = {
    "skipping": ft.Callback("skip", {"after_loss": skipping}),
    "clipping": ft.Callback("clip", {"after_grads": clipping}, memory=torch.tensor(0)),
    "mixing handler": ft.Callback("mix", {"after_pred": mixing}, phases=("train", "valid")),
    "shrinking": ft.Callback("host", {"begin_epoch": shrinking, "after_epoch": counting}, memory=0),
    "blanking": ft.Callback("host", {"begin_batch": blanking, "after_batch": counting}, memory=0),
    "ending epoch": ft.Callback("host", {"after_batch": ending_epoch, "begin_validate": counting}, memory=0),
    "ending validation": ft.Callback("host", {"begin_validate": ending_validation}, memory=0),
    "ending inside": ft.Callback("inside", {"after_step": ending_inside}),
    "averaging": ft.Callback("average", {"after_step": averaging}, 300, torch.tensor(0.0)),
    "record": ft.callbacks.record(),
    "early": ft.callbacks.early_stopping("valid/loss", patience=1, restore_best=True),
}


MORE = {
    "ending a validation inside": ft.Callback("valid", {"after_step": ending_a_validation_inside}, phases=("valid",)),
    "logging": ft.Callback("log", {"after_pred": logging}, phases=("train", "valid")),
    "ema": ft.callbacks.ema(0.9),
    "ending run": ft.Callback("end", {"after_epoch": lambda run: ft.Stop(run, scope="run", when=run.epoch == 1)}),
}


def draw(seed, rare=True):
    """Return a random fit; `rare` is whether what only some users put in may be in it."""
    fit = _with_more(_drawn(seed), random.Random(f"more {seed}"))
    return with_rare_parts(fit, random.Random(f"rare {seed}")) if rare else fit


def _with_more(fit, rng):
    """Return a fit with more of what a user may put in: other sources, updates left out, a padded validation."""
    names = [name for name in MORE if rng.random() < 0.2]
    learner, train, valid, words = fit.learner, fit.train, fit.valid, [fit.words, str(names)]
    if rng.random() < 0.25 and "early" not in fit.words:
        inputs, *others = train.dataset.arrays
        inputs = inputs.clone()
        inputs[7, 1] = torch.nan
        train = attrs.evolve(train, dataset=data.ArrayDataset((inputs, *others)))
        learner = attrs.evolve(learner, optimizer=rng.choice(SKIPPING)(learner.optimizer))
        words.append("a NaN is skipped")
    if rng.random() < 0.3 and not any(name in fit.words for name in MIXES):
        valid = {**valid, "padded": data.loader(train.dataset, data.sequential(9, "pad"))}
        words.append("padded")
    source, steps = rng.choice(["arrays", "arrays", "rows", "list"]), rng.choice([None, None, 3, 9])
    state = ft.init(learner, fit.state.key, train.dataset[:1])
    callbacks = (*fit.callbacks, *(MORE[name] for name in names))
    words = "; ".join([*words, source, f"steps {steps}"])
    return Fit(learner, state, train, valid, fit.epochs, callbacks, words, source, steps)


def _apply_if_finite(optimizer):
    skip = optim.apply_if_finite(5)
    # It is refused around a sum, which would never be finite again.
    return OPTIMIZERS["accumulate"](skip) if repr(optimizer).startswith("accumulate") else skip(optimizer)


SKIPPING = [optim.skip_nonfinite, _apply_if_finite]


def _drawn(seed):
    rng = random.Random(seed)
    model, loss, optimizer = rng.choice([*MODELS]), rng.choice([*LOSSES]), rng.choice([*OPTIMIZERS])
    transform = rng.choice([*TRANSFORMS])
    names = [name for name in HANDLERS if rng.random() < 0.35]
    hosts = [name for name in names if HANDLERS[name].name == "host"]
    names = [name for name in names if name not in hosts[1:]]
    if "ending validation" in names and "early" in names:  # what it monitors would not be measured, which is an error
        names.remove("early")
    weighted = rng.random() < 0.4
    may_pad = not MIXES & {model, loss, transform, *names}
    remainder = rng.choice(["keep", "drop", "pad"] if may_pad else ["keep", "drop"])
    generator = torch.Generator().manual_seed(seed)
    n = rng.choice([22, 28, 33])
    inputs = torch.randn(n, 4, generator=generator)
    targets = (inputs.sum(1) > 0).long() + (inputs[:, 0] > 1).long()
    arrays = (inputs, targets, (torch.rand(n, generator=generator) > 0.2).float()) if weighted else (inputs, targets)
    if weighted and rng.random() < 0.5:
        arrays[2][:5] = 0
    rows = data.ArrayDataset(arrays)
    learner = ft.Learner(MODELS[model](), LOSSES[loss], OPTIMIZERS[optimizer](), {"accuracy": metrics.accuracy})
    train = data.loader(
        rows, rng.choice([data.shuffled, data.sequential])(5, remainder), transform=TRANSFORMS[transform]
    )
    valid = {"valid": data.loader(rows, data.sequential(8))}
    if rng.random() < 0.3:
        valid["second"] = data.loader(rows, data.sequential(7, "drop"))
    words = f"{model}; {loss}; {optimizer}; {transform}; {remainder}; {names}; weighted {weighted}"
    state = ft.init(learner, ft.random.key(seed), rows[:1])
    return Fit(learner, state, train, valid, 2, tuple(HANDLERS[name] for name in names), words)


def run(fit, state=None, more=(), **options):
    """Return the run of a fit, from its state or from a run on."""
    going_on = isinstance(state, ft.Run)
    length = {} if going_on else {"epochs": fit.epochs} if fit.steps is None else {"steps": fit.steps}
    return ft.fit(
        fit.learner,
        fit.state if state is None else state,
        train=_source(fit),
        valid=fit.valid,
        **length,
        callbacks=[*fit.callbacks, *more],
        **{**fit.options, **options},
    )


def _source(fit):
    if fit.source == "rows":
        return attrs.evolve(fit.train, dataset=Rows(fit.train.dataset))
    if fit.source in ("list", "DataLoader"):
        batches = list(data.batches(fit.train, fit.state.key))
        return batches if fit.source == "list" else DataLoader(batches, batch_size=None)
    return fit.train


def stopper(event, number):
    """Return a callback that stops the fit at the `number`-th time that an event comes, once."""
    name = "stopper"

    def host(r):
        seen = r.memory[name] + 1
        return ft.Stop(ft.train.remember(r, name, seen), scope="fit", when=seen == number)

    def inside(s):
        # A stop in the middle of a batch leaves the batch undone, and comes again: it must not stop it twice.
        seen = s.memory[name] + 1
        return ft.Stop(ft.train.remember(s, name, seen), scope="fit", when=seen == number)

    is_inside = event in ft.train.STEP_EVENTS
    memory = torch.tensor(0) if is_inside else 0
    order = -1 if number % 2 else 200
    return ft.Callback(name, {event: inside if is_inside else host}, order, memory, ("train", "valid"))
