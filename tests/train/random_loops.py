"""Random loops: own steps over any carry, logs, stops, sources and callbacks, drawn from a seed."""

import random
from contextlib import contextmanager

import attrs
import torch
from torch.utils.data import DataLoader
from training_problems import Rows

import functrain as ft
from functrain import data, metrics, tree

PERPLEXITY = attrs.evolve(metrics.mean(lambda p, t: (p - t).abs()), compute=lambda acc: (acc.total / acc.weight).exp())
"""One whose accumulator is a mean's, and whose value is not."""


@tree.node
class Player:
    """One of two players."""

    weight: torch.Tensor
    speed: torch.Tensor


@attrs.frozen
class Loop:
    """A loop to be run in several ways."""

    step: object
    state: object
    options: dict
    words: str


def gradient(weight, batch, other=None):
    """Return the loss of a weight and its prediction, and the slope; `other` is the weight that plays against it."""

    def loss_of(weight):
        prediction = batch.input @ weight
        loss = mean((prediction - batch.target) ** 2, batch.weight)
        if other is not None:
            loss = loss - 0.1 * mean((batch.input @ (weight * other)).square(), batch.weight)
        return loss, prediction

    return ft.value_and_grad(loss_of, has_aux=True)(weight)


def mean(values, weight):
    """Return a mean; 0 where nothing counts."""
    counts = torch.ones_like(values) if weight is None else weight.to(values.dtype)
    return (values * counts).sum() / counts.sum().clamp(min=1e-3)


def moved(player, slope):
    speed = 0.8 * player.speed + slope
    return Player(player.weight - 0.02 * speed, speed)


def alone(state, batch):
    """One player, who draws noise from a key that is carried."""
    key = ft.random.fold_in(state["key"], state["n"])
    noisy = attrs.evolve(batch, input=batch.input + 0.1 * ft.random.normal(key, batch.input.shape))
    (loss, prediction), slope = gradient(state["one"].weight, noisy)
    after = {**state, "one": moved(state["one"], slope), "n": state["n"] + 1}
    return after, loss, prediction


def against(state, batch):
    """Two players in turn, of whom one moves every other step."""
    (loss, prediction), slope = gradient(state["one"].weight, batch, state["two"].weight)
    one = moved(state["one"], slope)
    _, other = gradient(state["two"].weight, batch, one.weight)
    turn = state["n"] % 2 == 0
    two = tree.map(lambda new, old: torch.where(turn, new, old), moved(state["two"], -other), state["two"])
    return {**state, "one": one, "two": two, "n": state["n"] + 1}, loss, prediction


PLAYS = {"alone": alone, "against": against}


def logs_of(kind, loss, prediction, batch):
    seen = PERPLEXITY.update(PERPLEXITY.init(), prediction.detach(), batch.target, batch.weight)
    measured = ft.Measured(PERPLEXITY, seen)
    return {"none": None, "scalars": {"loss": loss}, "both": {"loss": loss, "perplexity": measured}}[kind]


def stepping(play, kind, stop, scope):
    def step(state, batch):
        after, loss, prediction = PLAYS[play](state, batch)
        logs = logs_of(kind, loss, prediction, batch)
        if stop is None:
            return after, logs
        return ft.Stop(after, logs, when=after["n"] == stop, scope=scope, reason="enough")

    return step


def evaluating(state, batch):
    prediction = batch.input @ state["one"].weight
    seen = PERPLEXITY.update(PERPLEXITY.init(), prediction, batch.target, batch.weight)
    loss = mean((prediction - batch.target) ** 2, batch.weight)
    return {"loss": loss, "perplexity": ft.Measured(PERPLEXITY, seen)}


def counting(run):
    return ft.train.remember(run, "host", run.memory["host"] + 1)


def halving(run):
    one = tree.map(lambda leaf: 0.5 * leaf, run.state["one"])
    return attrs.evolve(counting(run), state={**run.state, "one": one})


def blanking(run):
    return attrs.evolve(counting(run), batch=attrs.evolve(run.batch, input=0.5 * run.batch.input))


def leaving_out(run):
    return ft.Stop(counting(run), scope="batch", when=run.step == 1)


@contextmanager
def pages(run):
    """Open a list."""
    yield []


