"""An epoch of the lesson's MLP (784-50-10, batch 64, SGD, 50,000 rows, shuffled), with its loss and accuracy tracked.

Every entrant sees new random order each epoch, updates by plain SGD, and tracks the mean loss and accuracy over the
epoch. The check is the loss of an epoch in the order of the rows.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.entrant import Entrant, Target, Unavailable
from benchmarks.workloads._device import DEVICE, ON_CUDA, jax_modules, synchronise, tolerance
from benchmarks.workloads._lesson import BATCH, LR, ROWS, arrays, first_params, module

UNIT = (1.0, "s")
TOLERANCE = tolerance(2e-3)


def _functrain(jit: str | bool, chunk: int = 8) -> Entrant:
    import attrs

    import functrain as ft
    from functrain import data, losses, metrics, nn, optim

    rows = data.ArrayDataset(arrays())
    model = nn.serial(nn.dense(50), nn.relu, nn.dense(10))
    learner = ft.Learner(model, losses.cross_entropy, optim.sgd(lr=LR), {"accuracy": metrics.accuracy})
    state = attrs.evolve(ft.init(learner, ft.random.key(0), rows[:1]), params=first_params())

    def fit(sampler: data.Sampler, epochs: int, *callbacks: ft.Callback) -> ft.Run:
        loader = data.loader(rows, sampler)
        return ft.fit(learner, state, train=loader, epochs=epochs, jit=jit, chunk=chunk, callbacks=callbacks)

    def timed() -> float:
        # The first epoch of a fit traces; what is timed is an epoch of a fit that goes on.
        marks = []
        clock = ft.Callback("clock", {"after_epoch": lambda run: marks.append(time.perf_counter())}, keeps_state=False)
        fit(data.shuffled(BATCH), 2, clock)
        return marks[1] - marks[0]

    return Entrant(timed, lambda: fit(data.sequential(BATCH), 1).history[0]["train/loss"])


def _plain(batches: Callable[[bool], Iterator[tuple[torch.Tensor, torch.Tensor]]]) -> Entrant:
    def epoch(shuffle: bool) -> float:
        net = module()
        optimizer = torch.optim.SGD(net.parameters(), lr=LR)
        loss_sum, correct, count = torch.zeros((), device=DEVICE), torch.zeros((), device=DEVICE), 0
        for inputs, labels in batches(shuffle):
            prediction = net(inputs)
            loss = F.cross_entropy(prediction, labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss_sum += loss.detach() * len(inputs)
            correct += (prediction.detach().argmax(1) == labels).sum()
            count += len(inputs)
        return float(loss_sum) / count

    epoch(True)
    return Entrant(lambda: epoch(True) and None, lambda: epoch(False))


class _Rows:
    """The lesson's own dataset: one example at a time."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[i], self.y[i]


