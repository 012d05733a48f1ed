"""The garbage collector rests while a function is traced and first called, and works as before afterwards."""

import gc
import threading

import pytest
import torch

import functrain as ft
from functrain.engine.calling.locks import SELDOM, seldom_collecting
from functrain.errors import NotTraceable


@pytest.fixture
def before():
    kept = gc.get_threshold()
    gc.set_threshold(701, 9, 8)
    yield (701, 9, 8)
    gc.set_threshold(*kept)


def test_it_rests_while_a_function_is_traced(before):
    seen = []

    def f(x):
        seen.append(gc.get_threshold())
        return ft.jit(lambda x: x + 1)(x)

    ft.jit(f)(torch.ones(2))
    assert (seen, gc.get_threshold()) == ([SELDOM], before)


def test_it_works_as_before_after_an_error(before):
    with pytest.raises(NotTraceable):
        ft.jit(lambda x: x + 1 if x.sum() > 0 else x)(torch.ones(2))
    assert gc.get_threshold() == before


def test_it_works_as_before_when_the_last_of_several_threads_is_done(before):
    begun, may_end = threading.Event(), threading.Event()

    def rest():
        with seldom_collecting():
            begun.set()
            may_end.wait(60)

    with seldom_collecting():
        other = threading.Thread(target=rest)
        other.start()
        assert begun.wait(60)
    assert gc.get_threshold() == SELDOM
    may_end.set()
    other.join(60)
    assert gc.get_threshold() == before
