"""The table of docs/explanation/transformations.md, cell by cell: what nests in what, and what is refused."""

import re
from pathlib import Path

import pytest
import torch
from torch.autograd import functional

import functrain as ft
from functrain.errors import InvalidArgument
from tests.engine.nesting import by_autograd, by_loop, mapped, squared

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "explanation" / "transformations.md"
X = torch.tensor([0.3, -0.5, 0.8])
V = torch.tensor([1.0, 0.5, -2.0])


def read_table():
    lines = [line for line in PAGE.read_text().split("## What nests in what")[1].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines]
    return {(row[0], name): cell for row in rows[2:] for name, cell in zip(rows[0][1:], row[1:], strict=True)}


def base(x):
    return torch.sin(x).prod() + (x**3).sum()


def pushed(jvp):
    return lambda f: lambda x: jvp(f, x)


def plain_jvp(f, x):
    return functional.jvp(f, x, V, create_graph=True)[1]


def looped(scan, steps=3):
    """A step that calls the function, so that whatever transforms it does so inside a loop."""
    return lambda f: lambda x: scan(lambda c, r: (c + f(c[0] * x + r) * x / 9, c.sum()), x, torch.eye(steps))[1].sum()


def chosen(cond):
    return lambda f: lambda x: cond(x[0] > 0, lambda x: f(x) * 2, lambda x: f(x * x), x) + f(x)


def repeated(loop, **options):
    def transformed(f):
        return lambda x: loop(lambda c: c.sum() < 2, lambda c: c + 0.3 + (f(c) * x) ** 2, x, **options).sum()

    return transformed


def python_cond(pred, f, g, *args):
    return f(*args) if bool(pred) else g(*args)


def python_while(cond, body, value):
    while bool(cond(value)):
        value = body(value)
    return value


@ft.custom_gradient
def doubled(y):
    return y * 2, lambda cotangent: 3 * cotangent


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y):
        return y * 2

    @staticmethod
    def backward(ctx, cotangent):
        return 3 * cotangent


def jacobian(jacrev):
    return lambda f: lambda x: (jacrev(lambda x: torch.stack([f(x), f(x * x)]))(x) ** 2).sum()


def plain_jacrev(f):
    return lambda x: functional.jacobian(f, x, create_graph=True)


NESTS = {  # name -> (functrain's, the oracle's)
    "jit": (ft.jit, lambda f: f),
    "grad": (squared(ft.grad), squared(by_autograd)),
    "torch.func.grad": (squared(torch.func.grad), squared(by_autograd)),
    "vmap": (mapped(ft.vmap), mapped(by_loop)),
    "jvp": (pushed(lambda f, x: ft.jvp(f, (x,), (V,))[1]), pushed(plain_jvp)),
    "jacrev": (jacobian(ft.jacrev), jacobian(plain_jacrev)),
    "hessian": (
        squared(ft.hessian),
        squared(lambda f: lambda x: functional.hessian(f, x, create_graph=True)),
    ),
    "remat": (ft.remat, lambda f: f),
    "scan": (looped(ft.scan), looped(ft.fold)),
    "cond": (chosen(ft.cond), chosen(python_cond)),
    "while_loop": (repeated(ft.while_loop), repeated(python_while)),
    "while_loop, bounded": (repeated(ft.while_loop, max_steps=30), repeated(python_while)),
    "custom_gradient": (lambda f: lambda x: doubled(f(x)), lambda f: lambda x: Doubled.apply(f(x))),
}


@pytest.mark.parametrize(
    ("cell", "word"), read_table().items(), ids=lambda cell: " of ".join(cell) if type(cell) is tuple else ""
)
def test_cell(cell, word):
    ours, plain = ((NESTS[cell[0]][k])(NESTS[cell[1]][k](base)) for k in (0, 1))
    if word == "refused":
        for f in (ours, ft.jit(ours)):
            with pytest.raises(InvalidArgument):
                f(X)
        return
    expected = plain(X).detach()
    torch.testing.assert_close(ours(X), expected, rtol=1e-4, atol=1e-5)
    if word == "refused in jit":
        with pytest.raises(InvalidArgument, match="pass max_steps"):
            ft.jit(ours)(X)
    else:
        assert word == "yes"
        torch.testing.assert_close(ft.jit(ours)(X), expected, rtol=1e-4, atol=1e-5)


def test_the_table_is_whole():
    outer, inner = ({cell[k] for cell in read_table()} for k in (0, 1))
    assert outer | inner == NESTS.keys() and len(read_table()) == len(outer) * len(inner)
