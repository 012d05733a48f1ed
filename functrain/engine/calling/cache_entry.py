"""One entry of the cache of a compiled function: the generated call path for one form of arguments."""

import re
import types
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.engine.calling.call_arguments import Call
from functrain.engine.calling.donation import ALONE, Donated, address, donated_class, holders, separate, storage
from functrain.engine.calling.tree_code import TENSOR, Writer, tensor_check, write_apart, write_together
from functrain.engine.tracing.meta.geometry import bitwise_equal
from functrain.errors import LabelOutOfRange

RETRY = object()
"""What an entry returns when the arguments fit, and the memory of a donated one is shared with another tensor."""


@attrs.frozen(eq=False)
class Entry:
    """A form of arguments and what to do with them.

    Attributes:
        run: (args, kwargs) -> the result, `MISS` or `RETRY`.
        matches: (args, kwargs) -> True or `MISS`.
        run_apart: runs a `Call` whose donated tensors may share their memory with others.
        form: dotted path -> what the trace depends on, in words.
        compiled: what the backend returned.
    """

    run: Callable
    matches: Callable
    run_apart: Callable[[Call], Any]
    form: dict[str, str]
    compiled: Callable


def make_entry(
    f: Callable,
    name: str,
    call: Call,
    compiled: Callable,
    pairs: tuple[tuple[int, int], ...],
    out_spec: tree.Structure,
    tensor_at: list[int],
    traced: Any,
) -> Entry:
    """Return the entry for the form of a call.

    Args:
        f: the function, whose closed-over tensors and numbers are compared at each call.
        name: its name, for messages.
        call: the arguments that it was traced with.
        compiled: a function of a list of tensors.
        pairs: (input, result): the donated input in whose memory the result is put.
        out_spec: the structure of the result.
        tensor_at: which leaves of the result are tensors; the others are None.
        traced: the trace.
    """
    # What the functions below refer to must not be the call: it holds the tensors, and the entry lives on.
    constants = traced.closed
    classes = {i: donated_class(name, call.tensor_paths[i]) for i in call.donated}
    lost = {i: donated_class(name, call.tensor_paths[i], lost=True) for i in call.donated}
    indices = [k for k, value in enumerate(call.static) if value is TENSOR]
    names = [f"x{k}" for k in indices]

    def fail(error: BaseException, tensors: list[Tensor]) -> None:
        if pairs and _has_written(error, compiled):
            for i, cls in lost.items():
                tensors[i].__class__ = cls
        _explain(error, name)

    def run_apart(again: Call) -> Any:
        tensors = separate(again.tensors, again.originals, [i for i, _ in pairs], constants)
        try:
            results = compiled(tensors)
        except BaseException as error:
            fail(error, again.originals)
            raise
        for i, k in pairs:
            results[k] = tensors[i].data if tensors[i] is again.originals[i] else tensors[i]
        kept = {id(t) for i, t in enumerate(again.originals) if i not in classes}
        for i, cls in classes.items():
            if id(again.originals[i]) not in kept and not isinstance(again.originals[i], Donated):
                again.originals[i].__class__ = cls
        return together(results)

    together = _together(out_spec, tensor_at)
    writer = Writer()
    _guards(writer, f, call, names)
    _guard_tensors(writer, traced, [n for n, t in zip(names, call.tensors, strict=True)])
    body = list(writer.lines)
    writer.add("return True")
    matches = writer.function("matches(args, kwargs)", f"jit {name}")
    writer.lines = body
    if pairs:
        _write_shared(writer, [names[i] for i, _ in pairs], names, call, constants)
    writer.add("try:")
    writer.add(f"    r = {writer.constant(compiled)}([{', '.join(names)}])")
    writer.add("except BaseException as error:")
    writer.add(f"    {writer.constant(fail)}(error, [{', '.join(names)}])")
    writer.add("    raise")
    expressions = [f"r[{k}]" for k in range(len(tensor_at))]
    for i, k in pairs:
        expressions[k] = f"y{i}"
        writer.add(f"y{i} = {names[i]}.data")
    for i, cls in classes.items():
        writer.add(f"{names[i]}.__class__ = {writer.constant(cls)}")
    writer.add(f"return {write_together(writer, out_spec, _leaves(out_spec, tensor_at, expressions))}")
    run = writer.function("run(args, kwargs)", f"jit {name}")
    return Entry(run, matches, run_apart, call.form, compiled)


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


def _guards(writer: Writer, f: Callable, call: Call, names: list[str]) -> None:
    """Write the checks that arguments have the form of a call."""
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
    for check in _closure_checks(writer, f):
        writer.add(f"if {check}: return MISS")


def _guard_tensors(writer: Writer, traced: Any, names: list[str]) -> None:
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


def _closure_checks(writer: Writer, f: Callable) -> list[str]:
    """Return the conditions under which a tensor or number that `f` itself closes over has become another."""
    if not isinstance(f, types.FunctionType):
        return []
    checks = []
    for cell in f.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        checks += _changed(writer, f"{writer.constant(cell)}.cell_contents", value)
    scope = f.__globals__
    for name in f.__code__.co_names:
        if name in scope:
            checks += _changed(writer, f"{writer.constant(scope)}.get({name!r})", scope[name])
    return checks


def _changed(writer: Writer, now: str, value: Any) -> list[str]:
    if isinstance(value, Tensor):
        return [f"{now} is not {writer.constant(value)}"]
    if type(value) in (int, float, str, bool):
        known, kind = writer.constant(value), writer.constant(type(value))
        return [f"{now} is not {known} and (type({now}) is not {kind} or {now} != {known})"]
    return []


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


def _explain(error: BaseException, name: str) -> None:
    # A trace holds no values, so that the kernel is the first to see the labels.
    found = re.match(r"Target (-?\d+) is out of bounds", str(error))
    if found and isinstance(error, IndexError):
        raise LabelOutOfRange(
            f"target: the label {found[1]}, met by the compiled function {name}, is no class of the prediction; number "
            "the classes from 0, widen the last layer, or give what is to be ignored zero weight"
        ) from error


def _has_written(error: BaseException, compiled: Callable) -> bool:
    """Return whether the call that raised may have written to donated memory: by the line that it had come to."""
    first = getattr(compiled, "first_write", 0)
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_code is getattr(compiled, "__code__", None):
            return at.tb_lineno >= first
        at = at.tb_next
    return first == 0
