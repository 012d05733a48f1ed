"""One case: a function and its tensors, run eagerly and by `jit`, and what came of it."""

import re
import traceback
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import attrs
import torch
from torch import Tensor

import functrain as ft
from functrain.errors import FunctrainError, HiddenRandomness, SideEffect

from .comparing import difference, is_exact
from .layouts import copies, memory, reversed_values

OUTCOMES = ("right", "wrong", "raw", "refused", "skipped")


@attrs.frozen(eq=False)
class Case:
    """A function of tensors, which `jit` shall run as eager execution does.

    Attributes:
        name: which case of its group it is.
        f: the function.
        tensors: what it is called with.
        closed: whether the jitted function closes over the tensors, and takes none.
        values: whether the values of the result are determined.
        must_raise: whether it is right that both raise; else such a case shows nothing.
    """

    name: str
    f: Callable
    tensors: list[Tensor]
    closed: bool = False
    values: bool = True
    must_raise: bool = False


@attrs.frozen
class Verdict:
    """What came of a case.

    Attributes:
        outcome: "right"; "wrong": other results, or something changed that must not; "raw": an error that functrain
            does not raise on purpose, or no error where eager execution raises; "refused": a `FunctrainError`;
            "skipped": eager execution fails, or gives other results each time.
        detail: why, in words that are the same for the same cause.
        trace: the traceback of an error.
        exact: whether a right result is equal without tolerance.
        required: whether it is right because it is refused: it draws random numbers, or writes to an argument.
    """

    outcome: str
    detail: str = ""
    trace: str = attrs.field(default="", repr=False)
    exact: bool = False
    required: bool = False


@attrs.frozen(eq=False)
class Ran:
    """What a call did: its result or its error, whether it drew random numbers, and whether it wrote to its tensors."""

    result: Any
    error: Exception | None
    drew: bool
    wrote: bool


def judge(case: Case) -> Verdict:
    """Return what comes of a case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        eager = _run(case.f, copies(case.tensors))
        if not (eager.error or eager.drew or eager.wrote) and _varies(case, case.tensors, eager):
            return Verdict("skipped", "eager execution gives another result the second time")
        return _compare(case, eager)


def _varies(case: Case, tensors: list[Tensor], eager: Ran) -> bool:
    again = _run(case.f, copies(tensors))
    return again.error is not None or difference(eager.result, again.result, case.values) is not None


def _run(f: Callable, tensors: list[Tensor], watched: list[Tensor] | None = None) -> Ran:
    watched = tensors if watched is None else watched
    before, drawn = memory(watched), torch.get_rng_state()
    result = error = None
    try:
        result = f(*tensors)
    except Exception as raised:  # the wrong kinds of exceptions are among what is looked for
        error = raised
    wrote = not all(map(torch.equal, before, memory(watched)))
    return Ran(result, error, not torch.equal(drawn, torch.get_rng_state()), wrote)


def _compare(case: Case, eager: Ran) -> Verdict:
    held = copies(case.tensors)
    jitted = ft.jit((lambda: case.f(*held)) if case.closed else case.f)
    first = _run(jitted, [] if case.closed else held, held)
    if eager.error:
        return _where_eager_raises(case, eager.error, first)
    if first.error:
        return _of_error(first.error, case, eager)
    if eager.drew or eager.wrote:
        return Verdict("wrong", f"runs, though eager execution {'draws' if eager.drew else 'writes to an argument'}")
    found = _of_results("first call", case, eager, first)
    return found if found.outcome != "right" else _second_call(case, jitted, held, found)


def _second_call(case: Case, jitted: Callable, held: list[Tensor], found: Verdict) -> Verdict:
    """Judge the second call, which takes the generated path; where that is possible with other values."""
    given = held if case.closed else reversed_values(case.tensors) or held
    eager = _run(case.f, copies(given))
    if given is not held and (eager.error or eager.drew or eager.wrote or _varies(case, given, eager)):
        given, eager = held, _run(case.f, copies(held))  # the other values are no legal ones
    second = _run(jitted, [] if case.closed else given, given)
    if eager.error:
        return Verdict("skipped", "eager execution fails the second time")
    if second.error:
        return _of_error(second.error, case, eager, "second call: ")
    verdict = _of_results("second call", case, eager, second)
    return attrs.evolve(verdict, exact=verdict.exact and found.exact)


def _of_results(call: str, case: Case, eager: Ran, jitted: Ran) -> Verdict:
    if jitted.wrote:
        return Verdict("wrong", f"{call}: {'a closed-over tensor' if case.closed else 'an argument'} is changed")
    if jitted.drew:
        return Verdict("wrong", f"{call}: draws from the global generator")
    words = difference(eager.result, jitted.result, case.values)
    if words:
        return Verdict("wrong", f"{call}: {words}")
    return Verdict("right", exact=not case.values or is_exact(eager.result, jitted.result))


def _where_eager_raises(case: Case, error: Exception, jitted: Ran) -> Verdict:
    if jitted.wrote:
        return Verdict("wrong", "a call that raises changes its tensors")
    if jitted.error:
        return Verdict("right", exact=True) if case.must_raise else Verdict("skipped", "eager execution raises")
    return Verdict("raw", f"no error, where eager execution raises {_words(error)}")


def _of_error(error: Exception, case: Case, eager: Ran, call: str = "") -> Verdict:
    random = isinstance(error, HiddenRandomness) and (eager.drew or _draws(case))
    if random or (isinstance(error, SideEffect) and eager.wrote):
        return Verdict("right", required=True)
    outcome = "refused" if isinstance(error, FunctrainError) else "raw"
    trace = "" if outcome == "refused" else "".join(traceback.format_exception(error)[-12:])
    return Verdict(outcome, call + _words(error), trace)


def _draws(case: Case) -> bool:
    """Return whether a function gives other results by other seeds.

    The database's own functions set the seed before they draw, and the generator back afterwards.
    """
    seed, results = torch.manual_seed, []
    for other in (1, 2):
        with mock.patch("torch.manual_seed", lambda _seed, other=other: seed(other)):
            results.append(_run(case.f, copies(case.tensors)).result)
    return difference(*results) is not None


def _words(error: BaseException) -> str:
    """Return the class and the message, without lines of code and addresses, which differ where the cause does not."""
    text = re.sub(r",? at [\w.<>-]+:\d+(: `[^`]*`)?", "", str(error).strip().split("\n")[0])
    return f"{type(error).__name__}: {re.sub(r'0x[0-9a-f]+', '0x', text)[:150]}"
