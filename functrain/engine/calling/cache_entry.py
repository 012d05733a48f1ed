"""One entry of the cache of a compiled function: the generated call path for one signature."""

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.engine.backends.aten.predictions import Mispredicted
from functrain.engine.calling.call_arguments import Call
from functrain.engine.calling.donation import ALONE, Donated, address, donated_class, holders, separate, storage
from functrain.engine.calling.failures import explain
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
    """

    run: Callable
    matches: Callable
    run_apart: Callable[[Call], Any]
    signature: dict[str, str]
    compiled: Callable


@attrs.frozen
class Compiled:
    """A function of tensors, compiled, and what it takes to make a function of trees of it.

    Attributes:
        run: from a list of tensors to a list of tensors.
        pairs: (input, result): the donated input in whose memory the result is put.
        spec: the structure of the result.
        tensor_at: which leaves of the result are tensors; the others are None.
        traced: the trace.
        around: what the function closes over, compared at each call.
        name: its name, for messages.
    """

    run: Callable
    pairs: tuple[tuple[int, int], ...]
    spec: tree.Structure
    tensor_at: list[int]
    traced: Traced
    around: Surroundings
    name: str


def make_entry(call: Call, made: Compiled) -> Entry:
    """Return the entry for the signature of a call."""
    # What the functions below refer to must not be the call: it holds the tensors, and the entry lives on.
    classes = {i: donated_class(made.name, call.tensor_paths[i]) for i in call.donated}
    fail = _failing(call, made)
    names = [f"x{k}" for k, value in enumerate(call.static) if value is TENSOR]
    writer = Writer()
    _guards(writer, call, made, names)
    guards = list(writer.lines)
    writer.add("return True")
    matches = writer.function("matches(args, kwargs)", f"jit {made.name}")
    writer.lines = guards
    _write_call(writer, call, made, names, classes, fail)
    run = writer.function("run(args, kwargs)", f"jit {made.name}")
    return Entry(run, matches, _apart(made, classes, fail), call.signature, made.run)


def _failing(call: Call, made: Compiled) -> Callable[[BaseException, list[Tensor]], None]:
    """Return what is done when the compiled function raises: donated memory that it wrote to is lost, and says so."""
    lost = {i: donated_class(made.name, call.tensor_paths[i], lost=True) for i in call.donated}

    def fail(error: BaseException, tensors: list[Tensor], run: Callable = made.run) -> None:
        if made.pairs and _has_written(error, run):
            for i, cls in lost.items():
                tensors[i].__class__ = cls
        explain(error, made.name)

    return fail


def _apart(made: Compiled, classes: dict[int, type], fail: Callable) -> Callable[[Call], Any]:
    """Return the function that runs a call whose donated tensors may share their memory with others."""
    together = _together(made.spec, made.tensor_at)
    written = [i for i, _ in made.pairs]

    def run_apart(again: Call) -> Any:
        tensors = separate(again.tensors, again.originals, written, made.traced.closed, made.traced.offsets)
        checked = vars(made.run).pop("checked", None)
        run = made.run if checked is None else checked()
        try:
            results = run(tensors)
        except BaseException as error:
            fail(error, again.originals, run)
            raise
        for i, k in made.pairs:
            results[k] = tensors[i].data if tensors[i] is again.originals[i] else tensors[i]
        kept = {id(t) for i, t in enumerate(again.originals) if i not in classes}
        for i, cls in classes.items():
            if id(again.originals[i]) not in kept and not isinstance(again.originals[i], Donated):
                again.originals[i].__class__ = cls
        return together(results)

    return run_apart


def _write_call(writer: Writer, call: Call, made: Compiled, names: list[str], classes: dict, fail: Callable) -> None:
    """Write the call of the compiled function, and the lines that put its result together."""
    if made.pairs:
        _write_shared(writer, [names[i] for i, _ in made.pairs], names, call, made.traced.closed)
    writer.add("try:")
    writer.add(f"    r = {writer.constant(made.run)}([{', '.join(names)}])")
    writer.add("except BaseException as error:")
    writer.add(f"    {writer.constant(fail)}(error, [{', '.join(names)}])")
    writer.add("    raise")
    expressions = [f"r[{k}]" for k in range(len(made.tensor_at))]
    for i, k in made.pairs:
        expressions[k] = f"y{i}"
        writer.add(f"y{i} = {names[i]}.data")
    for i, cls in classes.items():
        writer.add(f"{names[i]}.__class__ = {writer.constant(cls)}")
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
    _guard_tensors(writer, made.traced, names)
    writer.add(f"if not {writer.constant(made.around.same)}(): return MISS")


def _guard_tensors(writer: Writer, traced: Traced, names: list[str]) -> None:
    """Write the checks of the offsets that the function looked at, and of the tensors that it closes over."""
    for i in sorted(traced.offsets):
        writer.add(f"if {names[i]}.storage_offset() != {traced.inputs[i].storage_offset()}: return MISS")
    if traced.closed:
        check = tensor_check([t.detach() if t.requires_grad else t for t in traced.closed])
        writer.add(f"if not {writer.constant(check)}(*{writer.constant(tuple(traced.closed))}): return MISS")
    if traced.asked:
        writer.add(f"if not {writer.constant(_same_values)}({writer.constant(tuple(traced.asked))}): return MISS")


def _same_values(asked: tuple[tuple[Tensor, Tensor], ...]) -> bool:
    return all(bitwise_equal(now, then) for now, then in asked)


def _write_shared(writer: Writer, written: list[str], names: list[str], call: Call, constants: list[Tensor]) -> None:
    """Write the check that the memory to be written to is nobody else's."""
    address_of, holders_of = writer.constant(address), writer.constant(holders)
    counts = f"map({holders_of}, map({address_of}, map({writer.constant(storage)}, ({', '.join(written)},))))"
    writer.add(f"if {{*{counts}}} != {writer.constant({ALONE})}: return {writer.constant(RETRY)}")
    retry = writer.constant(RETRY)
    others = [n for n in names if n not in written]
    passed = [t for k, t in enumerate(call.originals) if names[k] in others]
    if len({id(t) for t in passed}) == len(passed):
        # One set tells whether any two are the same; two that are not donated may be, and take the longer way then.
        writer.add(f"if len({{*map(id, ({', '.join(names)},))}}) != {len(names)}: return {retry}")
    else:
        writer.add(f"own = {{*map(id, ({', '.join(written)},))}}")
        shared = f"not own.isdisjoint(map(id, ({', '.join(others)},)))"
        writer.add(f"if len(own) != {len(written)} or {shared}: return {retry}")
    for t in constants:
        writer.add(f"if {' or '.join(f'{n} is {writer.constant(t)}' for n in written)}: return {retry}")


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
