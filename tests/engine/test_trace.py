"""The tracer: what a trace says of each value is what the value has when it runs, for all that PyTorch can do."""

import copy
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F
from toolz import compose_left
from torch import Tensor

from functrain.engine import jit
from functrain.engine.backends.aten import source as aten_backend
from functrain.engine.graph.functionalizing import functionalized, writes
from functrain.engine.graph.replaying import replay
from functrain.engine.tracing.abstract_tensor import abstract
from functrain.engine.tracing.meta.elementwise_rules import broadcast
from functrain.engine.tracing.meta.geometry import bitwise_equal, mapped
from functrain.engine.tracing.meta.inference import infer
from functrain.engine.tracing.meta.operation_rules import RULES
from functrain.engine.tracing.to_graph import trace
from functrain.errors import DeviceMismatch, DtypeMismatch, LeakedTensor, NotTraceable, SideEffect

aten = torch.ops.aten


def of(*shape, dtype=torch.float32, seed=0):
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn if dtype is torch.float32 else (drawn * 3).to(dtype)


def nhwc(*shape):
    return of(*shape).to(memory_format=torch.channels_last)


IMAGES, KERNEL = of(2, 3, 8, 6), of(4, 3, 3, 3, seed=1)
INDEX = torch.tensor([[0, 2], [1, 0]])


def form(value):
    return (tuple(value.shape), value.stride(), value.dtype, str(value.device)) if isinstance(value, Tensor) else value


def grad_of(f):
    return lambda *x: list(torch.func.grad(lambda x: sum(y.sum() for y in f(*x) if y.is_floating_point()))(x))


def by_autograd(f):
    def g(*x):
        x = [t.detach().requires_grad_() for t in x]
        with torch.enable_grad():
            y = sum(y.sum() for y in f(*x))
        return list(torch.autograd.grad(y, x))

    return g


def attention(q, k, v):
    return [F.scaled_dot_product_attention(q, k, v, is_causal=True)]


def in_place(x):
    y = x.clone()
    y.add_(1)
    y[:, 0].mul_(2)
    z = y.reshape(-1)
    z.sub_(1)
    return [y, z]


def reshaped_in_place(x):
    y = x.clone()
    y.unsqueeze_(0)
    z = y * 2
    y.squeeze_(0).t_()
    return [y, z, y + x.t()]


def written_out(x):
    y = torch.empty(3, 4)
    torch.mul(x, 2, out=y)
    return [y]


def written_literals(x):
    t = torch.tensor(2.0)
    t.add_(1)
    u = torch.tensor([1.0, 2.0])
    u[0].zero_()
    return [x * t, x * u.sum()]


def literals(x):
    scale = torch.tensor(2.0)
    return [x * scale.item(), x + torch.tensor([1.0, 2.0, 3.0, 4.0])]


