"""What was traced for a learner is found again, for as long as the learner lives and no longer."""

import copy
import functools
import gc
import pickle
import weakref

import attrs
import pytest
import torch
from training_problems import problem

import functrain as ft
from functrain import data
from functrain.engine.calling import jitting
from functrain.errors import TreeMismatch


@pytest.fixture
def traces(monkeypatch):
    """A list that gets the name of each function that is traced."""
    names = []
    trace = jitting.trace

    def noting(f, *args, **options):
        names.append(1)
        return trace(f, *args, **options)

    monkeypatch.setattr(jitting, "trace", noting)
    return names


def note(run):
    return None


def fit(parts, **options):
    learner, state, train, valid = parts
    return ft.fit(learner, state, **{"train": train, "valid": valid, "epochs": 1, **options})


@pytest.mark.parametrize("chunk", [1, 4])
def test_the_same_learner_is_traced_once(traces, chunk):
    parts = problem()
    first = fit(parts, chunk=chunk)
    count = len(traces)
    assert count > 0
    fit(parts, chunk=chunk)
    fit((parts[0], first.state, *parts[2:]), chunk=chunk)
    fit((parts[0], ft.init(parts[0], ft.random.key(5), parts[2].dataset[:1]), *parts[2:]), chunk=chunk, epochs=2)
    ft.evaluate(parts[0], first.state, parts[3], chunk=chunk)
    assert len(traces) == count


def test_evaluate_predict_and_overfit_are_traced_once(traces):
    learner, state, train, valid = problem()
    for _ in range(2):
        ft.evaluate(learner, state, valid)
        ft.predict(learner, state, valid)
        ft.overfit_batch(learner, state, train.dataset[:8], steps=2)
        once = once if _ else len(traces)  # noqa: F821
    assert len(traces) == once


def test_handlers_are_part_of_the_key_by_identity(traces):
    parts = problem()

    def scaled(factor):
        return ft.Callback("scale", {"after_loss": lambda step: attrs.evolve(step, loss=factor * step.loss)})

    one, two = scaled(1.0), scaled(0.0)
    first, second = fit(parts, callbacks=[one]), fit(parts, callbacks=[two])
    assert not torch.equal(first.state.params["0"]["weight"], second.state.params["0"]["weight"])
    count = len(traces)
    for callback, run in ((one, first), (two, second)):
        again = fit(parts, callbacks=[callback])
        assert ft.tree.equal(again.state, run.state)
    assert len(traces) == count


def test_what_a_handler_closes_over_may_change(traces):
    parts = problem()
    config = {"factor": 1.0}
    scale = ft.Callback("scale", {"after_loss": lambda step: attrs.evolve(step, loss=config["factor"] * step.loss)})
    first = fit(parts, callbacks=[scale])
    config["factor"] = 0.0
    second = fit(parts, callbacks=[scale])
    assert not torch.equal(first.state.params["0"]["weight"], second.state.params["0"]["weight"])
    config["factor"] = 1.0
    count = len(traces)
    assert ft.tree.equal(fit(parts, callbacks=[scale]).state, first.state)
    assert len(traces) == count


def test_host_handlers_and_other_data_are_no_reason_to_trace(traces):
    parts = problem()
    fit(parts)
    count = len(traces)
    more = ft.Callback("more", {"begin_epoch": note, "after_epoch": note})
    fit(parts, callbacks=[more, ft.callbacks.early_stopping("valid/loss")])
    learner, state, train, valid = parts
    other = data.loader(data.ArrayDataset(ft.tree.map(torch.clone, train.dataset.arrays)), data.shuffled(8))
    fit((learner, state, other, valid))
    assert len(traces) == count


def test_a_step_of_ones_own_is_traced_once(traces):
    _, _, train, _ = problem()

    def step(total, batch):
        return total + batch.input.sum(), {"mean": batch.input.mean()}

    def evaluate(total, batch):
        return {"mean": batch.input.mean()}

    for _ in range(2):
        ft.loop(step, torch.tensor(0.0), key=ft.random.key(0), train=train, epochs=2, valid=train, evaluate=evaluate)
        once = once if _ else len(traces)  # noqa: F821
    assert len(traces) == once


