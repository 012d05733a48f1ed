"""`from_module`: any `torch.nn.Module` as a Model."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.errors import InvalidArgument
from functrain.nn.interop.applying import Application
from functrain.nn.interop.initial import first_values
from functrain.nn.interop.keeping.leaves import misfits
from functrain.nn.interop.keeping.original import Kept, original
from functrain.nn.interop.rules import (  # noqa: F401  (they enter their rules)
    checkpoints,
    draws,
    layers,
    norms,
    own_backwards,
    recurrent,
    staying,
    writes,
)
from functrain.nn.locating import locate
from functrain.nn.mode import EVALUATION, Mode
from functrain.nn.model import Buffers, Model, Params


def from_module(
    module: torch.nn.Module,
    *,
    method: str = "forward",
    out: Callable[[Any], Any] | None = None,
    fresh: bool = False,
    unpack: bool = True,
) -> Model:
    """Return any `torch.nn.Module` as a Model: a pure function of its parameters, its buffers and a key.

    The module is copied and never changed; neither is a global generator. Parameters and buffers are nested dicts with
    the names of its `state_dict`; a tied one has its first name alone, and parameters with `requires_grad=False` are
    among the buffers. New values of buffers (the statistics of batch norm) are returned. Whatever draws in the forward
    (dropout, `torch.rand`, attention with dropout, `Normal.rsample`) draws from
    `fold_in(key, path of the submodule, count of its draws)`. Dropout rounds its probability of keeping to a multiple
    of 2**-16, as `nn.dropout` does. Batch norm heeds the weights of the examples.

    In training each submodule keeps the flag `training` that it had, so a frozen batch norm stays frozen; a module
    that is in evaluation as a whole (as `from_pretrained` returns it) is trained as after `module.train()`. What the
    forward keeps on the module beside its buffers is gone after each application.

    Args:
        module: the module. Lazy ones get their shapes from the example of `init`.
        method: the method to call.
        out: a function of what the method returns, to choose a part of it: `lambda output: output.logits`. It is part
            of the application: what it draws comes from the key.
        fresh: whether `init` draws new values from its key, by the modules' own `reset_parameters` (or what
            `transformers` has for it, `_init_weights`). By default it returns the values that the module has, as they
            are what one brings: often they were trained, and else PyTorch has drawn them already.
        unpack: whether a tuple is passed as several arguments and a dict as arguments by name; else as one argument.

    Raises:
        InvalidArgument: the module cannot be a pure function, or has no such method; when applied, the input does not
            fit the method, or the forward changes in place what it may not.
        TreeMismatch: when applied, an entry of params or buffers is missing, or is one that the module does not have.
        InvalidKey: when applied, it draws and there is no key.
        HiddenRandomness: when applied, it draws from a generator that no key reproduces.

    See also: `to_module`, `freeze`, `lora`, `summary`, `capture`.

    >>> from functrain import nn, random
    >>> module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5))
    >>> model = from_module(module)
    >>> params, buffers = model.init(random.key(0), torch.zeros(1, 3))
    >>> sorted(params), sorted(buffers["1"])
    (['0', '1'], ['num_batches_tracked', 'running_mean', 'running_var'])
    >>> y, buffers = model.apply(params, buffers, torch.ones(2, 3), nn.training(random.key(1)))
    >>> int(buffers["1"]["num_batches_tracked"]), int(module[1].num_batches_tracked)
    (1, 0)
    """
    _check_options(module, method, out)
    kept_code = original(module)

    def init(key: Tensor, example: Any) -> tuple[Params, Buffers]:
        return first_values(kept_code.kept, key, example, fresh, lambda held: _call(held, method, example, unpack))

    def apply(params: Params, buffers: Buffers, x: Any, mode: Mode = EVALUATION) -> tuple[Any, Buffers]:
        application = Application(kept_code.kept, params, buffers, mode)
        application.guard_input(x)
        try:
            y = application.call(lambda held: _choose(_call(held, method, x, unpack), out))
        except Exception as error:
            _explain(error, application, kept_code.kept, method, x, unpack)
            raise
        return y, application.buffers()

    apply.original = kept_code  # pyright: ignore
    label = f"from_module({type(module).__name__})"
    return Model(init, apply, label=label)


def _check_options(module: Any, method: Any, out: Any) -> None:
    if isinstance(module, torch.nn.Module) and not callable(getattr(module, method, None)):
        raise InvalidArgument(f"method must name a method of the module, and {type(module).__name__} has no {method!r}")
    if out is not None and not callable(out):
        raise InvalidArgument(f"out must be a function of what the module returns, got {out!r}")


def arguments(x: Any, unpack: bool) -> tuple[tuple, dict[str, Any]]:
    """Return the arguments by position and by name that an input stands for.

    >>> arguments((1, 2), True), arguments({"a": 1}, True), arguments((1, 2), False)
    (((1, 2), {}), ((), {'a': 1}), (((1, 2),), {}))
    """
    if unpack and type(x) is tuple:
        return x, {}
    if unpack and type(x) is dict and all(isinstance(name, str) for name in x):
        return (), x
    return (x,), {}


def _call(module: torch.nn.Module, method: str, x: Any, unpack: bool) -> Any:
    args, named = arguments(x, unpack)
    call = module if method == "forward" else getattr(module, method)
    return call(*args, **named)


def _choose(y: Any, out: Callable[[Any], Any] | None) -> Any:
    """Return what is chosen of what a module returned; what is computed only when it is asked for is refused."""
    y = y if out is None else out(y)
    if hasattr(type(y), "__next__"):
        raise InvalidArgument(
            f"from_module: the module returns a {type(y).__name__}, which computes when the application is over, with "
            "draws from no key and writes that are lost; let it return a list, or give out=list"
        )
    return y


def _explain(error: Exception, application: Application, kept: Kept, method: str, x: Any, unpack: bool) -> None:
    """Say where an error comes from: which submodule, which arguments do not fit, which values have other shapes."""
    if isinstance(error, TypeError):
        _check_signature(application.module, kept.kind, method, x, unpack)
    place = _place(error, application)
    if place:
        locate(error, place)
    wrong = misfits(kept.leaves, application.passed)
    if wrong:
        error.add_note("from_module: " + "; ".join(wrong[:10]))


def _place(error: Exception, application: Application) -> str | None:
    """Return the path of the innermost module in whose code an error was raised."""
    innermost = None
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_argcount:
            path = application.run.path_of(trace.tb_frame.f_locals.get(code.co_varnames[0]))
            innermost = innermost if path is None else path
        trace = trace.tb_next
    return innermost


def _check_signature(module: torch.nn.Module, kind: str, method: str, x: Any, unpack: bool) -> None:
    signature = inspect.signature(getattr(module, method))
    args, named = arguments(x, unpack)
    try:
        signature.bind(*args, **named)
    except TypeError as error:
        shown = tree.map(lambda leaf: tree.describe(leaf), x)
        advice = " (pass unpack=False to hand it over as one argument)" if isinstance(x, tuple | dict) else ""
        raise InvalidArgument(
            f"from_module: the input does not fit {kind}.{method}{signature}: {error}; got {shown!s:.300}{advice}"
        ) from None