def _dataloader(make: Callable) -> Entrant:
    dataset = make(*(array.cpu() for array in arrays()))

    def batches(shuffle: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for inputs, labels in DataLoader(dataset, BATCH, shuffle=shuffle):
            yield inputs.to(DEVICE), labels.to(DEVICE)

    return _plain(batches)


def _slicing() -> Entrant:
    inputs, labels = arrays()

    def batches(shuffle: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = torch.randperm(ROWS, device=DEVICE) if shuffle else torch.arange(ROWS, device=DEVICE)
        for rows in order.split(BATCH):
            yield inputs[rows], labels[rows]

    return _plain(batches)


def _lightning() -> Entrant:
    try:
        import lightning
    except ImportError:
        raise Unavailable("lightning is not installed: pip install functrain[bench]") from None
    import logging
    import warnings

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    dataset = TensorDataset(*(array.cpu() for array in arrays()))

    class Net(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.marks = module(), []

        def on_train_epoch_start(self) -> None:
            self.loss_sum, self.correct = torch.zeros((), device=DEVICE), torch.zeros((), device=DEVICE)

        def training_step(self, batch, _index):
            prediction = self.net(batch[0])
            loss = F.cross_entropy(prediction, batch[1])
            self.loss_sum += loss.detach() * len(batch[0])
            self.correct += (prediction.detach().argmax(1) == batch[1]).sum()
            return loss

        def on_train_epoch_end(self) -> None:
            synchronise()
            self.marks.append(time.perf_counter())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=LR)

    def fit(epochs: int, shuffle: bool) -> Net:
        net = Net()
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="gpu" if ON_CUDA else "cpu",
            devices=[DEVICE.index or 0] if ON_CUDA else 1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(net, DataLoader(dataset, BATCH, shuffle=shuffle))
        return net

    def timed() -> float:
        marks = fit(2, True).marks
        return marks[1] - marks[0]

    return Entrant(timed, lambda: float(fit(1, False).loss_sum) / ROWS)


def _jax() -> Entrant:
    jax, jnp, optax = jax_modules()
    inputs, labels = (jnp.asarray(array.cpu().numpy()) for array in arrays())
    first = jax.tree.map(lambda p: jnp.asarray(p.cpu().numpy()), first_params())
    optimizer = optax.sgd(LR)

    def loss_of(params, x, y):
        hidden = jax.nn.relu(x @ params["0"]["weight"].T + params["0"]["bias"])
        prediction = hidden @ params["2"]["weight"].T + params["2"]["bias"]
        losses = optax.softmax_cross_entropy_with_integer_labels(prediction, y)
        return losses.mean(), (losses.sum(), (prediction.argmax(1) == y).sum())

    def step(carry, rows):
        params, opt_state, loss_sum, correct = carry
        (_, (losses, right)), grads = jax.value_and_grad(loss_of, has_aux=True)(params, inputs[rows], labels[rows])
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state, loss_sum + losses, correct + right), None

    @partial(jax.jit, donate_argnums=0)
    def epoch(state, order):
        whole = order[: ROWS // BATCH * BATCH].reshape(-1, BATCH)
        carry, _ = jax.lax.scan(step, (*state, jnp.zeros(()), jnp.zeros((), jnp.int32)), whole)
        if ROWS % BATCH:
            carry, _ = step(carry, order[ROWS // BATCH * BATCH :])
        return carry

    @partial(jax.jit, donate_argnums=0)
    def shuffled_epoch(state, key):
        return epoch(state, jax.random.permutation(key, ROWS))

    def begin():
        params = jax.tree.map(jnp.array, first)
        return params, optimizer.init(params)

    shuffled_epoch(begin(), jax.random.key(1))[2].block_until_ready()

    def run() -> None:
        shuffled_epoch(begin(), jax.random.key(2))[2].block_until_ready()

    return Entrant(run, lambda: float(epoch(begin(), jnp.arange(ROWS))[2]) / ROWS)


WHOLE = ROWS // BATCH + 1

ENTRANTS = {
    "functrain, eager": partial(_functrain, False),
    "functrain, aten": partial(_functrain, "aten"),
    "functrain, aten, one call": partial(_functrain, "aten", WHOLE),
    "functrain, inductor": partial(_functrain, "inductor"),
    "functrain, inductor, one call": partial(_functrain, "inductor", WHOLE),
    "PyTorch, DataLoader": partial(_dataloader, _Rows),
    "PyTorch, DataLoader, TensorDataset": partial(_dataloader, TensorDataset),
    "PyTorch, slicing": _slicing,
    "Lightning": _lightning,
    "JAX, scan": _jax,
}
if ON_CUDA:
    ENTRANTS["functrain, cudagraph"] = partial(_functrain, "cudagraph")

OURS = tuple(name for name in ENTRANTS if name.startswith("functrain"))
TARGETS = [
    Target("functrain, eager", "PyTorch, DataLoader", 0.5),
    Target("functrain, eager", "PyTorch, slicing", 0.9),
    Target("functrain, aten", "PyTorch, DataLoader", 0.4),  # the default
    Target(OURS, "PyTorch, DataLoader", 0.4),
    Target(OURS, "Lightning", 0.15),
    Target(OURS, "JAX, scan", 1.0),
]
