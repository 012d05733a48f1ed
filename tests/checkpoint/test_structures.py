"""Putting what was saved into a structure: what fits, what does not, and what fits only in part."""

from collections import namedtuple

import attrs
import pytest
import torch
from forging import saved

from functrain import checkpoint, tree
from functrain.checkpoint import Anything, Each, Optional
from functrain.errors import InvalidArgument, TreeMismatch

Pair = namedtuple("Pair", ["first", "second"])


@attrs.frozen
class Best:
    value: float | None = None
    state: object = None
    _hidden: int = 0


@tree.node
class Length:
    value: object
    unit: object = tree.static(default="m")


@attrs.frozen
class Positive:
    value: int = attrs.field(validator=attrs.validators.gt(0))


STATE = {"layer": {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, "step": 3, "name": "a"}


def changed(**leaves):
    """Return the state with other leaves in the layer; None leaves one out."""
    layer = {name: leaf for name, leaf in {**STATE["layer"], **leaves}.items() if leaf is not None}
    return {**STATE, "layer": layer}


@pytest.mark.parametrize(
    ("like", "line"),
    [
        (changed(weight=torch.zeros(3, 2)), r"layer.weight: expected float32\(3, 2\), saved float32\(2, 3\)"),
        (changed(weight=torch.zeros(2, 3).half()), r"layer.weight: expected float16\(2, 3\), saved float32\(2, 3\)"),
        (changed(weight=3), r"layer.weight: expected int, saved float32\(2, 3\)"),
        (changed(weight={"a": 3}), r"layer.weight.a: expected int, saved nothing"),
        (changed(bias=None), r"layer.bias: expected nothing, saved float32\(2,\)"),
        (changed(gain=torch.zeros(2)), r"layer.gain: expected float32\(2,\), saved nothing"),
        ({**STATE, "step": 3.0}, "step: expected float, saved int"),
        ({**STATE, "step": True}, "step: expected bool, saved int"),
        ({**STATE, "step": None}, "step: expected None, saved int"),
        ({**STATE, "step": torch.tensor(3)}, r"step: expected int64\(\), saved int"),
        ({**STATE, "layer": 3}, "layer: expected int, saved a dict"),
    ],
)
def test_another_structure_is_refused_by_path_with_both_sides(tmp_path, like, line):
    path = saved(tmp_path, STATE)
    with pytest.raises(TreeMismatch, match=rf"a.safetensors has another structure than `like`:\n(.*\n)*  {line}"):
        checkpoint.restore(path, like)
    with pytest.raises(TreeMismatch, match=line):
        checkpoint.into(checkpoint.restore(path), like)


def test_at_most_ten_lines_are_shown(tmp_path):
    path = saved(tmp_path, {str(i): i for i in range(100)})
    with pytest.raises(TreeMismatch) as caught:
        checkpoint.load(path, {})
    lines = str(caught.value).split("\n")
    assert len(lines) == 11 and lines[-1] == "  and 91 more"


def test_another_structure_is_refused_before_the_data_is_read(tmp_path):
    path = saved(tmp_path, STATE)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1  # whoever read the data would say so
    path.write_bytes(raw)
    with pytest.raises(TreeMismatch):
        checkpoint.restore(path, {})


def test_what_is_restored_is_of_the_classes_and_in_the_order_of_like(tmp_path):
    value = (Best(0.5, {"w": torch.ones(2)}, 3), Pair(1, [2]), {"b": 1, "a": 2}, torch.Size([2, 3]))
    path = saved(tmp_path, value)
    like = (Best(0.0, {"w": torch.zeros(2)}, 0), Pair(0, [0]), {"a": 0, "b": 0}, torch.Size([0, 0]))
    best, pair, keyed, size = checkpoint.load(path, like)
    assert (type(best), best.value, best._hidden) == (Best, 0.5, 3) and torch.equal(best.state["w"], torch.ones(2))
    assert pair == Pair(1, [2]) and type(pair) is Pair and type(size) is torch.Size and size == (2, 3)
    assert list(keyed.items()) == [("a", 2), ("b", 1)]


def test_like_may_have_no_memory(tmp_path):
    path = saved(tmp_path, {"w": torch.ones(2)})
    loaded = checkpoint.load(path, {"w": torch.empty(2, device="meta")})["w"]
    assert loaded.device.type == "cpu" and torch.equal(loaded, torch.ones(2))


@pytest.mark.parametrize("unit", ["cm", 3, ("m",), None])
def test_a_field_of_the_structure_must_be_the_same(tmp_path, unit):
    path = saved(tmp_path, {"x": Length(torch.ones(2), "m")})
    assert checkpoint.load(path, {"x": Length(torch.zeros(2), "m")})["x"].unit == "m"
    with pytest.raises(TreeMismatch, match=r"x\.unit: expected .*, saved 'm'"):
        checkpoint.load(path, {"x": Length(torch.zeros(2), unit)})


def test_a_field_of_the_structure_may_be_a_container(tmp_path):
    path = saved(tmp_path, Length(1, ("m", {"a": 2})))
    assert checkpoint.load(path, Length(0, ("m", {"a": 2}))).value == 1
    with pytest.raises(TreeMismatch, match="unit: expected"):
        checkpoint.load(path, Length(0, ("m", {"a": 2.0})))


def test_a_validator_sees_what_is_restored(tmp_path):
    path = saved(tmp_path, {"value": -1})
    with pytest.raises(ValueError, match="must be > 0"):
        checkpoint.load(path, Positive(3))


@pytest.mark.parametrize("like", [{"a": print}, {"a": {1, 2}}, {"a": b""}])
def test_like_must_be_data(tmp_path, like):
    path = saved(tmp_path, {"a": 1})
    with pytest.raises(InvalidArgument, match="like: a must be a tensor, a number, a string, None or a container, got"):
        checkpoint.load(path, like)


# Patterns


@pytest.mark.parametrize("history", [(), ({"loss": 0.5}, {"loss": float("inf"), "w": torch.ones(2)}), None, [1, [2]]])
def test_anything(tmp_path, history):
    loaded = checkpoint.load(saved(tmp_path, {"history": history, "n": 1}), {"history": Anything(), "n": 0})
    assert tree.equal(loaded["history"], history) and type(loaded["history"]) is type(history)


def test_anything_may_be_records_of_classes_that_are_named(tmp_path):
    value = {"best": [Best(0.5, Pair(1, Length(torch.ones(2), "m")), 3), None]}
    classes = checkpoint.records_in(value)
    assert set(classes) == {Best, Pair, Length}
    loaded = checkpoint.load(saved(tmp_path, value), {"best": Anything(classes)})["best"]
    assert type(loaded[0]) is Best and loaded[0]._hidden == 3 and type(loaded[0].state) is Pair and loaded[1] is None
    assert type(loaded[0].state.second) is Length and torch.equal(loaded[0].state.second.value, torch.ones(2))


@attrs.frozen
class Other:
    value: int


@pytest.mark.parametrize(
    ("classes", "which"),
    [((), "none"), ((Best, Length), "none"), ((Positive, Other), "2"), ((int, Pair), "none")],
)
def test_anything_is_no_record_that_nobody_named(tmp_path, classes, which):
    message = f"best: a record of value was saved, and {which} of the records that may stand there has these fields"
    with pytest.raises(TreeMismatch, match=message):
        checkpoint.load(saved(tmp_path, {"best": [Positive(3)]}), {"best": Anything(classes)})


@pytest.mark.parametrize("value", [None, Best(0.5, torch.ones(2))])
def test_optional(tmp_path, value):
    like = {"best": Optional(Best(0.0, Optional(torch.zeros(2))))}
    best = checkpoint.load(saved(tmp_path, {"best": value}), like)["best"]
    assert type(best) is type(value) and (value is None or torch.equal(best.state, value.state))


def test_optional_at_the_root(tmp_path):
    assert checkpoint.load(saved(tmp_path, None), Optional({"a": 1})) is None
    assert checkpoint.load(saved(tmp_path, {"a": 2}), Optional({"a": 1})) == {"a": 2}


@pytest.mark.parametrize("kind", [list, tuple, lambda items: dict(enumerate(items))])
@pytest.mark.parametrize("length", [0, 1, 3])
def test_each(tmp_path, kind, length):
    value = kind([Best(float(i)) for i in range(length)])
    assert checkpoint.load(saved(tmp_path, value), Each(Best(0.0))) == value
    assert checkpoint.load(saved(tmp_path, {"a": value}), {"a": Each(Best(0.0))}) == {"a": value}


def test_patterns_that_do_not_fit(tmp_path):
    path = saved(tmp_path, {"a": 3, "b": [1, 2.0]})
    like = {"a": Each(0), "b": Each(0), "c": Optional(1), "d": Anything()}
    with pytest.raises(TreeMismatch) as caught:
        checkpoint.load(path, like)
    assert str(caught.value).split("\n  ")[1:] == [
        "a: expected a list, a tuple or a dict, saved a scalar",
        "b.1: expected int, saved float",
        "c: expected 'Optional', saved nothing",
        "d: expected 'Anything', saved nothing",
    ]


# A part of it


def test_migrate_takes_what_fits_and_says_what_does_not(tmp_path):
    found = checkpoint.restore(saved(tmp_path, {"a": torch.ones(2), "b": torch.ones(3), "old": 1}))
    like = {"a": torch.zeros(2), "b": torch.zeros(2), "new": 5}
    value, report = checkpoint.migrate(found, like)
    assert torch.equal(value["a"], torch.ones(2)) and value["b"] is like["b"] and value["new"] == 5
    assert report.taken == {"a": "a"} and report.kept == ("new",) and report.surplus == ("b", "old")
    assert report.differing == {"b": "expected float32(2,), saved float32(3,)"}
    assert repr(report) == (
        "taken: 1\nkept: 1\n  new\ndiffering: 1\n  b: expected float32(2,), saved float32(3,)\nsurplus: 2\n  b\n  old"
    )


def test_migrate_under_other_paths(tmp_path):
    old = {"body": {"0": {"w": torch.ones(2)}, "1": {"w": torch.ones(3)}}, "head": {"w": torch.ones(4)}}
    found = checkpoint.restore(saved(tmp_path, old))
    like = {"encoder": {"first": {"w": torch.zeros(2)}, "1": {"w": torch.zeros(3)}}, "head": {"w": torch.zeros(4)}}
    value, report = checkpoint.migrate(found, like, paths={"encoder": "body", "encoder.first": "body.0"})
    assert report.taken == {"encoder.first.w": "body.0.w", "encoder.1.w": "body.1.w", "head.w": "head.w"}
    assert not report.kept and not report.surplus
    assert all(bool((leaf == 1).all()) for leaf in tree.leaves(value))


def test_migrate_into_and_out_of_a_part(tmp_path):
    found = checkpoint.restore(saved(tmp_path, {"state": {"w": 1}}))
    assert checkpoint.migrate(found, {"w": 0}, paths={"": "state"})[0] == {"w": 1}
    found = checkpoint.restore(saved(tmp_path, {"w": 1}))
    assert checkpoint.migrate(found, {"state": {"w": 0}}, paths={"state": ""})[0] == {"state": {"w": 1}}


def test_migrate_may_convert(tmp_path):
    found = checkpoint.restore(saved(tmp_path, {"w": torch.ones(2), "n": torch.ones(2)}))
    like = {"w": torch.zeros(2, dtype=torch.bfloat16), "n": torch.zeros(2, dtype=torch.int64)}
    value, report = checkpoint.migrate(found, like, cast=True)
    assert value["w"].dtype == torch.bfloat16 and value["w"].tolist() == [1, 1]
    assert report.differing == {"n": "expected int64(2,), saved float32(2,)"}
    assert set(checkpoint.migrate(found, like)[1].differing) == {"w", "n"}


def test_migrate_refuses_what_is_a_mistake(tmp_path):
    found = checkpoint.restore(saved(tmp_path, {"w": 1}))
    with pytest.raises(InvalidArgument, match="paths: 'v' is no path of `like`"):
        checkpoint.migrate(found, {"w": 0}, paths={"v": "w"})
    with pytest.raises(InvalidArgument, match="saved must be what"):
        checkpoint.migrate({"w": 1}, {"w": 0})
    with pytest.raises(InvalidArgument, match="like: w is a Anything, for `restore` alone"):
        checkpoint.migrate(found, {"w": Anything()})
