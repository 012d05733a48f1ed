"""One entry of the cache of a compiled function: the generated call path for one signature."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.dispatch_state import default_device, function_modes, is_in_mode_of_functions
from functrain.engine.backends.aten.predictions import Mispredicted
from functrain.engine.calling.call_arguments import Call
from functrain.engine.calling.donation import (
    ALONE,
    Donated,
    Taken,
    donated_class,
    holders,
    lost_class,
    separate,
)
from functrain.engine.calling.failures import explain
from functrain.engine.calling.locks import donating
from functrain.engine.calling.tree_code import TENSOR, Writer, tensor_check, write_apart, write_together
from functrain.engine.statics.surroundings import Surroundings
from functrain.engine.tracing.meta.geometry import bitwise_equal
from functrain.engine.tracing.to_graph import Traced

RETRY = object()
"""What an entry returns when the arguments fit, and the memory of a donated one is shared with another tensor."""


@attrs.frozen(eq=False)
class Entry:
    """A signature and what to do with them.

    Attributes:
        run: (args, kwargs) -> the result, `MISS` or `RETRY`.
        matches: (args, kwargs) -> True or `MISS`.
        run_apart: runs a `Call` whose donated tensors may share their memory with others.
        signature: dotted path -> what the trace depends on, in words.
        compiled: what the backend returned.
        first: held by the first call, which compares what was predicted.
    """

    run: Callable
    matches: Callable
    run_apart: Callable[[Call], Any]
    signature: dict[str, str]
    compiled: Callable
    first: Any = attrs.field(factory=threading.Lock)


@attrs.frozen
class Compiled:
    """A function of tensors, compiled, and what it takes to make a function of trees of it.

    Attributes:
        run: from a list of tensors to a list of tensors.
        pairs: (input, result): the donated input in whose memory the result is put.
        written: those of these inputs that are written to: the others are returned as they are.
        spec: the structure of the result.
        tensor_at: which leaves of the result are tensors; the others are None.
        traced: the trace.
        around: what the function closes over, compared at each call.
        name: its name, for messages.
    """

    run: Callable
    pairs: tuple[tuple[int, int], ...]
    written: tuple[int, ...]
    spec: tree.Structure
    tensor_at: list[int]
    traced: Traced
    around: Surroundings
    name: str


def make_entry(call: Call, made: Compiled) -> Entry:
    """Return the entry for the signature of a call."""
    # What the functions below refer to must not be the call: it holds the tensors, and the entry lives on.
    classes = {i: donated_class(made.name, call.tensor_paths[i]) for i in call.donated}
    fail = _failing(made)
    names = [f"x{k}" for k, value in enumerate(call.static) if value is TENSOR]
    writer = Writer()
    _guards(writer, call, made, names)
    matches = _matching(writer, list(writer.lines), made.name)
    _write_call(writer, made, names, classes, fail)
    run = writer.function("run(args, kwargs)", f"jit {made.name}")
    return Entry(run, matches, _apart(made, classes, fail), call.signature, made.run)


def _matching(writer: Writer, guards: list[str], name: str) -> Callable:
    """Return the function that says whether arguments match, which is compiled when it is first called: seldom."""

    @functools.cache
    def compiled() -> Callable:
        lines, writer.lines = writer.lines, [*guards, "return True"]
        made = writer.function("matches(args, kwargs)", f"jit {name}")
        writer.lines = lines
        return made

    return lambda args, kwargs: compiled()(args, kwargs)


def _failing(made: Compiled) -> Callable[..., None]:
    """Return what is done when the compiled function raises: donated memory that it wrote to is lost, and says so."""

    def fail(error: BaseException, donated: tuple[Tensor, ...], kinds: tuple[type, ...] = (), run: Any = None) -> None:
        lost = bool(made.written) and _has_written(error, run or made.run)
        for tensor, kind in zip(donated, kinds or [Tensor] * len(donated), strict=True):
            cls = type(tensor)
            tensor.__class__ = lost_class(cls) if lost and issubclass(cls, Donated) else kind
        explain(error, made.name)

    return fail


def _apart(made: Compiled, classes: dict[int, type], fail: Callable) -> Callable[[Call], Any]:
    """Return the function that runs a call whose donated tensors may share their memory with others."""
    together = _together(made.spec, made.tensor_at)
    closed = {id(t) for t in made.traced.closed}

    def run_apart(again: Call) -> Any:
        # Compared with what was predicted, as long as no call has returned.
        checked = vars(made.run).get("checked")
        run = made.run if checked is None else checked()
        with donating:
            tensors = separate(again.tensors, again.originals, made.written, made.traced.closed, made.traced.offsets)
            # What the function closes over too, it still has to read.
            late = {i: classes[i] for i in classes if id(again.originals[i]) in closed}
            taken = Taken(again.originals, tensors, {i: cls for i, cls in classes.items() if i not in late})
        try:
            results = run(tensors)
        except BaseException as error:
            fail(error, taken.tensors, taken.kinds, run)
            raise
        vars(made.run).pop("checked", None)
        for i, k in made.pairs:
            results[k] = tensors[i]
        Taken(again.originals, tensors, late)
        return together(results)

    return run_apart


def _write_call(writer: Writer, made: Compiled, names: list[str], classes: dict, fail: Callable) -> None:
    """Write the call of the compiled function, and the lines that put its result together."""
    passed = list(names)
    writer.add("taken = ()")
    writer.add("try:")
    if classes:
        writer.add(f"    with {writer.constant(donating)}:")
        _write_shared(writer, [names[i] for i in made.written], [names[i] for i in classes], made.traced.closed)
        for i in classes:
            passed[i] = f"y{i}"
            writer.add(f"        y{i} = {names[i]}.data")
        writer.add(f"        taken = ({''.join(f'{names[i]}, ' for i in classes)})")
        for i, cls in classes.items():
            writer.add(f"        {names[i]}.__class__ = {writer.constant(cls)}")
    writer.add(f"    r = {writer.constant(made.run)}([{', '.join(passed)}])")
    writer.add("except BaseException as error:")
    writer.add(f"    {writer.constant(fail)}(error, taken)")
    writer.add("    raise")
    expressions = [f"r[{k}]" for k in range(len(made.tensor_at))]
    for i, k in made.pairs:
        expressions[k] = f"y{i}"
    leaves = _leaves(made.spec, made.tensor_at, expressions)
    writer.add(f"return {write_together(writer, made.spec, leaves)}")


def _leaves(spec: tree.Structure, tensor_at: list[int], expressions: list[str]) -> list[str]:
    leaves = ["None"] * spec.num_leaves
    for k, expression in zip(tensor_at, expressions, strict=True):
        leaves[k] = expression
    return leaves


def _together(spec: tree.Structure, tensor_at: list[int]) -> Callable[[list[Tensor]], Any]:
    writer = Writer()
    leaves = _leaves(spec, tensor_at, [f"r[{k}]" for k in range(len(tensor_at))])
    writer.add(f"return {write_together(writer, spec, leaves)}")
    return writer.function("together(r)", "jit")


def _guards(writer: Writer, call: Call, made: Compiled, names: list[str]) -> None:
    """Write the checks that arguments, and what the function closes over, are what the trace was made with."""
    everything = "args"
    if call.keywords:
        writer.add(f"if kwargs.keys() != {writer.constant(set(call.keywords))}: return MISS")
        everything = "n"
        writer.add(f"n = (*args, {''.join(f'kwargs[{k!r}], ' for k in call.keywords)})")
        writer.add(f"if len(args) != {call.positional}: return MISS")
    else:
        writer.add("if kwargs: return MISS")
    write_apart(writer, call.spec, call.static, everything)
    writer.add(f"if not {writer.constant(tensor_check(call.tensors))}({', '.join(names)}): return MISS")
    default = writer.constant(torch.get_default_dtype)
    writer.add(f"if {default}() is not {writer.constant(torch.get_default_dtype())}: return MISS")
    _guard_device(writer)
    _guard_tensors(writer, made.traced, names)
    writer.add(f"if not {writer.constant(made.around.same)}(): return MISS")


def _guard_device(writer: Writer) -> None:
    """Write the check that new tensors are put where they were when the function was traced."""
    device = default_device()
    if device is None:
        writer.add(f"if {writer.constant(function_modes)}(): return MISS")
    else:
        other = writer.constant(is_in_mode_of_functions)
        writer.add(f"if {other}() or {writer.constant(default_device)}() != {writer.constant(device)}: return MISS")


def _guard_tensors(writer: Writer, traced: Traced, names: list[str]) -> None:
    """Write the checks of the offsets that the function looked at, and of the tensors that it closes over."""
    for i in sorted(traced.offsets):
        writer.add(f"if {names[i]}.storage_offset() != {traced.inputs[i].storage_offset()}: return MISS")
    if traced.closed:
        check = tensor_check([t.detach() if t.requires_grad else t for t in traced.closed])
        writer.add(f"if not {writer.constant(check)}(*{writer.constant(tuple(traced.closed))}): return MISS")
    if traced.asked:
        writer.add(f"if not {writer.constant(_same_values)}({writer.constant(tuple(traced.asked))}): return MISS")
    if traced.looked:
        writer.add(f"if not {writer.constant(_same_answers)}({writer.constant(tuple(traced.looked))}): return MISS")


def _same_answers(looked: tuple[tuple[Tensor, Callable, Any], ...]) -> bool:
    return all(_is_same(question(tensor), answer) for tensor, question, answer in looked)


def _is_same(now: Any, then: Any) -> bool:
    if isinstance(now, Tensor) or isinstance(then, Tensor):
        return now is then
    return type(now) is type(then) and bool(now == then)


def _same_values(asked: tuple[tuple[Tensor, Tensor], ...]) -> bool:
    return all(bitwise_equal(now, then) for now, then in asked)


def _write_shared(writer: Writer, written: list[str], donated: list[str], constants: list[Tensor]) -> None:
    """Write the check that the memory to be written to is nobody else's, and that nothing donated is closed over."""
    # That no two arguments are the same tensor, the check of the signature has seen to.
    retry, holders_of = writer.constant(RETRY), writer.constant(holders)
    if written:  # one by one: a fifth quicker than by map
        shared = " or ".join(f"{holders_of}({name}.untyped_storage()._cdata) != {ALONE}" for name in written)
        writer.add(f"        if {shared}: return {retry}")
    if constants:
        closed = writer.constant(frozenset(map(id, constants)))
        writer.add(f"        if not {closed}.isdisjoint(map(id, ({', '.join(donated)},))): return {retry}")


def _has_written(error: BaseException, compiled: Callable) -> bool:
    """Return whether the call that raised may have written to donated memory: by the line that it had come to."""
    first = getattr(compiled, "first_write", 0)
    # A scan that lives in donated memory is such a line, but it compares its predictions before it writes.
    first += isinstance(error, Mispredicted)
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_code is getattr(compiled, "__code__", None):
            return at.tb_lineno >= first
        at = at.tb_next
    return first == 0
