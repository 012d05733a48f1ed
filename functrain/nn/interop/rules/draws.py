"""The draws of PyTorch by keys: each function that draws from a global generator draws from the running module's key.

What the distributions mean is PyTorch's; the numbers are those of `functrain.random`. In-place draws compute the
values first, so they work on tensors of a `vmap` over keys.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain import random
from functrain.errors import HiddenRandomness
from functrain.nn.interop.rules.running import Running, rule

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_generator(run: Running, kwargs: dict[str, Any], what: str) -> None:
    """Raise where a draw names a generator of its own."""
    if kwargs.get("generator") is not None:
        raise HiddenRandomness(
            f"from_module: {run.place() or 'the module'} draws by {what} from a torch.Generator of its own, whose "
            "state no key reproduces; leave generator= out, and the draw comes from the model's key"
        )


def uniform(key: Tensor, shape: Any, dtype: torch.dtype) -> Tensor:
    """Return draws from [0, 1) of a floating-point dtype."""
    return random.uniform(key, tuple(shape), dtype=dtype if dtype in _FLOATS else torch.float32)


def normal(key: Tensor, shape: Any, dtype: torch.dtype) -> Tensor:
    """Return standard normal draws; of a complex dtype, with variance 1/2 in each part."""
    if dtype.is_complex:
        real = torch.float64 if dtype is torch.complex128 else torch.float32
        parts = random.normal(key, (*shape, 2), dtype=real) * 0.5**0.5
        return torch.view_as_complex(parts).to(dtype)
    return random.normal(key, tuple(shape), dtype=dtype if dtype in _FLOATS else torch.float32)


def exponential(key: Tensor, shape: Any, dtype: torch.dtype) -> Tensor:
    """Return draws from the exponential distribution of rate 1, above 0."""
    below_one = uniform(key, shape, torch.float64 if dtype is torch.float64 else torch.float32)
    return -torch.log1p(-below_one.clamp_min(2.0**-25))


# Functions that return what they draw


def _shape_of(args: tuple, kwargs: dict[str, Any], name: str = "size") -> tuple[int, ...]:
    sizes = args if args else (kwargs[name],)
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else tuple(sizes)


def _options(value: Tensor, kwargs: dict[str, Any]) -> Tensor:
    """Return drawn values on the device and with the flag that the call asks for."""
    device = kwargs.get("device")
    value = value if device is None else value.to(device)
    return value.requires_grad_() if kwargs.get("requires_grad") else value


def _write_out(value: Tensor, kwargs: dict[str, Any]) -> Tensor:
    out = kwargs.get("out")
    return value if out is None else out.copy_(value)


@rule(torch.rand, torch.randn)
def _fresh(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    check_generator(run, kwargs, func.__name__)
    dtype = kwargs.get("dtype") or torch.get_default_dtype()
    draw = uniform if func is torch.rand else normal
    shape = _shape_of(args, kwargs)
    return _write_out(_options(draw(run.key(func.__name__), shape, dtype), kwargs), kwargs)


@rule(torch.rand_like, torch.randn_like)
def _like(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    check_generator(run, kwargs, func.__name__)
    like = args[0] if args else kwargs["input"]
    draw = uniform if func is torch.rand_like else normal
    value = draw(run.key(func.__name__), like.shape, kwargs.get("dtype") or like.dtype)
    return _options(value.to(like.device), kwargs)


@rule(torch.randint, torch.randint_like)
def _integers(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    check_generator(run, kwargs, func.__name__)
    named = {**kwargs}
    rest = list(args)
    like = None
    if func is torch.randint_like:
        like = rest.pop(0) if rest else named.pop("input")
        shape = like.shape
    else:
        shape = named["size"] if "size" in named else rest.pop()
    limits = [*rest, *(named[name] for name in ("low", "high") if name in named)]
    low, high = limits if len(limits) == 2 else (0, *limits)
    dtype = kwargs.get("dtype") or (torch.int64 if like is None else like.dtype)
    value = random.randint(run.key(func.__name__), tuple(shape), low, high).to(dtype)
    return _write_out(_options(value if like is None else value.to(like.device), kwargs), kwargs)


@rule(torch.randperm)
def _randperm(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    check_generator(run, kwargs, "randperm")
    n = args[0] if args else kwargs["n"]
    value = random.permutation(run.key("randperm"), n).to(kwargs.get("dtype") or torch.int64)
    return _write_out(_options(value, kwargs), kwargs)


@rule(torch.normal)
def _normal(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    check_generator(run, kwargs, "normal")
    bound = dict(zip(("mean", "std", "size"), args, strict=False)) | kwargs
    mean, std = bound.get("mean", 0.0), bound.get("std", 1.0)
    tensors = [t for t in (mean, std) if isinstance(t, Tensor)]
    shape = torch.broadcast_shapes(*[t.shape for t in tensors]) if tensors else tuple(bound["size"])
    dtype = tensors[0].dtype if tensors else bound.get("dtype") or torch.get_default_dtype()
    value = normal(run.key("normal"), shape, dtype)
    value = value.to(tensors[0].device) if tensors else _options(value, kwargs)
    return _write_out(value * std + mean, kwargs)


@rule(torch.bernoulli, Tensor.bernoulli)
def _bernoulli(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    check_generator(run, kwargs, "bernoulli")
    like = args[0] if args else kwargs["input"]
    p = args[1] if len(args) > 1 else kwargs.get("p")
    key = run.key("bernoulli")
    drawn = random.bernoulli(key, _probability(like if p is None else p), tuple(like.shape))
    return _write_out(drawn.to(like.device, like.dtype), kwargs)


def _probability(p: Any) -> Any:
    return p.detach().to(torch.promote_types(p.dtype, torch.float32)) if isinstance(p, Tensor) else p


@rule(torch.multinomial, Tensor.multinomial)
def _multinomial(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    check_generator(run, kwargs, "multinomial")
    bound = dict(zip(("input", "num_samples", "replacement"), args, strict=False)) | kwargs
    weights, count = bound["input"], bound["num_samples"]
    logits = weights.detach().double().log()
    if bound.get("replacement", False):
        shape = (*logits.shape[:-1], count, logits.shape[-1])
        race = logits.unsqueeze(-2) - exponential(run.key("multinomial"), shape, torch.float64).log()
        return _write_out(race.argmax(-1), kwargs)
    if count > logits.shape[-1]:
        return func(*args, **kwargs)  # which says that there are not so many
    # The smallest of exponential draws of these rates, then the smallest of the others, and so on.
    race = logits - exponential(run.key("multinomial"), logits.shape, torch.float64).log()
    return _write_out(race.topk(count).indices, kwargs)


# Functions that draw into a tensor


def _into(name: str, draw: Callable[..., Tensor], *defaults: tuple[str, Any]) -> None:
    """Enter the rule of an in-place draw: draw(key, tensor, *options) -> values."""
    names = [option for option, _ in defaults]

    def answer(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        check_generator(run, kwargs, name)
        tensor, *rest = args
        bound = dict(defaults) | dict(zip(names, rest, strict=False)) | {k: v for k, v in kwargs.items() if k in names}
        run.check(args)
        run.guard(tensor, name)
        value = draw(run.key(name), tensor, *bound.values())
        with torch.no_grad():
            return tensor.copy_(value)

    rule(getattr(Tensor, name), getattr(torch, name, None))(answer)


def _real(tensor: Tensor) -> torch.dtype:
    return tensor.dtype if tensor.is_floating_point() else torch.float32


def _draw_integers(key: Tensor, tensor: Tensor, low: int, high: Any) -> Tensor:
    if high is None and low != 0:
        low, high = 0, low  # random_(high)
    if high is None:
        mantissa = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}
        high = 2 ** mantissa[tensor.dtype] + 1 if tensor.dtype in mantissa else torch.iinfo(tensor.dtype).max
    return random.randint(key, tuple(tensor.shape), low, high)


_into("uniform_", lambda k, t, low, high: uniform(k, t.shape, t.dtype) * (high - low) + low, ("from", 0.0), ("to", 1.0))
_into("normal_", lambda k, t, mean, std: normal(k, t.shape, t.dtype) * std + mean, ("mean", 0.0), ("std", 1.0))
_into("bernoulli_", lambda k, t, p: random.bernoulli(k, _probability(p), tuple(t.shape)), ("p", 0.5))
_into("exponential_", lambda k, t, rate: exponential(k, t.shape, _real(t)) / rate, ("lambd", 1.0))
_into("random_", _draw_integers, ("from", 0), ("to", None))
_into(
    "log_normal_",
    lambda k, t, mean, std: torch.exp(normal(k, t.shape, _real(t)) * std + mean),
    ("mean", 1.0),
    ("std", 2.0),
)
_into(
    "cauchy_",
    lambda k, t, median, sigma: torch.tan(math.pi * (uniform(k, t.shape, _real(t)) - 0.5)) * sigma + median,
    ("median", 0.0),
    ("sigma", 1.0),
)
_into(
    "geometric_",
    lambda k, t, p: torch.ceil(-exponential(k, t.shape, _real(t)) / math.log1p(-p)).clamp_min(1),
    ("p", 0.5),
)


# Functions without a pure counterpart


@rule(*(getattr(torch, name, None) for name in ("poisson", "binomial", "_standard_gamma", "_sample_dirichlet")))
def _refuse(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    raise HiddenRandomness(
        f"from_module: {run.place() or 'the module'} draws by torch.{func.__name__}, for which functrain.random has no "
        "draw; compose it of uniform, normal or exponential draws"
    )


# Factories, which a vmap over keys must be able to write to


def _batch(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    made = func(*args, **kwargs)
    key, rows = run.mode.key, run.rows_apart
    if key is None or kwargs.get("out") is not None or not (run.is_vmapped or rows):
        return made
    batched = made.detach()
    for one in (key[..., 0], *rows):
        batched = torch.where(one == one, batched, batched)
    return batched.requires_grad_() if made.requires_grad else batched


_FACTORIES = ("empty", "zeros", "ones", "full")
rule(*(getattr(torch, name) for name in _FACTORIES), *(getattr(torch, f"{name}_like") for name in _FACTORIES))(_batch)
rule(Tensor.new, *(getattr(Tensor, f"new_{name}") for name in _FACTORIES))(_batch)