# fmt: off
FUNCTIONS = {
    "linear": (lambda x, w, b: [F.linear(x, w, b)], of(4, 3), of(5, 3), of(5)),
    "linear of sequences": (lambda x, w, b: [F.linear(x, w, b)], of(2, 4, 3), of(5, 3), of(5)),
    "matmul": (
        lambda a, b: [a @ b, b.mT @ a.mT, a[0] @ b, torch.einsum("bij,bjk->bik", a, b)],
        of(2, 3, 4),
        of(2, 4, 5),
    ),
    "outer": (lambda a: [torch.outer(a, a), a @ a, torch.dot(a, a)], of(3)),
    "conv": (lambda x, w: [F.conv2d(x, w, stride=2, padding=1)], IMAGES, KERNEL),
    "conv, channels last": (
        lambda x, w: [F.conv2d(x, w, stride=2).relu(), F.conv2d(x, w).flatten(1)],
        IMAGES.to(memory_format=torch.channels_last),
        KERNEL,
    ),
    "conv, one axis": (lambda x, w: [F.conv1d(x, w, padding=1, dilation=2)], of(2, 3, 9), of(4, 3, 3)),
    "conv, three axes": (lambda x, w: [F.conv3d(x, w)], of(2, 3, 5, 5, 5), of(4, 3, 3, 3, 3)),
    "conv, groups": (lambda x, w: [F.conv2d(x, w, groups=3)], IMAGES, of(6, 1, 3, 3)),
    "conv, transposed": (lambda x, w: [F.conv_transpose2d(x, w, stride=2)], IMAGES, of(3, 4, 3, 3)),
    "pooling": (
        lambda x: [F.max_pool2d(x, 2), F.avg_pool2d(x, 2), F.adaptive_avg_pool2d(x, 1), F.max_pool2d(x, 3, 1, 1)],
        IMAGES,
    ),
    "batch norm": (lambda x, w: [F.batch_norm(x, None, None, w, w, True)], IMAGES, of(3)),
    "batch norm, evaluated": (lambda x, w: [F.batch_norm(x, w, w.abs() + 1, w, w)], IMAGES, of(3)),
    "layer norm": (lambda x, w: [F.layer_norm(x, (6,), w, w), F.group_norm(x, 3)], IMAGES, of(6)),
    "attention": (attention, of(2, 4, 6, 8), of(2, 4, 6, 8), of(2, 4, 6, 8)),
    "attention, with a mask": (
        lambda q, k: [F.scaled_dot_product_attention(q, k, k, torch.ones(6, 6).tril() > 0)],
        of(2, 4, 6, 8),
        of(2, 4, 6, 8),
    ),
    "attention, transposed": (lambda x: attention(*x.unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)), of(2, 6, 96)),
    "losses": (
        lambda x: [
            F.cross_entropy(x, INDEX[:, 0]),
            F.nll_loss(x.log_softmax(1), INDEX[:, 0], reduction="none"),
            F.binary_cross_entropy_with_logits(x, x.sigmoid()),
            F.huber_loss(x, x * 2),
        ],
        of(2, 3),
    ),
    "activations": (
        lambda x: (
            [F.relu(x), F.gelu(x), F.silu(x), F.elu(x), F.leaky_relu(x), F.softplus(x), F.mish(x), F.hardtanh(x),
            F.gelu(x, approximate="tanh"), F.glu(x), x.softmax(0), x.log_softmax(-1), F.logsigmoid(x)]
        ),
        of(4, 6),
    ),
    "activations, transposed": (
        lambda x: [F.relu(x.t()), F.gelu(x.t()), x.t().softmax(0), x.t().exp() + x.t()],
        of(4, 6),
    ),
    "reductions": (
        lambda x: (
            [x.sum(), x.mean(0), x.sum((0, 2), keepdim=True), x.amax(1), x.var(0), x.std(), x.argmax(1),
            x.logsumexp((0, 1)), x.norm(), (x > 0).any(0), (x > 0).all(), (x > 0).sum(), x.prod(), x.cumsum(1),
            x.max(1).values, x.median(), x.mT.sum(0), x.permute(2, 0, 1).mean(1)]
        ),
        of(2, 3, 4),
    ),
    "broadcasting": (
        lambda x, y: (
            [x + y, x * y[:1], x - 1, 2 / x, x**2, x > y, torch.maximum(x, y), x.lerp(y, 0.5),
            torch.where(x > 0, x, y), torch.where(x > 0, 0.0, y), x.masked_fill(x > 0, 1.0), x.clamp(0, 1),
            torch.addcmul(x, x, y), torch.hypot(x, y), torch.atan2(x, y), x.t() + y.expand(4, 4)[:, :3]]
        ),
        of(3, 4),
        of(4),
    ),
    "types": (
        lambda x, n: (
            [x * n, n / 2, n // 2, n + 1.5, n * 2, n > 0, n.float(), x.double() + x, x.half() * 2, ~(n > 0),
            n & 1, n.sqrt(), -n, n.abs(), n.clamp(min=0), (n > 0) * x, (n > 0) + 1, (n > 0).float(), n % 2, x.int()]
        ),
        of(3, 4),
        of(3, 4, dtype=torch.int64),
    ),
    "scalars": (lambda x, s: [x * s, s * s, s + 1, x.double() * s, x / s, s > x, s.double() + s], of(3, 4), of()),
    "indexing": (
        lambda x: (
            [x[0], x[:, 1:], x[..., None], x[INDEX], x[:, INDEX[0]], x.index_select(1, INDEX[0]), x[[0, 1]],
            x.gather(1, INDEX), x.scatter(1, INDEX, x[:2, :2]), x.scatter_add(1, INDEX, x[:2, :2]), x.flip(0),
            x.roll(1, 0), x.diagonal(), x.tril(), x.sort(1).values, x.topk(2, 1).indices,
            x[:2].take_along_dim(INDEX, 1)]
        ),
        of(3, 4),
    ),
    "joining": (
        lambda x: (
            [torch.cat([x, x]), torch.cat([x, x[:, :1]], 1), torch.stack([x, x], 1), *x.chunk(2, 1), *x.unbind(),
            *x.split([1, 2]),
                F.pad(x, (1, 2)),
                x.repeat(2, 1),
                x.tile(2),
                x.repeat_interleave(2, 0),
                x.expand(2, 3, 4),
            ]
        ),
        of(3, 4),
    ),
    "shapes": (
        lambda x: (
            [x.reshape(-1), x.mT, x.mT.reshape(-1), x.mT.contiguous(), x.flatten(1), x.unflatten(2, (2, 2)),
            x.permute(2, 0, 1).clone(),
                x.movedim(0, 2),
                x.unfold(2, 2, 1),
                x.squeeze(),
                x.view(6, 4),
                x.mT.to(torch.float64),
            ]
        ),
        of(2, 3, 4),
    ),
    "new tensors": (
        lambda x: (
            [torch.zeros(2, 3), torch.ones(2), torch.full((2,), 3), torch.full((2,), 3.0), torch.arange(1, 6, 2),
            torch.arange(3.0), torch.linspace(0, 1, 5), torch.eye(3), torch.zeros_like(x.t()), x.new_ones(3),
            torch.ones_like(x, dtype=torch.int64), x.new_zeros((2, 2)), torch.tensor([1, 2]), torch.tensor(1.5),
            torch.full((), True), torch.ones(2, 3).t() * 2]
        ),
        of(3, 4),
    ),
    "embedding": (lambda w: [F.embedding(INDEX, w)], of(3, 4)),
    "complex": (
        lambda x: [
            x.abs(), x.conj() * 2, x.conj().imag, torch.view_as_real(x.conj().resolve_conj()), x.real,
            x.angle(), x.sum(0), x.cumsum(0), (x if x.conj().is_conj() else x * 0), torch.complex(x.real, x.imag),
            x * 1j,
        ],
        torch.complex(of(3, 4), of(3, 4, seed=1)),
    ),
    "layouts that reshape asks for": (
        lambda x, y: [
            torch.stack([x, x]).flatten(2), torch.cat([y, y], 2).flatten(1), (2**y).flatten(1),
            x.masked_fill(x > 0, 0.0).reshape(-1), F.relu(x).reshape(-1),
        ],
        nhwc(2, 3, 4, 5),
        nhwc(2, 3, 1, 1),
    ),
    "dtypes that differ": (lambda x, y: [(x.expand(4, 4) - y.t()).reshape(-1), x + y], of(4), of(4, 4).double()),
    "empty": (lambda x: [x + 1, x.sum(0), torch.cat([x, x]), x.reshape(3, 0), x @ x.new_ones(3, 2)], of(0, 3)),
    "literals that are written to": (written_literals, of(3)),
    "linear algebra": (
        lambda x: (
            [torch.linalg.solve(x, x), torch.linalg.cholesky(x @ x.t()), *torch.linalg.svd(x), x.det(),
            torch.fft.fft(x), torch.fft.rfft(x).abs(), torch.linalg.norm(x)]
        ),
        of(4, 4),
    ),
    "interpolation": (
        lambda x: [F.interpolate(x, scale_factor=2.0, mode="bilinear"), F.pixel_shuffle(x[:, :1], 1)],
        IMAGES,
    ),
    "recurrence": (lambda x, h, w, u: [*torch.ops.aten.gru_cell(x, h, w, u)], of(2, 3), of(2, 3), of(9, 3), of(9, 3)),
    "in place": (in_place, of(3, 4)),
    "reshaped in place": (reshaped_in_place, of(3, 4)),
    "out": (written_out, of(3, 4)),
    "literals": (literals, of(3, 4)),
    "copies": (lambda x: [copy.copy(x) * 2, copy.deepcopy(x)], of(3)),
    "vmap": (lambda x, w: [torch.func.vmap(lambda x: F.linear(x, w).relu())(x)], of(4, 2, 3), of(5, 3)),
    "jvp": (lambda x: list(torch.func.jvp(lambda x: x.sin() * x, (x,), (x,))), of(3)),
    "hessian": (lambda x: [torch.func.hessian(lambda x: (x**3).sum())(x)], of(3)),
}
# fmt: on
DIFFERENTIATED = (
    "linear",
    "linear of sequences",
    "conv",
    "conv, channels last",
    "conv, one axis",
    "conv, groups",
    "conv, transposed",
    "pooling",
    "batch norm",
    "layer norm",
    "attention",
    "attention, transposed",
    "losses",
    "activations",
    "activations, transposed",
    "broadcasting",
    "embedding",
    "interpolation",
    "shapes",
)  # fmt: skip
for name in DIFFERENTIATED:
    f, *given = FUNCTIONS[name]
    FUNCTIONS[f"grad of {name}"] = (grad_of(f), *given)
    if name not in ("losses", "broadcasting"):
        FUNCTIONS[f"autograd of {name}"] = (by_autograd(f), *given)


