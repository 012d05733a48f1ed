"""Static values: the same only when type and value are, however deep; and the quick check agrees with the slow one."""

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import gc
import pathlib
import time
import types
import weakref

import attrs
import numpy as np
import pytest
import toolz
import torch
from hypothesis import given
from hypothesis import strategies as st

from functrain.engine.statics.static_checks import same_as
from functrain.engine.statics.static_values import identical, is_settled, snapshot
from tests.engine.records import Loose, Node

Pair = collections.namedtuple("Pair", "a b")
Other = collections.namedtuple("Other", "a b")


@attrs.frozen
class Point:
    x: object
    y: object = 0


@attrs.frozen
class Slim(Point):
    pass


@dataclasses.dataclass
class Data:
    x: object


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: object


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Number(enum.IntEnum):
    ONE = 1


class Name(str):
    pass


class Tuple(tuple):
    pass


class Dict(dict):
    pass


class Plain:
    pass


class Odd:
    """Equal to all of its kind by a truth that it does not have."""

    def __init__(self, verdict):
        self.verdict = verdict

    def __eq__(self, other):
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

    def __hash__(self):
        return 1


class Held:
    """Equal by value, and without a hash: it may change."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return self.value == other.value

    __hash__ = None  # pyright: ignore


def f(x, k=0):
    return x


def g(x, k=0):
    return x


NAN = float("nan")
TENSOR, PLAIN = torch.ones(2), Plain()
TABLE = [  # make a value; make others, each of which differs from it
    (lambda: 1, lambda: [1.0, True, 2, np.int64(1), Number.ONE, "1", 1 + 0j]),
    (lambda: 10**30, lambda: [1e30, 10**30 + 1]),
    (lambda: 0.0, lambda: [-0.0, 0, False, NAN, np.float64(0.0)]),
    (lambda: -0.0, lambda: [0.0]),
    (lambda: float("nan"), lambda: [0.0, None, "nan", float("inf")]),
    (lambda: complex(0.0, -0.0), lambda: [complex(0.0, 0.0), 0.0, complex(-0.0, -0.0), complex(0.0, NAN)]),
    (lambda: complex(NAN, 1), lambda: [complex(1, NAN)]),
    (lambda: True, lambda: [1, 1.0, False, np.True_]),
    (lambda: None, lambda: [False, ()]),
    (lambda: ..., lambda: [None, NotImplemented]),
    (lambda: "".join(["a", "b"]), lambda: [Name("ab"), b"ab", "ac"]),
    (lambda: Name("ab"), lambda: ["ab", Name("ac")]),
    (lambda: b"a", lambda: [bytearray(b"a"), "a"]),
    (lambda: bytearray(b"a"), lambda: [b"a", bytearray(b"b")]),
    (lambda: (1, 2), lambda: [(1, 2.0), [1, 2], (1, 2, 3), (2, 1), Tuple((1, 2)), Pair(1, 2), torch.Size((1, 2))]),
    (lambda: torch.Size((1, 2)), lambda: [(1, 2), torch.Size((1, 3))]),
    (lambda: Pair(1, 2), lambda: [Other(1, 2), Pair(1, 2.0)]),
    (lambda: [1, [0.0]], lambda: [[1, [-0.0]], [1, (0.0,)], [1], [1, [0.0], 2]]),
    (
        lambda: {"a": 1, "b": 2},
        lambda: [{"a": 1, "b": True}, {"b": 2, "a": 1}, {"a": 1}, Dict(a=1, b=2), {"a": 1, "c": 2}],
    ),
    (lambda: {1: "a"}, lambda: [{True: "a"}, {1.0: "a"}, {}]),
    (lambda: {"a": 1}, lambda: [{Name("a"): 1}, collections.OrderedDict(a=1), collections.Counter(a=1)]),
    (lambda: collections.defaultdict(list, a=1), lambda: [collections.defaultdict(set, a=1), {"a": 1}]),
    (lambda: types.MappingProxyType({"a": 1}), lambda: [{"a": 1}, types.MappingProxyType({"a": 1.0})]),
    (lambda: {1, (2, 3)}, lambda: [{1, (2, 3.0)}, {True, (2, 3)}, frozenset({1, (2, 3)}), {1}]),
    (lambda: frozenset({1, 2}), lambda: [frozenset({1, 2.0}), {1, 2}]),
    (lambda: collections.deque([1], 3), lambda: [collections.deque([1], 4), collections.deque([1.0], 3), [1]]),
    (lambda: slice(0, 1), lambda: [slice(0, 1.0), slice(0, True), slice(0, 1, 1)]),
    (lambda: range(0, 3, 2), lambda: [range(0, 4, 2), range(3), [0, 2]]),
    (lambda: Point(1), lambda: [Point(1.0), Slim(1), Point(1, -0.0), Loose(1), (1, 0)]),
    (lambda: Loose([1]), lambda: [Loose([True])]),
    (lambda: Node(1), lambda: [Node(True)]),
    (lambda: Data(1), lambda: [Data(1.0), Frozen(1)]),
    (lambda: Frozen((1, NAN)), lambda: [Frozen((1.0, NAN))]),
    (lambda: Color.RED, lambda: [Color.BLUE, 1]),
    (lambda: Number.ONE, lambda: [1]),
    (lambda: torch.float32, lambda: [torch.float64, "float32"]),
    (lambda: torch.device("cpu"), lambda: [torch.device("meta"), "cpu"]),
    (lambda: torch.strided, lambda: [torch.sparse_coo]),
    (lambda: functools.partial(f, 1, k=2), lambda: [functools.partial(f, 1, k=2.0), functools.partial(g, 1, k=2), f]),
    (lambda: toolz.curry(f, k=2), lambda: [toolz.curry(f, k=2.0), functools.partial(f, k=2)]),
    (lambda: toolz.compose(f, functools.partial(g, k=1)), lambda: [toolz.compose(f, functools.partial(g, k=True))]),
    (lambda: np.float64(0.0), lambda: [np.float64(-0.0), np.float32(0.0), 0.0]),
    (lambda: np.float64(NAN), lambda: [np.float64(1)]),
    (lambda: np.int32(1), lambda: [np.int64(1), 1]),
    (lambda: np.zeros(2), lambda: [-np.zeros(2), np.zeros((1, 2)), np.zeros(2, np.float32), [0.0, 0.0]]),
    (lambda: np.array([1, "a"], object), lambda: [np.array([1.0, "a"], object)]),
    (lambda: array.array("i", [1]), lambda: [array.array("l", [1]), array.array("i", [2])]),
    (lambda: TENSOR, lambda: [torch.ones(2), None]),
    (lambda: PLAIN, lambda: [Plain()]),
    (lambda: f, lambda: [g]),
    (lambda: int, lambda: [float]),
    (lambda: PLAIN.__init__, lambda: [Plain().__init__]),
    (lambda: fractions.Fraction(1, 2), lambda: [fractions.Fraction(1, 3), 0.5, decimal.Decimal("0.5")]),
    (lambda: decimal.Decimal("0.5"), lambda: [decimal.Decimal("0.25")]),
    (lambda: pathlib.PurePath("a"), lambda: [pathlib.PurePath("b"), "a"]),
    (lambda: datetime.date(2000, 1, 1), lambda: [datetime.date(2000, 1, 2)]),
    (lambda: Odd(True), lambda: [Plain()]),
    (lambda: Held(1), lambda: [Held(1.0), Held(True), Held(2)]),
]
DIFFERENT = [(make, k) for make, others in TABLE for k in range(len(others()))]
INSIDE = {
    "itself": lambda v: v,
    "a tuple": lambda v: (0, v),
    "a list": lambda v: [v, 0],
    "a dict": lambda v: {"k": v},
    "a record": lambda v: Point((v,)),
    "a partial": lambda v: functools.partial(f, k=[v]),
    "deep": lambda v: {"a": [Data((v, v))], (1,): v},
}


@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("row", range(len(TABLE)))
def test_each_kind_is_what_it_is_and_no_other(row, inside):
    make, others, put = *TABLE[row], INSIDE[inside]
    value, again, check = put(make()), put(make()), same_as(put(make()))
    assert identical(value, again) and snapshot(value) == snapshot(again) and check(again)
    for other in map(put, others()):
        assert not identical(value, other) and not identical(other, value), other
        assert snapshot(value) != snapshot(other), other
        assert not check(other), other


@pytest.mark.parametrize("verdict", [ValueError("no"), torch.ones(2), np.ones(2), NotImplemented, "yes", 1, None])
def test_an_equality_that_gives_no_truth_is_none(verdict):
    a, b = Odd(verdict), Odd(verdict)
    assert not identical(a, b) and identical(a, a) and identical([a], [a]) and not same_as((a,))((b,))


def test_sets_are_compared_whatever_the_order_of_their_elements():
    a, b = set(), set()
    for k in range(100):
        a.add(k * 64)
        b.add((99 - k) * 64)
    assert list(a) != list(b) and identical(a, b) and identical([a], [b])


@pytest.mark.parametrize(
    "value", [1, "a", (1, (2.0,)), frozenset({1}), Point(1), Color.RED, range(3), f, torch.float32]
)
def test_what_cannot_change_is_settled(value):
    assert is_settled(value)


@pytest.mark.parametrize(
    "value", [[1], {}, {1}, (1, []), Point([]), Data(1), Loose(1), np.ones(1), bytearray(), Held(1)]
)
def test_what_may_change_is_not_settled_and_a_change_is_seen(value):
    assert not is_settled(value)
    assert same_as(value)(value)


def test_a_container_that_changes_is_no_longer_what_it_was():
    value = ({"a": [1]}, Loose([1]))
    then, check = snapshot(value), same_as(value)
    value[1].x.append(2)
    assert snapshot(value) != then and not check(value)
    value[1].x.pop()
    assert snapshot(value) == then and check(value)


def loop(*values):
    inner = [*values]
    inner.append({"again": inner})
    return inner


def test_values_that_hold_themselves():
    assert identical(loop(1), loop(1)) and not identical(loop(1), loop(1.0)) and same_as(loop(1))(loop(1))


def test_which_of_two_rings_is_held_counts():
    def rings(crossed):
        left, right = [None, "p"], [None, "q"]
        left[0], right[0] = [left], [right]
        if crossed:
            right[0] = left[0]
        return [left, right]

    assert identical(rings(False), rings(False)) and not identical(rings(False), rings(True))


def test_deep_nesting_needs_no_recursion():
    def deep(leaf):
        for _ in range(20_000):
            leaf = [leaf]
        return leaf

    assert identical(deep(1), deep(1)) and not identical(deep(1), deep(True))


def test_shared_parts_are_looked_at_once():
    def doubled(leaf):
        for _ in range(200):
            leaf = (leaf, leaf)
        return leaf

    assert identical(doubled(1), doubled(1)) and not identical(doubled(1), doubled(1.0))
    assert identical((p := (1, 2), p), ((1, 2), (1, 2)))


def test_the_time_is_linear_in_the_size():
    def seconds(n):
        value, other = [[k, (k,)] for k in range(n)], [[k, (k,)] for k in range(n)]
        began = time.process_time()
        assert identical(value, other)
        return time.process_time() - began

    seconds(1_000)
    assert min(seconds(40_000) for _ in range(3)) < 40 * min(seconds(4_000) for _ in range(3))


def test_a_snapshot_keeps_no_tensor_and_no_object_alive():
    tensor, plain = torch.ones(2), Plain()
    gone = weakref.ref(tensor), weakref.ref(plain)
    gc.collect()
    then, check = snapshot([tensor, (plain,)]), same_as([tensor, (plain,)])
    del tensor, plain
    assert [ref() for ref in gone] == [None, None]
    assert snapshot([torch.ones(2), (Plain(),)]) != then and not check([torch.ones(2), (Plain(),)])


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.0, -0.0, 1.0, NAN, -1.0, 2.0]),
    st.sampled_from(["", "a", Name("a"), b"a", Color.RED, Number.ONE, 1j, torch.float32, np.int64(1), np.float64(1.0)]),
)
KEYS = st.sampled_from(["a", "b", 1, 2, (1,), None])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Data, inner),
        st.builds(Pair, inner, inner),
        st.builds(functools.partial, st.just(f), inner),
    ),
    max_leaves=8,
)


def copied(value):
    """The same value, of other objects."""
    if isinstance(value, float) and type(value) is float:
        return float(str(value))
    if type(value) in (list, tuple):
        return type(value)(map(copied, value))
    if type(value) is dict:
        return {copied(k): copied(v) for k, v in value.items()}
    if type(value) in (Point, Data):
        return type(value)(*(copied(getattr(value, name)) for name in value.__class__.__annotations__))
    if type(value) is Pair:
        return Pair(*map(copied, value))
    return functools.partial(f, *map(copied, value.args)) if isinstance(value, functools.partial) else value


def spelled(value):
    """An oracle: a string that is the same for the same values alone."""
    if type(value) in (list, tuple, Pair):
        return f"{type(value).__name__}({','.join(map(spelled, value))})"
    if type(value) is dict:
        return f"dict({','.join(f'{spelled(k)}:{spelled(v)}' for k, v in value.items())})"
    if type(value) in (Point, Data):
        return f"{type(value).__name__}({','.join(spelled(getattr(value, n)) for n in type(value).__annotations__)})"
    if isinstance(value, functools.partial):
        return f"partial({','.join(map(spelled, value.args))})"
    return f"{type(value).__name__}:{value!r}"


@given(VALUES, VALUES)
def test_generated_values_are_identical_when_they_are_spelled_alike(a, b):
    same = spelled(a) == spelled(b)
    assert identical(a, b) is same and (snapshot(a) == snapshot(b)) is same and same_as(a)(b) is same


@given(VALUES)
def test_a_copy_is_identical(value):
    again = copied(value)
    assert identical(value, again) and hash(snapshot(value)) == hash(snapshot(again)) and same_as(value)(again)
