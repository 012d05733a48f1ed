"""What a function closes over: values made anew, words, changes by its own trace, cycles, size, memory, threads."""

import functools
import gc
import threading
import time
import warnings
import weakref

import attrs
import pytest
import torch

import functrain as ft
from functrain import losses, metrics, nn, optim, tree
from functrain.engine.statics.surroundings import ManySurroundings, surroundings


class Thing:
    def __init__(self, x=1):
        self.x = x


@attrs.frozen
class Frozen:
    x: object


@tree.node
class Node:
    x: object


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"k": 10**6 + 1, "w": [0.5, "a" * 3], "t": (1.5, float("nan"))},
        lambda: {"f": (lambda x: x + 1), "p": functools.partial(max, 1)},
        lambda: {"r": Frozen((1, 2.5)), "n": Node([1]), "s": frozenset({1, 2})},
        lambda: {"m": nn.serial(nn.dense(2), nn.relu)},
    ],
)
def test_an_equal_value_made_anew_is_the_same(make):
    value = make()
    f = lambda x: value  # noqa: E731
    around = surroundings(f)
    for _ in range(3):
        value = make()
        assert around.same()


def test_a_learner_made_anew_is_the_same():
    table = {}

    def make():
        model = nn.serial(nn.dense(8), nn.relu, nn.dense(2))
        table["step"] = ft.train_step(
            ft.Learner(model, losses.cross_entropy, optim.adamw(lr=0.1), {"accuracy": metrics.accuracy})
        )

    make()
    around = surroundings(lambda s, b: table["step"](s, b))
    make()
    assert around.same()


def test_a_value_that_goes_to_and_fro():
    k = 1
    f = lambda x: x * k  # noqa: E731
    one = surroundings(f)
    k = 2
    two = surroundings(f)
    for k in (1, 2, 1, 2):
        assert one.same() is (k == 1) and two.same() is (k == 2)


@pytest.mark.parametrize(
    ("value", "other", "words"),
    [
        (1, 1.0, "the closed-over k was 1, is 1.0"),
        (0.0, -0.0, "the closed-over k was 0.0, is -0.0"),
        ({"lr": 0.1}, {"lr": "high"}, "the closed-over k['lr'] was 0.1, is 'high'"),
        ({"a": [0, 1]}, {"a": [0]}, "the closed-over k['a'][1] was 1, is absent"),
        (Frozen({"a": 1}), Frozen({"a": 2}), "the closed-over k.x['a'] was 1, is 2"),
        (torch.ones(1), torch.ones(1), "the closed-over k is another tensor"),
        ([1], (1,), "the closed-over k was a list, is a tuple"),
        (None, torch.ones(1), "the closed-over k was None, is a tensor"),
    ],
)
def test_the_words(value, other, words):
    k = value
    around = surroundings(lambda x: k)
    k = other
    assert around.difference() == words and not around.same()


# What the traced function changes itself


def test_what_one_trace_fills_is_left_filled_and_what_each_changes_is_ignored():
    memo, log, count, other = {}, [], 0, [1]
    thing = Thing(0)

    def f(x):
        nonlocal count
        count += 1
        thing.x += 1
        log.append(x)
        return memo.setdefault("w", torch.ones(1)), other

    around = surroundings(f)
    f(0)
    first = around.after_trace()
    assert first.same() and first.ignored == frozenset()
    f(1)
    assert not first.same()
    second = surroundings(f, first).after_trace() if first.same() else first.after_trace()
    f(2)
    assert second.same() and second.ignored == {"count", "thing.x", "log[]"}
    memo["w"] = torch.ones(1)
    assert not second.same()
    third = surroundings(f, second)
    other.append(2)
    assert not third.same()


def test_nothing_is_ignored_where_a_trace_changes_nothing():
    k = 1
    f = lambda x: x * k  # noqa: E731
    around = surroundings(f)
    for k in (2, 3, 4):  # noqa: B007
        around = surroundings(f, around).after_trace()
    assert around.ignored == around.written == frozenset() and around.same()


# Size, cycles, memory, threads


def test_cycles():
    ring = [1]
    ring.append(ring)
    thing = Thing()
    thing.me, thing.ring = thing, ring

    def f(x):
        return f, thing, ring

    around = surroundings(f)
    assert around.same()
    ring[0] = 1.0
    assert not around.same()


def test_an_entry_that_moves_from_one_list_to_the_next_is_seen():
    left, right = [1, 2], [3]
    around = surroundings(lambda x: (left, right))
    right.insert(0, left.pop())
    assert not around.same()


def test_deep_nesting_needs_no_recursion():
    deep = [1]
    for _ in range(5_000):
        deep = [deep]
    around = surroundings(lambda x: deep)
    assert around.same()


def test_many_objects_are_all_looked_at_with_a_warning():
    rows = [[k] for k in range(25_000)]
    with pytest.warns(ManySurroundings, match="rows"):
        around = surroundings(lambda x: rows)
    assert around.same()
    rows[20_000][0] = 0
    assert not around.same()


def test_the_time_is_linear_in_the_size():
    def seconds(n):
        rows = [{"k": k} for k in range(n)]
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert surroundings(lambda x: rows).same()
        return time.process_time() - began

    seconds(500)
    assert min(seconds(20_000) for _ in range(2)) < 40 * min(seconds(2_000) for _ in range(3))


def test_what_is_closed_over_dies_with_the_function():
    def make():
        w, thing, table = torch.ones(2), Thing(), {"w": torch.ones(2), "k": (torch.ones(2), [torch.ones(2)])}

        def f(x):
            return w, thing, table

        everything = w, thing, table["w"], table["k"][0], table["k"][1][0]
        return f, [weakref.ref(one) for one in everything]

    f, refs = make()
    around = surroundings(f)
    assert around.same() and all(ref() is not None for ref in refs)
    gc.collect()
    gc.disable()
    try:
        del f, around
        assert [ref() for ref in refs] == [None] * len(refs)
    finally:
        gc.enable()


def test_a_tensor_that_is_replaced_is_not_kept_alive():
    table, inside = {"w": torch.ones(2)}, [(torch.ones(2),)]
    around = surroundings(lambda x: (table, inside))
    first, second = weakref.ref(table["w"]), weakref.ref(inside[0][0])
    assert around.same()
    table["w"] = torch.ones(2)
    assert first() is None
    inside[0] = (torch.ones(2),)
    assert not around.same()  # a tuple cannot be held weakly: it is let go of at the next look
    assert second() is None and not around.same()


def test_an_object_that_takes_the_place_of_a_dead_one_is_another():
    table = {"w": torch.ones(2)}
    around = surroundings(lambda x: table)
    for _ in range(50):
        del table["w"]
        table["w"] = torch.ones(2)
        assert not around.same()


def test_threads_see_their_own_changes():
    table, wrong, stop = {"k": 0, "w": [1]}, [], threading.Event()
    around = surroundings(lambda x: table["w"])
    other = {"n": 0}

    def look():
        while not stop.is_set():
            if not around.same():
                wrong.append("differs")

    def rebind():
        for k in range(2_000):
            table["w"] = [1]  # equal, and another object
            other["n"] = k

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    rebind()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == [] and around.same()
    table["w"] = [True]
    assert not around.same()
