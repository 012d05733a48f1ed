"""Operations that training uses and PyTorch's sample inputs lack, for the search of `tests.conformance.schemas`."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_map

from tests.conformance.schemas import Watch
from tests.conformance.schemas_calls import attempt

aten = torch.ops.aten
randn = torch.randn


# Operations called by name with arguments made for their schema


def value_for(argument: Any, dtype: torch.dtype) -> Any:
    """An argument that fits most operations on lists of tensors; a list of numbers holds one for each tensor."""
    kind = str(argument.type)
    if kind == "List[Tensor]":
        # What is only written has no elements yet: PyTorch warns where it has too many.
        shape = (0,) if argument.kwarg_only else (3, 3)
        return [torch.rand(shape).add(0.1).to(dtype) for _ in range(2)]
    if kind == "Tensor":
        return torch.rand(2 if argument.name == "scalars" else ()).to(dtype)
    plain = {"bool": False, "int": 1, "float": 0.5, "number": 0.5}
    return (plain | {f"List[{name}]": [number] * 2 for name, number in plain.items()}).get(kind)


def generic(overload: Any, dtype: torch.dtype) -> tuple[list, dict]:
    """Arguments for an operation, made from its schema."""
    values = {
        item.name: item.default_value if item.has_default_value() else value_for(item, dtype)
        for item in overload._schema.arguments
    }
    alone = {item.name for item in overload._schema.arguments if item.kwarg_only}
    args = [value for name, value in values.items() if name not in alone]
    return args, {name: value for name, value in values.items() if name in alone}


def overloads(prefix: str) -> list:
    names = torch._C._dispatch_get_all_op_names()
    packets = sorted({name.split("::")[1].split(".")[0] for name in names if name.startswith(f"aten::{prefix}")})
    return [getattr(getattr(aten, name), overload) for name in packets for overload in getattr(aten, name).overloads()]


def try_lists(watch: Watch) -> None:
    """Operations on lists of tensors, which treat several at once or, where those are laid out unlike, one by one."""
    dtypes = (torch.float32, torch.complex64, torch.int64)
    for overload, dtype, mixed in itertools.product(overloads("_foreach_"), dtypes, (False, True)):
        args, kwargs = generic(overload, dtype)
        lists = [item for item in args if isinstance(item, list) and torch.is_tensor(item[0])]
        if mixed:
            lists[0][0] = lists[0][0].mT
        watch.label = f"{overload} {dtype} mixed {mixed}"
        with torch.no_grad():
            attempt(watch, lambda o=overload, a=args, k=kwargs: o(*a, **k), [])


# Operations called by name with arguments that only they take


def batch_norms() -> Iterator[tuple[str, tuple]]:
    """In training and not, with and without statistics and weights."""
    # PyTorch itself crashes when it must evaluate without statistics.
    for train, tracked, weighted in (
        (True, True, True),
        (True, True, False),
        (False, True, True),
        (False, True, False),
    ):
        x, one = randn(4, 3, 5, 5), (torch.ones(3), torch.zeros(3))
        weights, stats = one if weighted else (None, None), (torch.zeros(3), torch.ones(3)) if tracked else (None, None)
        yield "native_batch_norm.default", (x, *weights, *stats, train, 0.1, 1e-5)
        yield "_batch_norm_impl_index.default", (x, *weights, *stats, train, 0.1, 1e-5, False)
        yield "_native_batch_norm_legit.default", (x, *weights, *stats, train, 0.1, 1e-5)
        yield "_native_batch_norm_legit.no_stats", (x, *weights, True, 0.1, 1e-5)
        yield "_native_batch_norm_legit_functional.default", (x, *weights, *stats, train, 0.1, 1e-5)
        yield "_native_batch_norm_legit_no_training.default", (x, *weights, *stats, 0.1, 1e-5)
        yield "_batch_norm_with_update.default", (x, *weights, *stats, 0.1, 1e-5)
        yield "_batch_norm_with_update_functional.default", (x, *weights, *stats, 0.1, 1e-5)
        yield "_batch_norm_no_update.default", (x, *weights, *stats, 0.1, 1e-5)
        yield "batch_norm_update_stats.default", (x, *stats, 0.1)
        saved = (torch.zeros(3), torch.ones(3))
        masks = (True, True, True), (True, False, False)
        for mask in masks:
            yield "native_batch_norm_backward.default", (x, x + 1, weights[0], *stats, *saved, train, 1e-5, mask)
            reserve = torch.zeros(0, dtype=torch.uint8)
            yield "batch_norm_backward.default", (x, x + 1, weights[0], *stats, *saved, train, 1e-5, mask, reserve)
        out = (torch.empty(4, 3, 5, 5), torch.empty(3), torch.empty(3))
        yield "native_batch_norm.out", (x, *weights, *stats, train, 0.1, 1e-5, *out)
        yield "_native_batch_norm_legit.out", (x, *weights, *stats, train, 0.1, 1e-5, *out)
        yield "_native_batch_norm_legit.no_stats_out", (x, *weights, True, 0.1, 1e-5, *out)
        yield "_batch_norm_with_update.out", (x, *weights, *stats, 0.1, 1e-5, *out, torch.zeros(0, dtype=torch.uint8))


def other_norms() -> Iterator[tuple[str, tuple]]:
    x, weight, bias = randn(2, 6, 4, 4), torch.ones(6), torch.zeros(6)
    for w, b in ((weight, bias), (None, None)):
        yield "native_group_norm.default", (x, w, b, 2, 6, 16, 3, 1e-5)
        yield "native_group_norm_backward.default", (x, x, randn(2, 3), randn(2, 3), w, 2, 6, 16, 3, (True,) * 3)
        yield (
            "native_group_norm_backward.default",
            (x, x, randn(2, 3), randn(2, 3), w, 2, 6, 16, 3, (True, False, False)),
        )
    y, mean = randn(5, 6), randn(5, 1)
    for w, b in ((weight, bias), (None, None)):
        yield "native_layer_norm.default", (y, [6], w, b, 1e-5)
        yield "_fused_rms_norm.default", (y, [6], w, 1e-5)
        yield "native_layer_norm_backward.default", (y, y, [6], mean, mean, w, b, (True, True, True))
    yield "_weight_norm_interface.default", (y, randn(5, 1))
    yield "_weight_norm_interface_backward.default", (y, y, randn(5, 1), randn(5, 1), 0)
    yield "renorm.default", (y, 2, 0, 1.0)
    yield "embedding_renorm_.default", (3 * y, torch.tensor([0, 2]), 1.0, 2.0)
    yield "embedding_renorm.default", (3 * y, torch.tensor([0, 2]), 1.0, 2.0)


def random_ones() -> Iterator[tuple[str, tuple]]:
    x = randn(4, 5)
    for train in (True, False, None):
        for p in (0.0, 0.5, 1.0):
            yield "native_dropout.default", (x, p, train)
        yield "native_dropout_backward.default", (x, x > 0, 2.0)
    for train in (True, False):
        yield "rrelu_with_noise.default", (x, torch.zeros(4, 5), 0.1, 0.3, train)
        yield "rrelu_with_noise_.default", (x.clone(), torch.zeros(4, 5), 0.1, 0.3, train)
        yield "rrelu_with_noise_functional.default", (x, torch.zeros(4, 5), 0.1, 0.3, train)
        yield "rrelu_with_noise_backward.default", (x, x, torch.ones(4, 5), 0.1, 0.3, train, False)
    yield "histc.default", (x, 5, 0, 1)
    yield "_sobol_engine_draw.default", (torch.zeros(2, dtype=torch.int64), 3, torch.ones(2, 30).long(), 2, 0, None)


MEMORY = ("lift", "lift_fresh", "lift_fresh_copy", "alias", "detach", "_conj", "_conj_physical", "conj_physical")
MEMORY = (*MEMORY, "resolve_conj", "resolve_neg", "positive", "contiguous", "_neg_view", "clone", "real")


def memory_only() -> Iterator[tuple[str, tuple]]:
    """What changes or passes on memory and little else."""
    x, z = randn(4, 6), randn(4, 6, dtype=torch.complex64)
    for y in (x, z, x.mT, z.conj(), torch._neg_view(x), torch.ones(3, 2).long()):
        for name in MEMORY:
            yield f"{name}.default", (y,)
    yield "_unsafe_view.default", (x, [24])
    yield "_unsafe_view.default", (x.mT, [3, 2, 4])
    yield "unsafe_split.Tensor", (x, 2)
    yield "unsafe_split_with_sizes.default", (x, [1, 3])
    yield "unsafe_chunk.default", (x, 2)
    yield "_reshape_alias.default", (x, [24], [1])
    yield "_reshape_copy.default", (x, [24])
    yield "_to_copy.default", (x,)
    yield "view_as_real.default", (z,)
    yield "dequantize.self", (x,)
    yield "dequantize.tensors", ([x, x + 1],)
    yield "_lazy_clone.default", (x,)
    yield "_lazy_clone.default", (z,)
    yield "set_.source_Tensor", (torch.empty(3), x)
    yield "set.source_Tensor", (torch.empty(3), x)
    yield "set_.source_Storage", (torch.empty(3), x.untyped_storage())
    yield "set_.source_Storage_storage_offset", (torch.empty(3), x.untyped_storage(), 0, [3], [1])
    yield "set_.source_Tensor_storage_offset", (torch.empty(3), x, 0, [3], [1])
    yield "resize_.default", (randn(2), [8])
    yield "resize_as_.default", (randn(2), x)
    yield "resize.default", (randn(2), [8])
    yield "resize.default", (randn(8), [2])
    yield "expand_copy.default", (x, [2, 4, 6])
    yield "narrow_copy.default", (x, 0, 0, 4)
    yield "_new_zeros_with_same_feature_meta.default", (x, x)


def fused_steps() -> Iterator[tuple[str, tuple, dict]]:
    """The steps of optimizers, functional and in place, with a rate that is a number or a tensor, scaled or not."""
    rates = {"default": 0.1, "tensor_lr": torch.tensor(0.1)}
    scales = {}, {"grad_scale": torch.tensor(2.0), "found_inf": torch.tensor(0.0)}
    scales = *scales, {"grad_scale": torch.tensor(2.0), "found_inf": torch.tensor(1.0)}
    for (name, rate), scale, end, flag in itertools.product(rates.items(), scales, ("_", ""), (True, False)):
        state = lambda: [torch.rand(3, 4), torch.rand(5)]  # noqa: E731
        steps = [torch.tensor(2.0), torch.tensor(2.0)]
        common = {"lr": rate, "weight_decay": 0.1, "maximize": flag} | scale
        moments = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "amsgrad": flag}
        for adam in ("_fused_adam", "_fused_adamw"):
            largest = state() if flag else []
            lists = (state(), state(), state(), state(), largest, steps)
            yield f"{adam}{end}.{name}", lists, common | moments
        for momentum in (0.9, 0.0):
            more = {"momentum": momentum, "dampening": 0.0, "nesterov": flag, "is_first_step": flag}
            lists = (state(), state(), state() if momentum else [])
            yield f"_fused_sgd{end}.{name}", lists, common | more
        lists = (state(), state(), state(), steps)
        yield f"_fused_adagrad{end}.{name}", lists, common | {"lr_decay": 0.1, "eps": 1e-8}
    found, grads = torch.tensor(0.0), [randn(3), torch.tensor([float("inf"), 1.0])]
    yield "_amp_foreach_non_finite_check_and_unscale_.default", (grads, found, torch.tensor(0.5)), {}
    yield "_amp_foreach_non_finite_check_and_unscale.default", (grads, found, torch.tensor(0.5)), {}
    yield "_amp_update_scale_.default", (torch.tensor(2.0), torch.tensor(1).int(), torch.tensor(1.0), 2.0, 0.5, 3), {}
    yield "_amp_update_scale.default", (torch.tensor(2.0), torch.tensor(1).int(), torch.tensor(1.0), 2.0, 0.5, 3), {}


def observers() -> Iterator[tuple[str, tuple]]:
    """Fake quantization that follows the range of its input, for one scale or one a row."""
    for rows, on, symmetric in itertools.product((False, True), (0, 1), (False, True)):
        size = 4 if rows else 1
        state = (torch.zeros(size), torch.ones(size), torch.ones(size), torch.zeros(size).int())
        switches = (torch.tensor([on]), torch.tensor([1]))
        more = (0.1, 0, 255, 0 if rows else -1, rows, symmetric)
        for name in ("_fused_moving_avg_obs_fq_helper", "_fused_moving_avg_obs_fq_helper_functional"):
            yield f"{name}.default", (randn(4, 5), *switches, *state, *more)
    x, scale, zero = randn(4, 5), torch.ones(4), torch.zeros(4)
    yield "_fake_quantize_learnable_per_tensor_affine.default", (x, scale[:1], zero[:1], 0, 255, 1.0)
    yield "_fake_quantize_learnable_per_channel_affine.default", (x, scale, zero, 0, 0, 255, 1.0)
    yield "fake_quantize_per_channel_affine_cachemask.default", (x, scale, zero.int(), 0, 0, 255)
    yield "fake_quantize_per_tensor_affine_cachemask.default", (x, 1.0, 0, 0, 255)


def attention() -> Iterator[tuple[str, tuple]]:
    x, w, b = randn(2, 5, 8), randn(24, 8), randn(24)
    out, norm = (randn(8, 8), randn(8)), (torch.ones(8), torch.zeros(8))
    mask = torch.zeros(2, 5, dtype=torch.bool)
    for need, m in itertools.product((True, False), (None, mask)):
        kind = 1 if m is not None else None
        yield "_native_multi_head_attention.default", (x, x, x, 8, 2, w, b, *out, m, need, True, kind)
        ffn = (randn(16, 8), randn(16), randn(8, 16), randn(8))
        more = (True, need, 1e-5, *norm, *norm, *ffn, m, kind)
        yield "_transformer_encoder_layer_fwd.default", (x, 8, 2, w, b, *out, *more)
    yield "_transform_bias_rescale_qkv.default", (randn(2, 5, 24), b, 2)
    yield "_masked_softmax.default", (randn(2, 2, 5, 5), torch.zeros(5, 5, dtype=torch.bool), 3, 0)
    q = randn(2, 3, 5, 8)
    for causal in (False, True):
        yield "_scaled_dot_product_flash_attention_for_cpu.default", (q, q + 1, q + 2, 0.0, causal)
        lse = randn(2, 3, 5)
        yield "_scaled_dot_product_flash_attention_for_cpu_backward.default", (q, q, q, q, q, lse, 0.0, causal)
        yield "_scaled_dot_product_attention_math.default", (q, q, q, None, 0.0, causal)


FAMILIES = (batch_norms, other_norms, random_ones, memory_only, observers, attention)


def operation(name: str) -> Any:
    packet, overload = name.split(".")
    return getattr(getattr(aten, packet), overload)


def prepared(x: Any, dtype: torch.dtype, form: Callable, leaves: list | None) -> Any:
    """An input in a form; one of floating-point numbers joins the leaves to differentiate by, if there are any."""
    if not isinstance(x, torch.Tensor):
        return x
    copy = x.detach().clone(memory_format=torch.preserve_format)
    copy = copy.to(dtype) if x.is_floating_point() else copy
    if leaves is not None and x.is_floating_point():
        leaves.append(copy.requires_grad_())
    return form(copy)


def call(name: str, args: tuple, kwargs: dict) -> Any:
    """Calls an operation; arguments beyond those by position are those by keyword alone, in their order."""
    overload = operation(name)
    alone = [argument.name for argument in overload._schema.arguments if argument.kwarg_only]
    count = len(overload._schema.arguments) - len(alone)
    return overload(*args[:count], **dict(zip(alone, args[count:], strict=False)), **kwargs)


def try_named(watch: Watch, form: Callable, dtype: torch.dtype) -> None:
    """All these calls with their tensors in a form and their floating-point numbers in a dtype."""
    calls = [(*one, {}) for family in FAMILIES for one in family()]
    for name, args, kwargs in [*calls, *fused_steps()]:
        given = tree_map(lambda x: prepared(x, dtype, form, None), args)
        watch.label = f"{name} {dtype} {form.__name__}"
        attempt(watch, lambda n=name, g=given, k=kwargs: call(n, g, k), [])
