"""The tally: however batches wait and are joined, it is what adding them one by one gives."""

import copy
import pickle

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import functrain as ft
from functrain import data, losses, metrics, nn, optim, tree
from functrain.train.learner import metrics_of
from functrain.train.tally import MOST_BATCHES, MOST_BYTES, Tally, add, measured_by, sum_up


def counted(calls):
    """Return the accuracy as a metric that notes the rows of each `measure` and `add`."""

    def noting(name, f, rows):
        def noted(*args):
            calls.append((name, len(args[rows])))
            return f(*args)

        return noted

    metric = metrics.accuracy
    return attrs.evolve(metric, measure=noting("measure", metric.measure, 0), add=noting("add", metric.add, 1))


def learner_of(**named):
    return ft.Learner(nn.dense(3), losses.cross_entropy, optim.sgd(lr=0.1), named or {"accuracy": metrics.accuracy})


def batch_of(rows, time=None, weighted=False, dtype=torch.float32):
    shape = (rows,) if time is None else (rows, time)
    weight = torch.rand(rows).round(decimals=2) if weighted else None
    return torch.randn(*shape, 3, dtype=dtype), torch.randint(3, shape), weight


def metric_of(learner):
    return measured_by(metrics_of(learner, "train"))


def measured(learner, prediction, target):
    named = {name: metric.measure(prediction, target) for name, metric in learner.metrics.items()}
    return {"loss": learner.loss(prediction, target), **named}


def tallied(learner, batches):
    metric = metric_of(learner)
    tally = Tally(metric.init())
    for prediction, target, weight in batches:
        tally = add(metric, tally, measured(learner, prediction, target), weight, waits=True)
    return tally


def accumulators(learner, tally):
    return sum_up(metric_of(learner), tally).added


def computed(learner, tally):
    return metric_of(learner).compute(accumulators(learner, tally))


def one_by_one(learner, batches):
    both = {"loss": metrics.mean(learner.loss), **learner.metrics}
    accumulators = {name: metric.init() for name, metric in both.items()}
    for prediction, target, weight in batches:
        accumulators = {
            name: metric.update(accumulators[name], prediction, target, weight) for name, metric in both.items()
        }
    return {name: metric.compute(accumulators[name]) for name, metric in both.items()}


FORMS = st.tuples(
    st.integers(1, 4), st.sampled_from([None, 1, 2]), st.booleans(), st.sampled_from([torch.float32, torch.float64])
)


@settings(max_examples=60)
@given(st.lists(FORMS, min_size=1, max_size=2 * MOST_BATCHES + 3), st.integers(0, 2**31))
def test_it_is_what_adding_one_by_one_gives(forms, seed):
    torch.manual_seed(seed)
    learner, batches = learner_of(), [batch_of(*form) for form in forms]
    got, expected = computed(learner, tallied(learner, batches)), one_by_one(learner, batches)
    assert not tree.differences(got, expected, rtol=1e-12, atol=1e-12)


def test_batches_are_measured_one_by_one_and_added_together():
    calls = []
    learner = learner_of(accuracy=counted(calls))
    tally = tallied(learner, [batch_of(5)] * (MOST_BATCHES + 2))
    assert calls.count(("measure", 5)) == MOST_BATCHES + 2
    assert [call for call in calls if call[0] == "add"] == [("add", 5 * MOST_BATCHES)]
    assert float(accumulators(learner, tally)["accuracy"].weight) == 5 * (MOST_BATCHES + 2)
    assert calls[-1] == ("add", 10)


def test_looking_at_it_on_the_way_changes_nothing():
    learner, batches = learner_of(), [batch_of(3) for _ in range(5)]
    first = tallied(learner, batches[:2])
    assert first.waiting
    unseen = computed(learner, tallied(learner, batches))
    seen = float(accumulators(learner, first)["loss"].total)
    for prediction, target, _ in batches[2:]:
        first = add(metric_of(learner), first, measured(learner, prediction, target), None, waits=True)
    assert not tree.differences(computed(learner, first), unseen, rtol=1e-12)
    assert seen == float(accumulators(learner, tallied(learner, batches[:2]))["loss"].total)