@pytest.mark.parametrize("jit", [False, "aten"])
def test_the_cache_lets_learners_go(jit):
    def train_one():
        parts = problem(n=16)
        count = ft.Callback("count", {"after_step": lambda step: None}, memory=torch.tensor(0))
        fit(parts, jit=jit, callbacks=[count])
        ft.evaluate(parts[0], parts[1], parts[3], jit=jit)
        return weakref.ref(parts[0]), weakref.ref(count.handlers["after_step"])

    refs = [train_one() for _ in range(3)]
    gc.collect()
    assert [ref() for pair in refs for ref in pair] == [None] * 6


def test_a_step_of_ones_own_is_let_go():
    def train_one():
        def step(total, batch):
            return total + batch.input.sum(), None

        ft.loop(step, torch.tensor(0.0), key=ft.random.key(0), train=problem(n=16)[2], epochs=1)
        return weakref.ref(step)

    ref = train_one()
    gc.collect()
    assert ref() is None


def test_a_copy_of_a_learner_begins_without_what_was_kept():
    learner, state, train, _ = problem(n=16)
    ft.fit(learner, state, train=train, epochs=1)
    for other in (copy.copy(learner), attrs.evolve(learner)):
        assert other == learner
    assert "_compiled" not in vars(attrs.evolve(learner))
    keep = vars(learner)["_compiled"]
    assert vars(copy.deepcopy(keep))["functions"] == {} == vars(pickle.loads(pickle.dumps(keep)))["functions"]


class Adding:
    """Steps of one's own that differ by what their object holds."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, total, batch):
        return total + self.factor * batch.sum(), None

    def step(self, total, batch):
        return self(total, batch)

    @classmethod
    def shared(cls, total, batch):
        return total + cls.factor * batch.sum(), None

    factor = 4.0


class Twice(Adding):
    factor = 8.0


def copied(one):
    other = copy.copy(one)
    other.factor = 2.0
    return other


def wrapping(one):
    @functools.wraps(one)
    def step(total, batch):
        return total + 2.0 * batch.sum(), None

    return step


def total(step):
    batches = [torch.ones(2)] * 3
    return float(ft.loop(step, torch.tensor(0.0), key=ft.random.key(0), train=batches, epochs=1).state)


@pytest.mark.parametrize(
    ("one", "other", "totals"),
    [
        (lambda: Adding(1.0).step, lambda one: Adding(2.0).step, (6.0, 12.0)),
        (lambda: Adding(1.0), copied, (6.0, 12.0)),
        (lambda: Adding(1.0).step, lambda one: copied(one.__self__).step, (6.0, 12.0)),
        (lambda: Adding(1.0).step, wrapping, (6.0, 12.0)),
        (lambda: Adding(1.0), wrapping, (6.0, 12.0)),
        (lambda: Adding.shared, lambda one: Twice.shared, (24.0, 48.0)),
    ],
    ids=["methods", "copies", "methods of copies", "wraps of a method", "wraps of an object", "class methods"],
)
def test_what_takes_over_the_dictionary_of_a_step_is_a_step_of_its_own(one, other, totals, traces):
    copy.copy(Adding(0.0))  # which writes to the class, and jit sees that
    first = one()
    assert total(first) == totals[0]
    second = other(first)
    assert total(second) == totals[1]
    assert (total(first), total(second)) == totals
    if not isinstance(getattr(first, "__self__", None), type):  # a class has no dictionary to write to
        assert len(traces) == 2


def test_there_is_an_end_to_what_is_kept():
    from functrain.train.looping.compiling import MOST, keep

    learner = problem(n=16)[0]
    for number in range(MOST + 5):
        keep(learner, number, object)
    assert len(vars(vars(learner)["_compiled"])["functions"]) == MOST


def test_the_optimizer_is_asked_for_its_first_state_once():
    calls = []
    learner, state, train, _ = problem(n=16)
    optimizer = learner.optimizer

    def counted(params):
        calls.append(params)
        return optimizer.init(params)

    learner = attrs.evolve(learner, optimizer=attrs.evolve(optimizer, init=counted))
    for jit in (False, "aten", "aten"):
        ft.fit(learner, state, train=train, epochs=1, jit=jit)
    assert len(calls) == 1
    other = ft.init(learner, ft.random.key(1), (train.dataset[:1][0].double(), train.dataset[:1][1]))
    with pytest.raises(TreeMismatch, match=r"state\.opt_state must have the structure"):
        ft.fit(learner, attrs.evolve(state, params=other.params), train=train, epochs=1, jit=False)
