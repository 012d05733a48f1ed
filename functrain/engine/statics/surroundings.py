"""What a function closes over, and whether it is still the same: a trace is good for as long as it is.

A function under `jit` runs once for each signature of its arguments, so whatever else its Python code can read must be
compared at each call. Looked through are, from the function on and however deep:

- closed-over variables, default arguments, attributes of functions, and the global variables that the code reads;
- attributes of the user's own modules that the code names (`config.scale`, `getattr(config, "scale")`), and of the
  modules of libraries those of them that are numbers, strings, booleans or None (a flag, `math.pi`);
- global variables that `globals()["name"]` names, in code that calls `globals`;
- partials, bound methods and their `self`, wrapped functions, toolz's `curry` and `Compose`, jitted functions;
- entries of containers; fields of records; attributes, slots and the class of objects, `nn.Module`s among them;
- what context variables hold in the context of the call, and the attributes of a `threading.local` in its thread.

Tensors are compared by identity: they are taken by reference. Objects of users' classes are compared by identity and by
what they hold, functions by code and by what they close over, all else by type and value (`static_values`).

Each call takes a `Look` at the places that can be rebound: whether they hold the same objects. Only when one does not,
the walk is repeated and its records are compared, and the look is taken anew if these are the same after all.

What is not seen:

- what the code does not name: `globals()[prefix + name]`, `getattr(config, name)`, an attribute of a module that stands
  in a container or a record;
- functions, classes and containers in the modules of installed packages, their functions' own global variables and the
  variables of their closures, which nobody rebinds;
- the inside of objects of the standard library, NumPy and PyTorch that are no containers (locks, loggers, files,
  iterators, generators, weak references, `re` patterns), and what a class written in C keeps to itself: it is theirs,
  changes at any time, and may be all of the process. Slots of a class written in Python are seen;
- the values of tensors, as ever, and attributes set on them; a new `__class__` or `__dict__` of an object; attributes
  set on a function that had none; properties and `__getattr__` are not executed, though their code is looked through;
- what the traced function itself changes. A trace runs it once, so a counter counts traces. What one trace has changed
  (a memo filled) counts as it was left; what two traces have changed (a log, a counter) is ignored from then on. A
  change that another thread makes during a trace is taken for the trace's own.
"""

import warnings
from collections.abc import Callable, Hashable
from typing import Any

import attrs

from functrain.engine.statics.looking import NEVER, View
from functrain.engine.statics.static_values import ABSENT, PLAIN, Itself
from functrain.engine.statics.walking import Record, Walk, join

MANY = 20_000
"""How many objects may be looked at, at each call, before a warning says so: about a millisecond."""


class ManySurroundings(UserWarning):
    """A function under `jit` closes over so many Python objects that looking at them takes long.

    Pass the large part as an argument, hold it in a tensor or a tuple, or leave it out of what the function can reach.
    """


def surroundings(f: Callable, before: "Surroundings | None" = None) -> "Surroundings":
    """Return what a function closes over, as it is now; take it before the function is traced.

    Args:
        f: any callable.
        before: an earlier result for the same function, from which it is known what its traces change.

    >>> config = {"lr": 0.1}
    >>> def f(x):
    ...     return x * config["lr"]
    >>> around = surroundings(f)
    >>> config["lr"] = 0.2
    >>> around.same(), around.difference()
    (False, "the closed-over config['lr'] was 0.1, is 0.2")
    >>> config["lr"] = 0.1
    >>> around.same()
    True
    """
    ignored = before.ignored if before else frozenset()
    walk = Walk(f, ignored)
    if walk.look.size > MANY and before is None:
        _warn(f, walk)
    return _make(f, walk, ignored, before.written if before else frozenset())


def _make(f: Callable, walk: Walk, ignored: frozenset[str], written: frozenset[str]) -> "Surroundings":
    return Surroundings(f, walk.records, ignored, written, [(walk.look.view(), NEVER)])


def _warn(f: Callable, walk: Walk) -> None:
    path, record = max(walk.records.items(), key=lambda item: len(item[1].parts))
    name = getattr(f, "__name__", type(f).__name__)
    warnings.warn(
        f"{name} closes over {walk.look.size} Python objects, {len(record.parts)} of them in {path}; "
        f"jit compares them at each call: pass it as an argument, or hold it in a tensor or a tuple",
        ManySurroundings,
        stacklevel=3,
    )


