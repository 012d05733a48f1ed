"""What a function closes over: each change that Python code could read is seen, and nothing else makes a difference."""

import collections
import functools
import sys
import types

import attrs
import numpy as np
import pytest
import toolz
import torch

import functrain as ft
from functrain import losses, nn, optim
from functrain.engine.statics.surroundings import surroundings
from tests.engine.records import Loose, Node

SCALE, TABLE, UNUSED = 1.0, {"a": [1]}, 0
config = types.ModuleType("config")
config.scale, config.inner = 1.0, types.ModuleType("config.inner")
config.inner.depth = {"n": 1}


@attrs.frozen
class Frozen:
    x: object


class Slots:
    __slots__ = ("x", "y")

    def __getattr__(self, name):
        raise AssertionError(f"{name} was looked up")


class Thing:
    factor = 1

    def __init__(self, x=1):
        self.x = x

    def __call__(self, v):
        return v * self.x * self.factor

    def method(self, v):
        return v * self.x

    @property
    def costly(self):
        raise AssertionError("a property was executed")

    def __getattr__(self, name):
        raise AssertionError(f"{name} was looked up")


class Weighted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))

    def forward(self, x):
        return self.inner(x)


def variable():
    k = 1

    def change():
        nonlocal k
        k = 1.0

    return lambda x: x * k, change


def tensor():
    w = torch.ones(2)

    def change():
        nonlocal w
        w = w.clone()

    return lambda x: x * w, change


def closing(value, change):
    """A function that closes over a value, and what changes the value."""
    return lambda: (lambda made: (lambda x: (x, made), functools.partial(change, made)))(value())


def nested():
    k = 1

    def change():
        nonlocal k
        k = True

    def outer():
        return [lambda x: x * k]

    inner = outer()
    return lambda x: inner[0](x), change


def default():
    def f(x, k=1):
        return x * k

    def change():
        f.__defaults__ = (1.0,)

    return lambda x: f(x), change


def keyword_default():
    def f(x, *, k=(1,)):
        return x

    return f, lambda: f.__kwdefaults__.update(k=(1.0,))


def code():
    def f(x):
        return x * 2

    def change():
        f.__code__ = (lambda x: x * 2.0).__code__

    return f, change


def attribute():
    def f(x):
        return x * f.k

    f.k = 1

    def change():
        f.k = 1.0

    return f, change


def unassigned():
    def f(x):
        return k(x)

    def change():
        nonlocal k
        k = torch.sin

    if False:
        k = None
    return f, change


def wrapped():
    inner, change = tensor()
    return torch.no_grad()(inner), change


def jitted():
    inner, change = tensor()
    return ft.jit(inner), change


def jitted_inside():
    inner, change = variable()
    compiled = ft.jit(inner)
    return lambda x: compiled(x), change


def cached():
    table = {"a": 1}
    f = functools.lru_cache(lambda x: table["a"])
    return f, lambda: table.update(a=2)


def bound():
    thing = Thing()
    return thing.method, lambda: setattr(thing, "x", True)


def callable_object():
    thing = Thing()
    return thing, lambda: setattr(thing, "x", 1.0)


def class_attribute():
    class Own(Thing):
        pass

    return lambda x: Own()(x), lambda: setattr(Own, "factor", 2)


def base_attribute():
    class Base:
        k = 1

    class Own(Base):
        pass

    own = Own()
    return lambda x: own.k, lambda: setattr(Base, "k", 1.0)


def method_of_class():
    class Own:
        def method(self):
            return 1

    own = Own()
    return lambda x: own.method(), lambda: setattr(Own, "method", lambda self: 2)


def module():
    net = Weighted()
    return lambda x: net(x), net


def parameter():
    f, net = module()
    return f, lambda: setattr(net.inner[0], "weight", torch.nn.Parameter(torch.ones(2, 2)))


def buffer():
    f, net = module()
    return f, lambda: net.inner[1].register_buffer("running_mean", torch.ones(2))


def training():
    f, net = module()
    return f, lambda: net.eval()


def hook():
    f, net = module()
    return f, lambda: net.inner[0].register_forward_hook(lambda *args: None)


def loss_of_a_step():
    table = {"k": 1.0}
    learner = ft.Learner(nn.dense(2), lambda p, t: table["k"] * losses.cross_entropy(p, t), optim.sgd(lr=0.1))
    return ft.train_step(learner), lambda: table.update(k=2.0)


def bound_builtin():
    entries = [1]
    return functools.partial(map, entries.index), lambda: entries.append(2)


def default_factory():
    table = collections.defaultdict(int, a=1)
    return lambda x: table["a"], lambda: setattr(table, "default_factory", float)


class Methods:
    """What changes a value in place, by name."""

    @staticmethod
    def put(key, value):
        return lambda container: container.__setitem__(key, value)

    @staticmethod
    def set(name, value):
        return lambda thing: setattr(thing, name, value)