@pytest.mark.parametrize(
    ("metric", "most"),
    [
        (metrics.accuracy, MOST_BYTES // 4),  # the losses, in float32
        (metrics.mean(lambda prediction, _: prediction[:, 0]), MOST_BYTES // 12),  # a view of three times as much
    ],
)
def test_what_keeps_a_large_memory_alive_does_not_wait(metric, most):
    learner = learner_of(metric=metric)
    assert tallied(learner, [batch_of(most)]).waiting
    assert tallied(learner, [batch_of(most + 1)]).waiting == ()


def test_a_metric_that_sums_its_batch_already_does_not_wait():
    counts = metrics.Metric(
        init=lambda device=None: torch.zeros(3, dtype=torch.int64, device=device),
        measure=lambda prediction, target: torch.bincount(target, minlength=3),
        add=lambda acc, values, weight=None: acc + values,
        merge=torch.add,
        compute=lambda acc: acc[0] / acc.sum(),
    )
    batches = [batch_of(5) for _ in range(4)]
    learner = learner_of(counts=counts)
    expected = torch.bincount(torch.cat([batch[1] for batch in batches]))
    assert torch.equal(accumulators(learner, tallied(learner, batches))["counts"], expected)


def test_values_without_rows_do_not_wait():
    total = attrs.evolve(
        metrics.accuracy,
        measure=lambda prediction, target: prediction.sum(),
        add=lambda acc, value, weight=None: metrics.Mean(acc.total + value, acc.weight + 1),
    )
    batches = [batch_of(4) for _ in range(3)]
    found = computed(learner_of(total=total), tallied(learner_of(total=total), batches))["total"]
    torch.testing.assert_close(found, torch.stack([batch[0].sum().double() for batch in batches]).mean())


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda tally: pickle.loads(pickle.dumps(tally))])
def test_one_with_waiting_batches_is_copied_and_pickled(copied):
    tally = tallied(learner_of(), [batch_of(4) for _ in range(3)])
    assert tally.waiting
    assert tree.equal(copied(tally), tally)


def test_a_metric_that_measures_a_tree_does_not_wait():
    both = metrics.collection({"top_1": metrics.top_k(1), "top_2": metrics.top_k(2)})
    learner, batches = learner_of(both=both), [batch_of(4) for _ in range(3)]
    assert tallied(learner, batches).waiting == ()
    assert not tree.differences(computed(learner, tallied(learner, batches)), one_by_one(learner, batches), rtol=1e-12)


def test_under_a_transform_nothing_waits():
    learner = learner_of()
    batches = [batch_of(4) for _ in range(3)]
    stacked = [tree.stack(list(parts)) for parts in zip(*[batch[:2] for batch in batches], strict=True)]

    def one(prediction, target):
        return computed(learner, tallied(learner, [(prediction, target, None)] * 2))["loss"]

    got = torch.func.vmap(one)(*stacked)
    expected = torch.stack([one_by_one(learner, [batch])["loss"] for batch in batches])
    torch.testing.assert_close(got, expected)


def test_an_error_of_a_metric_comes_with_its_batch():
    def broken(prediction, target):
        raise RuntimeError("broken")

    learner = learner_of(broken=metrics.mean(broken))
    with pytest.raises(RuntimeError, match="broken"):
        tallied(learner, [batch_of(2)])


@pytest.mark.parametrize("jit", [False, "aten"])
def test_a_handler_sees_what_was_measured_and_the_tally(jit):
    def note(step):
        loss, total = step.measured["loss"], step.accumulators["loss"].total
        return ft.train.remember(step, "note", torch.stack([loss.double().sum(), total]))

    rows = data.ArrayDataset((torch.randn(12, 4), torch.randint(3, (12,))))
    learner = learner_of()
    watch = ft.Callback("note", {"after_step": note}, memory=torch.zeros(2, dtype=torch.float64))
    state = ft.init(learner, ft.random.key(0), rows[:1])
    train = data.loader(rows, data.sequential(4))
    result = ft.fit(learner, state, train=train, epochs=1, jit=jit, callbacks=[watch])
    last, total = result.memory["note"].tolist()
    assert 0 < last < total
    assert total / 12 == pytest.approx(result.history[0]["train/loss"])


def test_the_order_of_the_fields_is_that_of_the_learner():
    assert list(tallied(learner_of(), []).added) == ["loss", "accuracy"]
