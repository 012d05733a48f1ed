"""The rules of shapes, layouts and dtypes: what they say is what PyTorch's kernels give."""

import pytest
import torch
from torch import Tensor

import functrain as ft
from functrain.engine.tracing.abstract_tensor import abstract
from functrain.engine.tracing.meta.elementwise_rules import broadcast
from functrain.engine.tracing.meta.geometry import map_tensors
from functrain.engine.tracing.meta.inference import infer
from functrain.engine.tracing.meta.operation_rules import RULES
from tests.engine.functions_to_trace import IMAGES, INDEX, form, nhwc, of

aten = torch.ops.aten


def _visible(value):
    # The stride of an axis of length one says nothing, and none does where there is no element.
    strides = [s for s, n in zip(value.stride(), value.shape, strict=True) if n > 1 and value.numel()]
    return tuple(value.shape), strides, value.dtype, str(value.device)


SURE = {
    "threshold_backward": [(of(3, 4), of(4, 3).t(), 0), (of(4, 3).t(), of(3, 4), 0)],
    "masked_fill": [(of(4, 3).t(), of(3, 4) > 0, 1.0), (nhwc(2, 3, 4, 5), of(4, 5) > 0, 1.0)],
    "pow": [(of(4, 3).t(), 2), (of(4, 3).abs().t(), of(3, 4)), (0.9, of(3, 4)), (1, of()), (0.9, of().double())],
    "any": [(of(3, 4) > 0, 1), (of(3, 4) > 0,)],
    "cumsum": [(of(3, 4), 1), (of(3, 4, dtype=torch.int64), 0)],
    "max_pool2d_with_indices": [(IMAGES, [2, 2]), (IMAGES, [3, 3], [1, 1], [1, 1])],
    "avg_pool2d": [(IMAGES, [2, 2])],
    "native_batch_norm": [(IMAGES, of(3), of(3), None, None, True, 0.1, 1e-5)],
    "add": [(of(3, 4), of(4)), (of(3, 4).t(), of(4, 3)), (of(3, 4), 2), (of(2, 3, 4).permute(2, 0, 1), of(4, 1, 3))],
    "mul": [(of(3, 4)[:, ::2], of(3, 1)), (of(3, 4, dtype=torch.int64), 2.5), (of(), of(3, 4).double())],
    "gt": [(of(3, 4).t(), 0), (of(3, 1, 2), of(4, 1))],
    "div": [(of(3, 4, dtype=torch.int64), 2), (of(2, 3).expand(4, 2, 3), of(3))],
    "relu": [(of(3, 4).t(),), (of(2, 3).expand(4, 2, 3),), (of(2, 3, 4).permute(1, 2, 0)[:, ::2],)],
    "where": [(of(3, 4) > 0, of(4), of(3, 1)), (of(3, 4).t() > 0, of(4, 3), of())],
    "mm": [(of(3, 4), of(3, 5).t()[:, :3].t().new_zeros(4, 2))],
    "addmm": [(of(5), of(3, 4), of(5, 4).t())],
    "bmm": [(of(2, 3, 4), of(2, 5, 4).mT)],
    "sum": [(of(3, 4), [0], True), (of(3, 4, dtype=torch.int64),), (of(2, 3, 4).mT, [1])],
    "amax": [(of(2, 3, 4).permute(2, 0, 1), [1])],
    "argmax": [(of(3, 4), 1)],
    "_softmax": [(of(3, 4), 1, False)],
    "native_layer_norm": [(of(2, 3, 4), [4], of(4), of(4), 1e-5)],
    "index_select": [(of(3, 4), 1, INDEX[0])],
    "gather": [(of(3, 4), 1, INDEX)],
    "cat": [([of(3, 4), of(2, 4)],)],
    "stack": [([of(3, 4), of(3, 4)], 1)],
    "embedding": [(of(3, 4), INDEX)],
}


@pytest.mark.parametrize("name", SURE)
def test_a_rule_says_what_the_operation_gives(name):
    for args in SURE[name]:
        on_meta = [_meta(a) for a in args]
        said = RULES[name](*on_meta)
        assert said is not None, f"no rule for {name} of {list(map(form, args))}"
        real = getattr(torch.ops.aten, name)(*args)
        for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (said, real)), strict=True):
            assert _visible(a) == _visible(b.to("meta")), list(map(form, args))


def _meta(value):
    if isinstance(value, list) and isinstance(value[0], Tensor):
        return [_meta(v) for v in value]
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


