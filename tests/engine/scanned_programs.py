"""Scans of many kinds, each a function from a vector to a scalar, for the tests of transforms within transforms.

Each takes what it is to loop, differentiate and vmap with, so that an oracle can run it by `fold`, autograd and loops.
"""

import attrs
import torch

import functrain as ft
from tests.engine.nesting import by_autograd, by_loop

W = torch.tensor([[0.5, -0.3, 0.1], [0.2, 0.6, -0.4], [-0.1, 0.3, 0.7]])
ROWS = {n: torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) for n in (4, 10, 1000)}
KEY = ft.random.key(0)


@attrs.frozen
class Kit:
    scan: object
    grad: object
    vmap: object


OURS = Kit(ft.scan, ft.grad, lambda f: ft.vmap(f))
PLAIN = Kit(lambda f, c, xs: ft.fold(f, c, xs), by_autograd, by_loop)


def recurrent(kit, n):
    """What is differentiated is the weight, closed over, the first carry and the xs; a counter; two outputs."""

    def f(x):
        w, xs = W * x, ROWS[n] * x

        def step(carry, row):
            h, count = carry
            h = torch.tanh(h @ w + row)
            return (h, count + 1), {"sum": h.sum() * count, "rows": h * 2}

        (h, _), ys = kit.scan(step, (x, torch.tensor(0)), xs)
        return (h * x).sum() + (ys["sum"] ** 2).sum() + ys["rows"][-1].sum()

    return f


def stopping(kit, n):
    """Rows of a batch stop at different steps; steps that are not made count for nothing."""

    def f(x):
        def step(h, row):
            after = torch.sin(h * x + row) + h
            return ft.Stop(after, after.sum() ** 2, when=after.sum() > 0.8)

        h, ys = kit.scan(step, x, ROWS[n])
        return (h**3).sum() + ys.sum()

    return f


def within(kit, n):
    """A scan in a scan, whose inner step closes over the outer carry and over what is outside of both."""

    def f(x):
        def outer(h, row):
            def inner(c, y):
                return torch.tanh(c * x + y * h), (c * h).sum()

            c, ys = kit.scan(inner, h + row, W)
            return c, ys.sum()

        h, ys = kit.scan(outer, x, ROWS[n])
        return h.sum() + (ys**2).sum()

    return f


def training(kit, n):
    """Steps of gradient descent: what is differentiated is the rate, closed over, through the gradients inside."""

    def f(x):
        def step(carry, row):
            w, momentum = carry
            gradient = kit.grad(lambda w: (torch.tanh(w * row).sum() - 1) ** 2 + (w * x * momentum).sum())(w)
            return (w - 0.1 * x * gradient, 0.9 * momentum + gradient), gradient.sum()

        (w, _), ys = kit.scan(step, (W[0], torch.zeros(3)), ROWS[n])
        return (w**2).sum() + ys[-1]

    return f


class Through(torch.autograd.Function):
    """Rounding, whose gradient goes straight through."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return (x * 4).round() / 4

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def detached(kit, n):
    """What no gradient goes through: detach, no_grad; and what has a gradient of its own."""

    def f(x):
        def step(h, row):
            with torch.no_grad():
                scale = (h * x).abs().sum() + 1
            return Through.apply(h * row) + Through.apply(x) / scale + (h * x).detach(), h.sum()

        h, ys = kit.scan(step, x, ROWS[n])
        return (h**2).sum() + (ys**2).sum()

    return f


def noisy(kit, n):
    """Dropout by a key in the carry."""

    def f(x):
        def step(carry, row):
            key, h = carry
            key, use = ft.random.split(key)
            mask = ft.random.uniform(use, (3,)) < 0.7
            h = torch.where(mask, torch.sin(h * x + row), 0.0) * 1.5
            return (key, h), h.sum()

        (_, h), ys = kit.scan(step, (KEY, x), ROWS[n])
        return (h * x).sum() + (ys**2).sum()

    return f


def shuffled(kit, n):
    """Carries that swap and stay, writes to values of one's own, an output that is the carry, a transposed weight."""

    def f(x):
        w = (W * x).t()

        def step(carry, row):
            a, b, c = carry
            made = (b @ w + row).clone()
            made.mul_(0.5)
            made[0] += a[1]
            return (b, made, c), (a, made.t() if made.dim() > 1 else made)

        (a, b, c), (ys, zs) = kit.scan(step, (x, x * 2, W[1] * 1), ROWS[n])
        return (a * b * c).sum() + (ys * zs).sum()

    return f


def batched(kit, n):
    """A vmap in the step, over what is closed over too."""

    def f(x):
        def step(h, row):
            h = kit.vmap(lambda w: torch.tanh(w * h + row).sum())(W * x)
            return h, None

        return (kit.scan(step, x, ROWS[n])[0] ** 2).sum()

    return f


PROGRAMS = {f.__name__: f for f in (recurrent, stopping, within, training, detached, noisy, shuffled, batched)}