class Watched(torch.fx.Interpreter):
    """Runs a graph and keeps where a value has another form than the trace says."""

    def __init__(self, gm):
        super().__init__(gm)
        self.wrong = []

    def run_node(self, node):
        result = super().run_node(node)
        said = node.meta.get("val")
        pairs = zip(said, result, strict=True) if isinstance(said, (list, tuple)) else [(said, result)]
        for value, real in pairs:
            # PyTorch is wrong about what its batch norm gives besides when it evaluates, which nobody uses.
            useless = "native_batch_norm" in f"{node.name} {node.args}" and real.numel() == 0
            if isinstance(value, Tensor) and not useless and _visible(value) != _visible(real):
                self.wrong.append(f"{node.target}: said {form(value)}, is {form(real)}")
        return result


def _visible(value):
    # The stride of an axis of length one says nothing, and none does where there is no element.
    strides = [s for s, n in zip(value.stride(), value.shape, strict=True) if n > 1 and value.numel()]
    return tuple(value.shape), strides, value.dtype, str(value.device)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_trace_is_right_about_each_value(name):
    f, *given = FUNCTIONS[name]
    before = [x.clone() for x in given]
    recorded = trace(f, given).gm
    gm = functionalized(recorded)
    assert not any(map(writes, gm.graph.nodes))
    expected = [x.detach() for x in f(*given)]
    assert all(map(bitwise_equal, replay(recorded)(given), expected))
    watched = Watched(gm)
    results = watched.run(*given)
    assert watched.wrong == []
    torch.testing.assert_close(list(results), expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


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
        infer(op, mapped(abstract, args), {}, on_meta=False)


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


def test_an_operation_whose_form_only_its_kernel_knows_is_run_on_zeros():
    with torch.library._scoped_library("functrain_test", "DEF") as library:
        library.define("every_second(Tensor x) -> Tensor")
        library.impl("every_second", lambda x: x[::2].clone(), "CPU")
        gm = trace(lambda x: [torch.ops.functrain_test.every_second(x) + 1], [torch.arange(5.0)]).gm
        assert gm(torch.arange(5.0))[0].tolist() == [1, 3, 5]


def test_a_tensor_of_a_trace_that_is_over_is_refused():
    kept = []
    trace(lambda x: [kept.append(x) or x * 2], [of(2)])
    with pytest.raises(
        LeakedTensor, match=r"a tensor of another trace, which is over, is used at test_trace.py:\d+.*return"
    ):
        trace(lambda x: [x + kept[0]], [of(2)])
    assert repr(kept[0]) == f"{kept[0]}" == "Abstract(float32[2] on cpu)"
    for use in (lambda: kept[0] + 1, lambda: kept[0].data_ptr(), lambda: bool(kept[0][0])):
        with pytest.raises(LeakedTensor, match=r"a tensor of a trace that is over is used.*return it"):
            use()


class Labelled(Tensor):
    pass


def backward(x):
    with torch.enable_grad():
        (x * WEIGHT).sum().backward()
    return x


WEIGHT = torch.nn.Parameter(of(2))
REFUSED = {
    "a formatted value": (lambda x: [f"{x[0]:.2f}", x][1], NotTraceable, "Python looks at the values"),
    "data set": (lambda x: setattr(x * 1, "data", x), SideEffect, "the data of a tensor is changed in place"),
    "a sparse result": (lambda x: x.to_sparse().to_dense(), NotTraceable, "takes dense tensors, got layout sparse_coo"),
    "a sparse constant": (lambda x: SPARSE @ x, NotTraceable, "takes dense tensors, got layout sparse_coo.*to_dense"),
    "a subclass": (lambda x: x + LABELLED, NotTraceable, "takes plain tensors, got Labelled.*as_subclass"),
    "an out that grows": (lambda x: torch.mul(x, 2, out=torch.empty(0)), NotTraceable, "other memory in place.*out="),
    "make_fx inside": (
        lambda x: torch.func.linearize(lambda x: x**2, x)[1](x),
        NotTraceable,
        "make_fx, which torch.func.linearize uses too, runs inside a trace",
    ),
    "backward": (backward, SideEffect, r"backward\(\) writes into the grad of a tensor closed over.*value_and_grad"),
}
SPARSE, LABELLED = torch.eye(2).to_sparse(), of(2).as_subclass(Labelled)


@pytest.mark.filterwarnings("ignore:.*resized.*:UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_trace_cannot_hold_is_refused_in_words(name):
    f, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        trace(lambda x: [f(x)], [of(2)])
    assert WEIGHT.grad is None


def test_the_cache_of_autocast_is_left_alone():
    x = of(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        f = jit(lambda x: x @ MATRIX)
        assert torch.equal(f(x), x @ MATRIX)
        assert torch.equal(f(x), (x.bfloat16() @ MATRIX.bfloat16()))


MATRIX = torch.nn.Parameter(of(2, 2))


def test_an_assertion_stays():
    gm = trace(lambda x: [torch._assert_async(x.sum() > 0) or x * 2], [of(2)]).gm
    run = aten_backend.compile(gm, [])
    assert torch.equal(run([torch.ones(2)])[0], 2 * torch.ones(2))
    with pytest.raises(RuntimeError):
        run([-torch.ones(2)])


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


def test_literals_have_values_and_what_depends_on_arguments_has_none():
    gm = trace(lambda x: [x * float(torch.tensor(3.0))], [of(2)]).gm
    assert torch.equal(gm(of(2))[0], of(2) * 3)
    with pytest.raises(NotTraceable, match=r"Python looks at the values of a tensor at test_trace.py:\d+"):
        trace(lambda x: [x * float(x[0])], [of(2)])
    for look in (lambda x: x.tolist(), lambda x: x.numpy(), lambda x: bool(x.sum() > 0), lambda x: x.data_ptr()):
        with pytest.raises(NotTraceable, match="Python looks at the values of a tensor"):
            trace(lambda x, look=look: [look(x) and x], [of(2)])


@pytest.mark.parametrize("look", [torch.nonzero, torch.unique, lambda x: x[x > 0], lambda x: x.masked_select(x > 0)])
def test_a_shape_that_depends_on_values_is_refused(look):
    with pytest.raises(
        NotTraceable, match=r"the shape of a result depends on the values of a tensor, at test_trace.py"
    ):
        trace(lambda x: [look(x)], [of(4)])


@pytest.mark.parametrize(
    "product", [torch.mm, torch.mv, torch.bmm, F.linear, F.conv1d, lambda x, w: F.linear(x, w, x[0])]
)
def test_products_of_two_dtypes_are_refused_when_traced(product):
    shape = {torch.mv: (2, 2), torch.bmm: (2, 2, 2), F.conv1d: (2, 2, 2)}.get(product, (2, 2))
    x, w = torch.ones(shape, dtype=torch.float64), torch.ones(shape[:1] if product is torch.mv else shape)
    with pytest.raises(RuntimeError):
        product(x, w)
    with pytest.raises(DtypeMismatch, match=r"takes tensors of one dtype, got .*float64.*tree\.to"):
        trace(lambda x, w: [product(x, w)], [x, w])


def test_a_message_names_the_users_line_and_not_that_of_toolz():
    chained = compose_left(lambda x: x + 1, lambda x: float(x.sum()))
    with pytest.raises(NotTraceable, match=r"at test_trace.py:"):
        trace(lambda x: [chained(x)], [torch.ones(2)])
    with pytest.raises(NotTraceable, match=r"at test_trace.py:"):
        trace(compose_left(torch.sum, float), [torch.ones(2)])


def test_devices_meet_by_pytorchs_rule():
    far, near = torch.ones(2, device="meta"), torch.ones(())
    gm = trace(lambda x, s: [x * s, s * x, x + 1], [far, near]).gm
    assert {str(n.meta["val"].device) for n in gm.graph.nodes if n.op == "call_function"} == {"meta"}
    with pytest.raises(DeviceMismatch, match=r"add.* combines tensors on meta and cpu, at test_trace.py.*tree\.to"):
        trace(lambda x, y: [x + y], [far, torch.ones(2)])


def test_a_write_into_an_argument_or_its_view_is_refused_where_it_happens():
    for write in (lambda x: x.add_(1), lambda x: x[0].zero_(), lambda x: x.view(-1).mul_(2), lambda x: x.t_()):
        with pytest.raises(SideEffect, match=r"the weights is changed in place at test_trace.py:\d+"):
            trace(lambda x, write=write: [write(x)], [of(2, 2)], ["the weights"])


@pytest.mark.parametrize("optimizer", ["sgd(0.1, momentum=0.9)", "adamw(schedule.cos(0.1, 0.01))"])
def test_a_first_step_imports_no_compiler(optimizer):
    """What costs a second at the first call in a process."""
    program = """
        import sys, functrain as ft
        from functrain import data, losses, metrics, nn, optim, schedule
        model = nn.serial(nn.conv(4, 3, padding=1), nn.batch_norm(), nn.relu, nn.dropout(0.1), nn.flatten, nn.dense(3))
        learner = ft.Learner(model, losses.cross_entropy, optim.OPTIMIZER, {"accuracy": metrics.accuracy})
        import torch
        rows = data.ArrayDataset((torch.randn(20, 1, 6, 6), torch.arange(20) % 3))
        state = ft.init(learner, ft.random.key(0), rows[:2])
        ft.fit(learner, state, train=data.loader(rows, data.shuffled(4)), epochs=1)
        heavy = {"torch._dynamo", "torch._inductor", "sympy", "torch.fx.experimental.symbolic_shapes"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    program = textwrap.dedent(program).replace("OPTIMIZER", optimizer)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