put, set_ = Methods.put, Methods.set
KINDS = {
    "a variable": variable,
    "a tensor": tensor,
    "a variable of a nested function": nested,
    "a variable not yet assigned": unassigned,
    "a default": default,
    "a keyword's default": keyword_default,
    "the code": code,
    "an attribute of the function": attribute,
    "a wrapper of PyTorch": wrapped,
    "a jitted function": jitted,
    "a jitted function inside": jitted_inside,
    "a cached function": cached,
    "a bound method": bound,
    "a bound builtin": bound_builtin,
    "a callable object": callable_object,
    "an attribute of a class": class_attribute,
    "an attribute of a base": base_attribute,
    "a method of a class": method_of_class,
    "a parameter of a module": parameter,
    "a buffer of a module": buffer,
    "training or not": training,
    "a hook": hook,
    "a loss in a step": loss_of_a_step,
    "a default factory": default_factory,
    "a dict": closing(lambda: {"k": 1}, put("k", 1.0)),
    "a dict's tensor": closing(lambda: {"k": torch.ones(2)}, put("k", torch.ones(2))),
    "a dict's new key": closing(lambda: {"k": 1}, put("n", 1)),
    "a dict by numbers": closing(lambda: {1: 1}, put(2, 1)),
    "a dict's order": closing(lambda: {"a": 1, "b": 2}, lambda d: d.update(a=d.pop("a"))),
    "an empty dict": closing(dict, put("k", 1)),
    "a list": closing(lambda: [1, 2], put(1, True)),
    "a list's length": closing(lambda: [1, 2], lambda v: v.pop()),
    "an empty list": closing(list, lambda v: v.append(1)),
    "a list of numbers": closing(lambda: [*range(1000)], put(500, 500.0)),
    "a list in a tuple in a dict": closing(lambda: {"k": ((0, [1]),)}, lambda d: d["k"][0][1].append(1)),
    "a list's tensor": closing(lambda: [torch.ones(1)], put(0, torch.ones(1))),
    "a set": closing(lambda: {1}, lambda v: v.add(2)),
    "a deque": closing(lambda: collections.deque([1]), lambda v: v.append(2)),
    "an ordered dict": closing(lambda: collections.OrderedDict(a=1, b=2), lambda v: v.move_to_end("a")),
    "a proxy": closing(lambda: (d := {"k": 1}) and (types.MappingProxyType(d), d), lambda v: v[1].update(k=2)),
    "an array": closing(lambda: np.zeros(2), put(0, -0.0)),
    "bytes that change": closing(lambda: bytearray(2), put(0, 1)),
    "a record": closing(lambda: Loose(1), set_("x", 1.0)),
    "a frozen record": closing(lambda: Frozen([1]), lambda r: r.x.append(1)),
    "a node": closing(lambda: Node({"k": 1}), lambda r: r.x.update(k=2)),
    "an object": closing(lambda: Thing(1), set_("x", True)),
    "an object's new attribute": closing(lambda: Thing(1), set_("z", True)),
    "an object's new method": closing(lambda: Thing(1), set_("method", lambda v: v)),
    "a slot": closing(Slots, set_("y", 1)),
    "a namespace": closing(lambda: types.SimpleNamespace(k=1), set_("k", 2)),
    "a partial": closing(lambda: functools.partial(max, key={"k": 1}), lambda p: p.keywords["key"].update(k=2)),
    "a partial's function": closing(lambda: functools.partial(Thing(1)), lambda p: set_("x", 2)(p.func)),
    "a curry": closing(lambda: toolz.curry(max, [1]), lambda p: p.args[0].append(2)),
    "a composition": closing(lambda: toolz.compose(len, Thing(1)), lambda p: set_("x", 2)(p.first)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_seen_and_named(kind):
    f, change = KINDS[kind]()
    around = surroundings(f)
    assert around.same() and around.same() and around.difference() == ""
    change()
    assert not around.same() and not around.same()
    assert around.difference().startswith("the closed-over ")
    assert surroundings(f).same()


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        (sys.modules[__name__], "SCALE", 1),
        (sys.modules[__name__], "TABLE", {"a": [1.0]}),
        (TABLE["a"], 0, True),
        (config, "scale", 1),
        (config.inner, "depth", {"n": 2}),
        (config.inner.depth, "n", 1.0),
        (sys.modules[__name__], "LATER", 1),
    ],
)
def test_global_variables_and_modules(place, name, value, monkeypatch):
    f = lambda x: [x * SCALE * TABLE["a"][0] * config.inner.depth["n"] for _ in x] + [getattr(config, "scale")] + LATER  # noqa
    around = surroundings(f)
    change = monkeypatch.setattr if isinstance(place, types.ModuleType) else monkeypatch.setitem
    with monkeypatch.context() as patch:
        if isinstance(place, types.ModuleType):
            patch.setattr(place, name, value, raising=False)
        elif isinstance(place, dict):
            patch.setitem(place, name, value)
        else:
            place[name] = value
        assert not around.same() and change
    if isinstance(place, list):
        place[name] = 1
    assert around.same()


def test_a_module_that_the_function_imports(monkeypatch):
    own = types.ModuleType("own_settings")
    own.rate = 1
    monkeypatch.setitem(sys.modules, "own_settings", own)

    def f(x):
        import own_settings  # pyright: ignore

        return x * own_settings.rate

    around = surroundings(f)
    assert around.same()
    own.rate = 1.0
    assert not around.same()


def test_what_the_code_does_not_read_makes_no_difference(monkeypatch):
    def f(x):
        return x.UNUSED + SCALE

    around = surroundings(f)
    monkeypatch.setattr(sys.modules[__name__], "UNUSED", torch.ones(1))
    assert around.same()
