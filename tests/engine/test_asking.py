"""Values in a trace: what depends on no argument can be asked for, and what depends on one cannot."""

import numpy as np
import pytest
import torch

import functrain as ft
from functrain.errors import NotTraceable

CONJUGATE = torch.tensor([1j, 2 - 1j])
TALL = torch.randn(4, 3, dtype=torch.complex64)
SMALL, LARGE = torch.arange(4.0), torch.arange(5000.0)


def written_literal(x):
    t = torch.tensor(2.0)
    t.add_(1)
    return x * t.item()


def view_of_a_factory(x):
    mask = torch.ones(3, 3).tril()
    mask[0].mul_(5)
    return x * mask.t()[0].tolist()[0] * int(mask.sum())


ANSWERED = {
    "a literal": lambda x: x if torch.tensor(1.0) > 0 else -x,
    "a factory": lambda x: x if (torch.arange(4).diff() == 1).all() else -x,
    "a literal written to": written_literal,
    "a view of a factory written to": view_of_a_factory,
    "a shape that depends on values": lambda x: x + torch.tensor([0, 3, 0, 5]).nonzero().sum(),
    "a mask": lambda x: x + torch.arange(4.0)[torch.arange(4) > 1].sum(),
    "closed over": lambda x: x if SMALL.sum() > 5 else -x,
    "one_hot of closed over": lambda x: x + torch.nn.functional.one_hot(SMALL.long(), 4).sum(),
    "in a format": lambda x: x * float(f"{torch.tensor(1.25):.1f}"),
    "closed over as a list": lambda x: x * SMALL.tolist()[3],
    "closed over as an array": lambda x: x * float(SMALL.numpy()[3] + np.asarray(SMALL)[2]),
    "closed over and conjugated": lambda x: x * float((CONJUGATE * CONJUGATE.conj()).real.sum()),
    "least squares of closed over": lambda x: x * torch.linalg.lstsq(TALL, TALL + 1, driver="gelsd")[1].sum(),
    "as an array": lambda x: x * float(torch.tensor([2.0, 3.0]).numpy()[1]),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_what_depends_on_no_argument_is_answered(name):
    f, x = ANSWERED[name], torch.tensor([1.0, 2.0])
    compiled = ft.jit(f)
    for _ in range(2):
        assert torch.equal(compiled(x), f(x))
    assert len(compiled.traces) == 1


def test_values_of_a_closed_over_tensor_join_the_signature():
    scale = torch.tensor([1.0, float("nan"), 0.0])
    f = ft.jit(lambda x: x * 2 if scale[0] > 0 else -x)
    x = torch.ones(1)
    assert f(x) == 2 and f(x) == 2 and len(f.traces) == 1
    scale[0] = -1
    assert f(x) == -1
    scale[0] = 1
    assert f(x) == 2 and len(f.traces) == 2
    scale[2] = -0.0  # another value, though it equals the old one
    assert f(x) == 2 and len(f.traces) == 3


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: x if x.sum() > 0 else -x, "Python looks at the values of a tensor at"),
        (lambda x: x if (torch.ones(2) * x).sum() > 0 else -x, "Python looks at the values of a tensor at"),
        (lambda x: x if LARGE.sum() > 0 else -x, "closed over of 5000 elements.*values of up to 4096"),
        (lambda x: x if torch.empty(3).sum() > 0 else -x, "Python looks at the values"),
        (lambda x: x * float(x.numpy()[0]), "Python looks at the values"),
        (lambda x: x * x.tolist()[0], "Python looks at the values"),
        (lambda x: x.nonzero(), "the shape of a result depends on the values"),
        (lambda x: x[x > 0], "the shape of a result depends on the values"),
    ],
)
def test_what_depends_on_more_is_refused(f, message):
    with pytest.raises(NotTraceable, match=message):
        ft.jit(f)(torch.ones(2))


def test_a_scan_may_ask_what_it_closes_over():
    def step(carry, x):
        return (carry + x if SMALL[1] == 1 else carry - x), carry

    f = ft.jit(lambda c, xs: ft.scan(step, c, xs))
    carry, ys = f(torch.tensor(0.0), torch.arange(3.0))
    assert carry == 3 and torch.equal(ys, torch.tensor([0.0, 0.0, 1.0]))
