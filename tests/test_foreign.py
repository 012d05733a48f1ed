"""A thing of torch where functrain's own is expected: refused before anything runs, with the way in."""

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import functrain as ft
from functrain import data, errors, foreign, losses, metrics, nn, optim, schedule

ROWS = data.ArrayDataset((torch.ones(8, 3), torch.zeros(8, dtype=torch.int64)))
BATCHES = data.loader(ROWS, data.sequential(4))
MODULE = torch.nn.Linear(3, 2)
OPTIMIZER = torch.optim.SGD(MODULE.parameters(), 0.1)

THINGS = {
    "module": (MODULE, "nn.from_module"),
    "class of modules": (torch.nn.Linear, "nn.from_module"),
    "loss module": (torch.nn.CrossEntropyLoss(), "losses.cross_entropy|nn.from_module"),
    "optimizer": (OPTIMIZER, "optim.adamw"),
    "class of optimizers": (torch.optim.Adam, "optim.adamw"),
    "scheduler": (torch.optim.lr_scheduler.StepLR(OPTIMIZER, 1), "schedule.cosine"),
    "loader": (DataLoader(TensorDataset(*ROWS.arrays)), "goes to fit itself"),
    "sampler": (RandomSampler(ROWS), "data.shuffled"),
    "generator": (torch.Generator(), r"random.key\(seed\)"),
}


def learner(**changes):
    parts = dict(model=nn.dense(2), loss=losses.cross_entropy, optimizer=optim.sgd(0.1))
    return ft.Learner(**{**parts, **changes})


STATE = ft.init(learner(), ft.random.key(0), ROWS[:1])

PLACES = {
    "Learner.model": lambda x: learner(model=x),
    "Learner.loss": lambda x: learner(loss=x),
    "Learner.optimizer": lambda x: learner(optimizer=x),
    "metrics.collection": lambda x: metrics.collection({"a": x}),
    "schedule.join": lambda x: schedule.join([1.0], [x]),
    "optim.chain": lambda x: optim.chain(x),
    "optim.accumulate": lambda x: optim.accumulate(2, x),
    "optim.sgd": lambda x: optim.sgd(lr=x),
    "nn.dropout": nn.dropout,
    "nn.serial": nn.serial,
    "nn.summary": lambda x: nn.summary(x, ROWS[:1][0]),
    "nn.capture": lambda x: nn.capture(x, "0"),
    "nn.freeze": lambda x: nn.freeze(x, "*"),
    "nn.lora": lambda x: nn.lora(x, 2),
    "nn.to_module": lambda x: nn.to_module(x, {}, {}),
    "init": lambda x: ft.init(x, ft.random.key(0), ROWS[:1]),
    "train_step": ft.train_step,
    "eval_step": ft.eval_step,
    "fit": lambda x: ft.fit(x, STATE, train=BATCHES, epochs=1),
    "evaluate": lambda x: ft.evaluate(x, STATE, BATCHES),
    "predict": lambda x: ft.predict(x, STATE, BATCHES),
    "fit state": lambda x: ft.fit(learner(), x, train=BATCHES, epochs=1),
    "callbacks": lambda x: ft.fit(learner(), STATE, train=BATCHES, epochs=1, callbacks=[x]),
    "loader sampler": lambda x: data.loader(ROWS, x),
    "Bunch": lambda x: data.Bunch(x, BATCHES, 10),
    "as_batch": data.as_batch,
}


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("place", PLACES)
def test_a_thing_of_torch_names_the_way_in(place, thing):
    value, way = THINGS[thing]
    with pytest.raises(errors.InvalidArgument, match=way) as raised:
        PLACES[place](value)
    assert " at 0x" not in str(raised.value) and "tensor(" not in str(raised.value)


@pytest.mark.parametrize("thing", ["module", "loss module", "optimizer", "generator"])
def test_what_is_no_source_of_batches_names_the_way_in(thing):
    value, way = THINGS[thing]
    with pytest.raises(errors.InvalidArgument, match=way):
        ft.fit(learner(), STATE, train=value, epochs=1)


def test_a_torch_dataset_is_no_source_of_batches_and_a_dataset_for_a_loader():
    rows = TensorDataset(*ROWS.arrays)
    with pytest.raises(errors.InvalidArgument, match=r"data.loader\(dataset, data.shuffled\(batch_size\)\) takes"):
        ft.fit(learner(), STATE, train=rows, epochs=1)
    assert ft.fit(learner(), STATE, train=data.loader(rows, data.sequential(4)), epochs=1).finished
    with pytest.raises(errors.InvalidArgument, match="goes to fit itself"):
        data.loader(iter_only(), data.sequential(4))


def iter_only():
    class Rows(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(())

    loader = DataLoader(Rows())
    return loader


def test_a_data_loader_goes_to_fit_itself():
    loader = DataLoader(TensorDataset(*ROWS.arrays), batch_size=4)
    assert ft.fit(learner(), STATE, train=loader, epochs=1).finished


def test_a_module_that_gives_each_value_is_a_loss():
    mine = learner(loss=torch.nn.CrossEntropyLoss(reduction="none"))
    assert ft.train_step(mine)(STATE, ROWS[:4])[1]["loss"] == ft.train_step(learner())(STATE, ROWS[:4])[1]["loss"]


def test_the_class_of_a_loss_is_no_loss():
    with pytest.raises(errors.InvalidArgument, match=r"loss must be a function of .*, got the class CrossEntropyLoss"):
        learner(loss=torch.nn.CrossEntropyLoss)


def test_a_metric_of_another_library_is_known_by_its_class():
    Metric = type("Metric", (torch.nn.Module,), {"__module__": "torchmetrics.metric"})
    with pytest.raises(errors.InvalidArgument, match=r"metrics.mean\(f\) makes a metric"):
        learner(metrics={"a": Metric()})


def test_a_generator_is_no_key():
    with pytest.raises(errors.InvalidKey, match=r"got Generator; random.key\(seed\) makes one"):
        ft.init(learner(), torch.Generator(), ROWS[:1])


def test_what_is_no_thing_of_torch_has_no_way_in():
    assert foreign.way_in(ROWS) == foreign.way_in(learner()) == foreign.way_in(torch.ones(1)) == ""
