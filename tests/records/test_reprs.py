"""Every record reads well: no address of a function, no values of a tensor, over all records that are public."""

import re
import types
from functools import partial

import attrs
import pytest
import toolz
import torch

import functrain as ft
from functrain import callbacks, data, losses, metrics, nn, optim, plot, schedule, testing
from functrain.records import reprs

ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")
VALUE = 0.8765432
"""What stands in each tensor below, and may be seen in no repr."""


def public_records(module: types.ModuleType, seen: set) -> list[type]:
    """All attrs records that a public name of this module or of a public module in it leads to."""
    found = []
    for name in module.__all__ if hasattr(module, "__all__") else [n for n in dir(module) if n[0] != "_"]:
        thing = getattr(module, name)
        if isinstance(thing, types.ModuleType) and thing.__name__.startswith("functrain") and thing not in seen:
            seen.add(thing)
            found += public_records(thing, seen)
        elif isinstance(thing, type) and attrs.has(thing) and thing not in seen:
            seen.add(thing)
            found.append(thing)
    return found


SEEN: set = set()
RECORDS = [record for module in (ft, plot, testing) for record in public_records(module, SEEN)]


def local_function(x):
    return x


THINGS = {
    "tensor": torch.full((3,), VALUE),
    "scalar": torch.tensor(VALUE),
    "function": lambda x: x,
    "local": [local_function, partial(local_function, torch.full((2,), VALUE))],
    "curried": {"f": toolz.curry(local_function), "method": torch.relu},
    "object": object(),
    "nested": {"a": [(torch.full((2, 2), VALUE), {"b": local_function})]},
    "module": torch.nn.Linear(2, 2),
}


def filled(record: type, thing: object):
    """A record with this in all fields, past its checks."""
    made = object.__new__(record)
    for field in attrs.fields(record):
        object.__setattr__(made, field.name, thing)
    return made


SPECIAL = {
    ft.Run,
    ft.train.History,
    nn.Summary,
    ft.tree.Table,
    data.ArrayDataset,
    ft.checkpoint.Saved,
    ft.checkpoint.Report,
    ft.time_travel.Difference,
    ft.time_travel.Moment,
    schedule.Schedule,
    ft.time_travel.Difference,
    ft.time_travel.Moment,
}
"""Records whose fields cannot be just anything; they are made as users make them, below."""

LABELLED = {nn.Model, metrics.Metric, optim.Transform}
"""Records that read as a label, a string."""


def test_the_walk_meets_records_of_all_rooms():
    assert {nn.Model, ft.Learner, ft.TrainState, ft.Callback, data.Batch, metrics.Metric, ft.Stop} <= set(RECORDS)
    assert len(RECORDS) > 40


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("record", [r for r in RECORDS if r not in SPECIAL], ids=lambda r: r.__qualname__)
def test_no_repr_shows_an_address_or_a_tensors_values(record, thing):
    value = filled(record, THINGS[thing])
    if record in LABELLED:
        object.__setattr__(value, "label", "")
        if record is optim.Transform:
            object.__setattr__(value, "hypers", {"lr": THINGS[thing]})
    text = repr(value)
    assert not ADDRESS.search(text), text
    assert "0.87" not in text and "tensor(" not in text, text


@pytest.fixture(scope="module")
def fitted():
    rows = data.ArrayDataset((torch.full((8, 3), VALUE), torch.zeros(8, dtype=torch.int64)))
    learner = ft.Learner(nn.serial(nn.dense(4), torch.relu, nn.dense(2)), losses.cross_entropy, optim.adam())
    loader = data.loader(rows, data.shuffled(4), transform=lambda key, batch: batch)
    state = ft.init(learner, ft.random.key(0), rows[:1])
    stop = callbacks.early_stopping("valid/loss", restore_best=True)
    run = ft.fit(learner, state, train=loader, valid=data.loader(rows, data.sequential(4)), epochs=2, callbacks=[stop])
    return learner, rows, loader, run


def everyday(fitted, tmp_path):
    learner, rows, loader, run = fitted
    saved = ft.save(tmp_path / "a.safetensors", run.state)
    return {
        "rows": rows,
        "mapped": data.MappedDataset(lambda x: x, [(1, 2)]),
        "loader": loader,
        "batch": data.one_batch(loader),
        "run": run,
        "memory": run.memory,
        "history": run.history,
        "state": run.state,
        "table": ft.tree.table(run.state.params),
        "summary": nn.summary(learner.model, rows[:2][0]),
        "saved": ft.checkpoint.restore(tmp_path / "a.safetensors"),
        "file": saved,
        "callbacks": [callbacks.progress(), callbacks.early_stopping(), callbacks.finite(), callbacks.record()],
        "jitted": ft.jit(lambda x: x),
        "schedule": schedule.Schedule(lambda position: position),
        "scaled": torch.tensor(VALUE) * schedule.cosine(1, 0),
        "mode": nn.training(ft.random.key(0), torch.tensor(VALUE)),
        "metrics": [metrics.mean(lambda p, t: p), metrics.top_k(2), metrics.collection({"a": metrics.accuracy})],
    }