HOSTS = {
    "counting": {"after_batch": counting, "begin_validate": counting},
    "halving": {"begin_epoch": halving, "after_epoch": counting},
    "blanking": {"begin_batch": blanking},
    "leaving out": {"begin_batch": leaving_out},
    "ending epoch": {"after_batch": lambda run: ft.Stop(counting(run), scope="epoch", when=run.step == 2)},
    "ending validation": {"begin_validate": lambda run: ft.Stop(run, scope="validate", when=run.epoch == 1)},
}


def callbacks_of(rng, logged):
    hosts = [name for name in HOSTS if rng.random() < 0.25][:1]
    made = [ft.Callback("host", HOSTS[name], memory=0) for name in hosts]
    if rng.random() < 0.3 and logged != "none":
        made.append(ft.callbacks.record())
    if rng.random() < 0.3 and "ending validation" not in hosts:
        made.append(ft.callbacks.early_stopping("valid/loss", patience=1, restore_best=True))
    if rng.random() < 0.3:
        made.append(ft.Callback("live", {"after_chunk": lambda run, live: live.append(run.step)}, resource=pages))
    return made, hosts


def source_of(rng, loader, kind):
    if kind == "rows":
        return attrs.evolve(loader, dataset=Rows(loader.dataset))
    if kind == "arrays":
        return loader
    batches = list(data.batches(loader, ft.random.key(rng.randrange(99))))
    return batches if kind == "list" else DataLoader(batches, batch_size=None)


def draw(seed):
    """Return a random loop."""
    rng = random.Random(f"loop {seed}")
    generator = torch.Generator().manual_seed(seed)
    n, size = rng.choice([22, 28, 33]), rng.choice([4, 5])
    inputs = torch.randn(n, 3, generator=generator)
    arrays = [inputs, inputs.sum(1) + 0.3 * torch.randn(n, generator=generator)]
    if rng.random() < 0.4:
        arrays.append((torch.rand(n, generator=generator) > 0.2).float())
    rows = data.ArrayDataset(tuple(arrays))
    play, logged = rng.choice([*PLAYS]), rng.choice(["none", "scalars", "both", "both"])
    stop, scope = rng.choice([(None, None), (None, None), (3, "epoch"), (7, None), (6, "batch")])
    order, remainder = rng.choice([data.shuffled, data.sequential]), rng.choice(["keep", "drop", "pad"])
    kinds = [rng.choice(["arrays", "arrays", "rows", "list", "DataLoader"]) for _ in range(2)]
    train = source_of(rng, data.loader(rows, order(size, remainder)), kinds[0])
    valid = {"valid": source_of(rng, data.loader(rows, data.sequential(8)), kinds[1])}
    if rng.random() < 0.3:
        valid["second"] = data.loader(rows, data.sequential(7, "drop"))
    callbacks, hosts = callbacks_of(rng, logged)
    length = rng.choice([{"epochs": 2}, {"epochs": 3}, {"steps": 9}])
    evaluate = lambda state, batch: evaluating(state, batch)  # noqa: E731 - of its own, with its own traces
    options = dict(train=train, valid=valid, evaluate=evaluate, callbacks=callbacks, **length)
    options["valid_steps"] = {"valid": rng.choice([1, 2])} if rng.random() < 0.3 else None
    words = f"{play}; {logged}; stop {stop} {scope}; {remainder}; {kinds}; {hosts}; {length}; {options['valid_steps']}"
    player = Player(torch.zeros(3), torch.zeros(3))
    state = {"one": player, "n": torch.tensor(0), "key": ft.random.key(seed)}
    state |= {"two": player} if play == "against" else {}
    return Loop(stepping(play, logged, stop, scope), state, options, words)


def run(loop, state=None, more=(), **changes):
    """Return the run of a loop, from its state or from a run or what was saved of one on."""
    options = {**loop.options, **changes}
    options["callbacks"] = [*options["callbacks"], *more]
    options |= {} if isinstance(state, ft.Run) else {"like": loop.state}
    if isinstance(state, ft.Run):
        options = {name: value for name, value in options.items() if name not in ("epochs", "steps")}
    key = None if state is not None else ft.random.key(3)
    return ft.loop(loop.step, loop.state if state is None else state, key=key, **options)
