"""What a function reads of its context or its thread is that of the call, not that of the trace."""

import contextvars
import threading

import pytest
import torch

import functrain as ft


class Options(threading.local):
    scale = 1.0


variable = contextvars.ContextVar("scale", default=1.0)
unset = contextvars.ContextVar("unset")
options, plain, empty = Options(), threading.local(), threading.local()


class Holder:
    """One that has its context variable as an attribute, and reads it in a property."""

    def __init__(self):
        self.variable = contextvars.ContextVar("own")

    @property
    def scale(self):
        return self.variable.get({"scale": 1.0})["scale"]


holder = Holder()
READERS = {
    "context variable": (lambda x: x * variable.get(), variable.set),
    "one that is not set": (lambda x: x * unset.get(1.0), unset.set),
    "one behind a property": (lambda x: x * holder.scale, lambda value: holder.variable.set({"scale": value})),
    "subclass of local": (lambda x: x * options.scale, lambda value: setattr(options, "scale", value)),
    "local": (lambda x: x * plain.scale, lambda value: setattr(plain, "scale", value)),
    "empty local": (lambda x: x * getattr(empty, "scale", 1.0), lambda value: setattr(empty, "scale", value)),
}


def in_another_thread(act):
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


def in_another_context(act):
    contextvars.copy_context().run(act)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("elsewhere", [in_another_thread, in_another_context])
def test_a_value_of_the_call_is_seen(name, elsewhere):
    """And the value of here is seen again, after a call elsewhere."""
    read, write = READERS[name]
    f, x, there = ft.jit(lambda x: read(x)), torch.ones(2), []
    write(2.0)
    assert f(x)[0] == 2

    def act():
        write(3.0)
        there.append(f(x)[0].item())

    elsewhere(act)
    assert there == [3.0] and torch.equal(f(x), read(x))
    write(4.0)
    assert f(x)[0] == 4


def test_a_value_that_stays_makes_no_trace():
    f, x = ft.jit(lambda x: x * options.scale * variable.get() * holder.scale), torch.ones(2)
    for _ in range(3):
        f(x)
        variable.set(float(variable.get()))
    assert len(f.traces) == 1
