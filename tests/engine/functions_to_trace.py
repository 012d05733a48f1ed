"""Functions of all kinds, with arguments, for tests that trace them."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

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