def test_everyday_records_show_no_address_and_no_values(fitted, tmp_path):
    for name, value in everyday(fitted, tmp_path).items():
        html = getattr(value, "_repr_html_", str)()
        for text in (repr(value), str(value), re.sub("<svg.*</svg>", "", html)):  # a curve has its ends written to it
            assert not ADDRESS.search(text), (name, text)
            assert str(VALUE)[:4] not in text and "tensor(" not in text, (name, text)


def test_reprs_of_the_daily_records(fitted):
    _, rows, _, run = fitted
    assert repr(data.shuffled(64)) == "shuffled(batch_size=64)"
    assert (
        repr(data.shuffled(64, "pad", in_memory=False)) == "shuffled(batch_size=64, remainder='pad', in_memory=False)"
    )
    assert repr(data.sequential(64, "drop")) == "sequential(batch_size=64, remainder='drop')"
    assert repr(data.Sampler(lambda *a: None, 4)) == "Sampler(order=lambda, batch_size=4)"
    assert repr(data.Batch(*rows[:2])) == "Batch(input=float32(2, 3), target=int64(2,))"
    assert repr(metrics.mean(losses.mse)) == "mean(mse)"
    assert repr(metrics.collection({"a": metrics.top_k(2)})) == "collection({'a': top_k(2)})"
    assert repr(run.state).splitlines()[0] == "TrainState(step=4, updates=4, start=0, end=4, epoch_length=2)"
    assert "params.0.weight  " in repr(run.state) and "float32(4, 3)" in repr(run.state)
    assert repr(run).splitlines()[-1] == "finished"
    assert repr(optim.adamw(schedule.cosine(0.1, 0.0))).startswith("adamw(lr=cosine(0.1, 0.0)")


def test_a_state_reads_well_inside_a_trace_and_on_another_device(fitted):
    seen = []
    state = fitted[-1].state
    ft.jit(lambda s: (seen.append(repr(s)), s.step)[1])(state)
    assert seen[0].startswith("TrainState(step=int64(), updates=int64()")
    assert repr(ft.tree.to(state, "meta")).startswith("TrainState(step=int64()")


def test_much_is_shown_by_number():
    assert reprs.short(list(range(20))) == "[0, 1, 2, 3, 4, 5, 6, 7, and 12 more]"
    assert reprs.short([[[[[[[1]]]]]]]) == "[[[[[[...]]]]]]"
    assert reprs.short("a" * 200).endswith("...")
    table = ft.tree.table({str(k): torch.zeros(1) for k in range(50)})
    assert "and 10 more" in repr(table) and "and 10 more" in table._repr_html_()


def test_a_schedule_is_drawn_where_its_values_can_be_computed():
    rise = schedule.linear(0.0, 1.0)
    assert repr(rise) == "linear(0.0, 1.0)  ▁▁▂▂▃▃▄▄▅▅▆▆▇▇██" and f"{rise}" == "linear(0.0, 1.0)"
    assert "<svg" in rise._repr_html_() and "updates" in schedule.over_updates(10, rise)._repr_html_()
    broken = schedule.Schedule(lambda position: 1 / 0)
    assert str(broken) == repr(broken) == "lambda" and "<svg" not in broken._repr_html_()


def test_what_is_written_by_users_is_escaped_in_html():
    assert "&lt;b&gt;" in nn.layer("<b>", None, lambda p, x: x)._repr_html_()
    assert "&lt;b&gt;" in ft.train.History(({"<b>": "<b>"},))._repr_html_()
    assert "&lt;b&gt;" in ft.tree.table({"<b>": 1})._repr_html_()
    assert "&lt;b&gt;" in ft.Run(None, notes=("<b>",))._repr_html_()


def test_a_model_of_many_layers_is_broken_into_lines_in_html():
    lines = nn.serial(*[nn.dense(100) for _ in range(10)])._repr_html_().splitlines()
    assert lines[0] == "<pre>serial(" and lines[1] == "    dense(100)," and len(lines) == 12


def test_version():
    assert re.match(r"\d+\.\d+", ft.__version__)
    assert "__version__" in dir(ft)


def test_tables_are_text_alone_also_where_rich_would_display_them(fitted, monkeypatch):
    """In a notebook rich displays what is printed to a captured console, and the text of it is empty."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    learner, rows, _, run = fitted
    assert "train/loss" in repr(run) and "train/loss" in str(run.history)
    summary = repr(nn.summary(learner.model, rows[:2][0]))
    assert "\x1b" not in summary and "dense" in summary


def test_a_schedule_inside_a_text_has_no_picture():
    rise = schedule.linear(0.0, 1.0)
    assert f"{rise}" == "linear(0.0, 1.0)" and f"{rise:>20}" == "    linear(0.0, 1.0)"
    assert repr(nn.dropout(rise)) == "dropout(linear(0.0, 1.0))"