@attrs.frozen(eq=False, repr=False)
class Surroundings:
    """What a function closes over, as it was at one moment. Made by `surroundings`.

    It keeps alive what the function itself did when last looked at, but for tensors, which it holds weakly.

    Attributes:
        f: the function.
        records: path -> what was found there.
        ignored: the paths of what is not compared, as the function's own traces keep changing it.
        written: the paths of what a trace has changed.
    """

    f: Callable
    records: dict[str, Record]
    ignored: frozenset[str]
    written: frozenset[str]
    _views: list[tuple[View, View]]  # of this moment, and of the last one that was found to differ; replaced as one

    def same(self) -> bool:
        """Return whether all is still as it was."""
        good, bad = self._views[0]
        try:
            if good.unchanged():
                return True
        except Exception:  # a place is gone, or changed during the look
            pass
        try:
            if bad.unchanged():
                return False
        except Exception:
            pass
        return self._walk_again(good)

    def _walk_again(self, good: View) -> bool:
        walk = _walk(self.f, self.ignored)
        view = walk.look.view()
        if walk.records == self.records:
            self._views[0] = (view, NEVER)
            return True
        # What is gone is let go of. Numbers alone are kept, to be quick where one goes to and fro.
        now = {*map(id, view.held)}
        light = all(type(v) in PLAIN or type(v) is float or id(v) in now for v in good.held)
        self._views[0] = (good if light else NEVER, view)
        return False

    def difference(self) -> str:
        """Return in words what differs now, "" if nothing does."""
        now = _walk(self.f, self.ignored).records
        for path, record in self.records.items():
            if path in now and now[path] != record:
                return f"the closed-over {_difference(path, record, now[path])}"
        gone = [path for path in self.records if path not in now] or [path for path in now if path not in self.records]
        return f"the closed-over {gone[0]} is another" if gone else ""

    def after_trace(self) -> "Surroundings":
        """Return the surroundings after a trace of the function that began with these: what it changed is left so.

        >>> calls = [0]
        >>> def f(x):
        ...     calls[0] += 1
        ...     return x
        >>> before = surroundings(f)
        >>> after = (f(1), before.after_trace())[1]  # as if this call were the trace
        >>> before.same(), after.same(), sorted(after.written)
        (False, True, ['calls[]'])
        >>> again = (f(1), after.after_trace())[1]  # and a second one
        >>> (f(1), again.same())[1], sorted(again.ignored)
        (True, ['calls[]'])
        """
        walk = _walk(self.f, self.ignored)
        changed = _places(self.records, walk.records)
        twice = changed & self.written
        if twice:
            walk = _walk(self.f, self.ignored | twice)
        return _make(self.f, walk, self.ignored | twice, self.written | changed)


def _walk(f: Callable, ignored: frozenset[str]) -> Walk:
    for _ in range(10):
        try:
            return Walk(f, ignored)
        except RuntimeError:  # a set changed size while another thread added to it
            continue
    return Walk(f, ignored)


def _places(before: dict[str, Record], now: dict[str, Record]) -> frozenset[str]:
    """Return the places that differ: variables and attributes by path, containers whole, by path and "[]"."""
    paths: set[str] = set()
    for path, old in before.items():
        new = now.get(path, old)
        if new == old:
            continue
        if not old.named:
            paths.add(f"{path}[]")
            continue
        left, right = _parts(old), _parts(new)
        paths |= {join(path, k, True, 0) for k in {*left, *right} if left.get(k) != right.get(k)}
    return frozenset(paths)


def _parts(record: Record) -> dict[Any, Hashable]:
    return dict(zip(record.keys, record.parts, strict=True))  # pyright: ignore


def _difference(path: str, old: Record, new: Record) -> str:
    left, right = _parts(old), _parts(new)
    for k, key in enumerate(dict.fromkeys([*left, *right])):
        was, now = left.get(key, ABSENT), right.get(key, ABSENT)
        if was != now:
            where = join(path, _bare(key), old.named, k)
            if isinstance(was, Itself) and isinstance(now, Itself):
                return f"{where} is another tensor"
            return f"{where} was {_words(was)}, is {_words(now)}"
    return f"{path or 'function'} is another" + ("" if old.keys == new.keys else " in the order of its entries")


def _bare(key: Any) -> Any:
    return key[1] if type(key) is tuple and len(key) == 2 and key[0] in PLAIN else key


def _words(part: Any) -> str:
    if part is ABSENT:
        return "absent"
    if isinstance(part, Itself):
        return "a tensor"
    if isinstance(part, type):
        return f"a {part.__name__}"
    kind, value = part
    if kind is float:
        return str(value)
    return f"{value!r:.60}" if kind in PLAIN else f"{value}, a {kind.__name__}"