@pytest.mark.parametrize(
    ("op", "args"),
    [
        (aten.mm.default, (of(3, 4), of(3, 4))),
        (aten.bmm.default, (of(2, 3, 4), of(2, 3, 4))),
        (aten.addmm.default, (of(2), of(3, 4), of(4, 3))),
        (aten.add.Tensor, (of(3, 4), of(3))),
        (aten.sum.dim_IntList, (of(3, 4), [2])),
        (aten.index_select.default, (of(3, 4), 2, INDEX[0])),
        (aten.cat.default, ([of(3, 4), of(3, 5)],)),
        (aten.stack.default, ([of(3, 4), of(3, 5)],)),
        (aten.gather.default, (of(3, 4), 0, torch.zeros(3, 5, dtype=torch.int64))),
        (aten.native_layer_norm.default, (of(3, 4), [3], None, None, 1e-5)),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_by_pytorch_and_no_rule(op, args):
    with pytest.raises((RuntimeError, IndexError)):
        op(*args)
    with pytest.raises((RuntimeError, IndexError)):
        infer(op, map_tensors(abstract, args), {}, on_meta=False)


@pytest.mark.parametrize("seed", range(60))
def test_the_order_of_axes_is_that_of_tensor_iterator(seed):
    """Random permutations, broadcasts and slices of up to three operands."""
    gen = torch.Generator().manual_seed(seed)
    rank = int(torch.randint(1, 5, (), generator=gen))
    shape = [int(n) for n in torch.randint(2, 5, (rank,), generator=gen)]
    operands = [_operand(shape, gen) for _ in range(1 + seed % 3)]
    real = operands[0].relu() if len(operands) == 1 else sum(operands[1:-1], operands[0]) + operands[-1]
    said = _meta(operands[0])
    for x in operands[1:]:
        said = broadcast([said, _meta(x)], torch.float32)
    said = broadcast([said], torch.float32) if len(operands) == 1 else said
    assert _visible(said) == _visible(real.to("meta")), [form(x) for x in operands]


def _operand(shape, gen):
    order = torch.randperm(len(shape), generator=gen).tolist()
    x = torch.zeros([shape[k] for k in order]).permute([order.index(k) for k in range(len(shape))])
    kind = int(torch.randint(0, 4, (), generator=gen))
    axis = int(torch.randint(0, len(shape), (), generator=gen))
    if kind == 0:
        return x.narrow(axis, 0, 1)
    if kind == 1:
        return x.narrow(axis, 0, 1).expand(shape)
    if kind == 2:
        return x[(slice(None),) * axis + (0,)].unsqueeze(axis) if axis else x[0]
    return x


@pytest.mark.parametrize("name", sorted(n for n, rule in RULES.items() if "elementwise" in rule.__qualname__))
def test_elementwise_rules_agree_with_pytorch_on_random_operands(name):
    """Permutations, broadcasts, slices and mixed dtypes; a rule may not know, and may not be wrong."""
    gen = torch.Generator().manual_seed(0)
    sure = 0
    for _ in range(60):
        shape = [int(n) for n in torch.randint(2, 4, (3,), generator=gen)]
        dtypes = [torch.float32, torch.float32, torch.float64, torch.int64]
        given = [_operand(shape, gen).to(dtypes[int(torch.randint(0, 4, (), generator=gen))]) for _ in range(2)]
        for args in ((given[0],), tuple(given), (given[0], 2), (given[0], 0.5)):
            try:
                real = getattr(aten, name)(*args)
            except (RuntimeError, TypeError):
                continue
            said = RULES[name](*map(_meta, args))
            if said is not None:
                sure += 1
                assert _visible(said) == _visible(real.to("meta")), [form(a) for a in args]
    assert sure > 10 or name in TERNARY


TERNARY = {
    *("addcdiv", "addcmul", "elu", "elu_backward", "gelu_backward", "hardtanh", "isfinite", "isinf", "lerp"),
    *("leaky_relu_backward", "logical_not", "sigmoid_backward", "silu_backward", "softplus", "tanh_backward", "where"),
}
"""Operations of three operands, or made of others: `test_the_trace_is_right_about_each_value` has them."""


CHOOSING = {
    "clamp_max": torch.clamp_max,
    "clamp_min": torch.clamp_min,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "fmax": torch.fmax,
    "clamp": lambda x, y: torch.clamp(x, y, y + 1),
}


@pytest.mark.parametrize("name", CHOOSING)
def test_gradients_of_what_chooses_are_laid_out_as_in_eager(name):
    # PyTorch 2.14 fills them in place, but where a mode is on.
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).t()
    others = {"same": x.clone(), "transposed": x.roll(1), "contiguous": x.roll(1).contiguous(), "number": x[0, 0]}

    def both(x, y):
        return torch.func.vjp(CHOOSING[name], x, y)[1](torch.ones(4, 3).t().contiguous().t())

    for other in others.values():
        for got, expected in zip(ft.jit(both)(x, other), both(x, other), strict=True):
            assert torch.equal(got, expected) and got.stride() == expected.stride()


def test_where_the_indices_stand_is_part_of_what_a_trial_is_kept_by():
    x, i = torch.arange(60).view(3, 4, 5), torch.tensor([0, 2])
    for read in (lambda x, i: x[i, :, i], lambda x, i: x[:, i, i], lambda x, i: x[i, i]):
        assert ft.eval_shape(read, x, i).shape == read(x, i).shape
        assert torch.equal(ft.jit(read)(x, i), read(x, i))
