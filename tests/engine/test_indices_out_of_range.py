"""Labels and indices out of range: refused in words eager and compiled, whatever the kernel says."""

import pytest
import torch

import functrain as ft
from functrain import losses, nn, random
from functrain.errors import LabelOutOfRange

LAYER = nn.embedding(5, 3)
PARAMS, _ = LAYER.init(random.key(0), torch.tensor([0]))


def embedded(x):
    return LAYER.apply(PARAMS, {}, x)[0]


def compared(x):
    return losses.cross_entropy(torch.zeros(2, 5), x)


def both(x):
    return losses.cross_entropy(embedded(x) @ torch.ones(3, 5), x)


@pytest.mark.parametrize("bad", [5, -1, 2**40, -100])
@pytest.mark.parametrize("f", [embedded, compared, both])
def test_eager_and_compiled_say_what_is_wrong(f, bad):
    x = torch.tensor([4, bad])
    for run in (f, ft.jit(f), ft.jit(f, backend="replay")):
        with pytest.raises(LabelOutOfRange, match=r"from 0 to 4|out of range|is no class") as raised:
            run(x)
        assert isinstance(raised.value, IndexError) and "number" in str(raised.value)
    assert ft.jit(f)(torch.tensor([4, 0])).isfinite().all()


def test_the_compiled_message_names_the_function_and_the_remedy():
    with pytest.raises(LabelOutOfRange, match=r"compiled function embedded is out of range: an embedding's input"):
        ft.jit(embedded)(torch.tensor([0, 9]))
    with pytest.raises(LabelOutOfRange, match=r"the label 9, met by the compiled function compared, is no class"):
        ft.jit(compared)(torch.tensor([0, 9]))


@pytest.fixture(scope="module")
def by_inductor():
    return ft.jit(both, backend="inductor")


@pytest.mark.parametrize("bad", [5, -1])
def test_inductor_says_it_too(by_inductor, bad):
    with pytest.raises(LabelOutOfRange, match=r"met by the compiled function both is not from 0 to 4"):
        by_inductor(torch.tensor([4, bad]))


@pytest.mark.parametrize("jit", [False, True])
def test_another_error_is_passed_on_as_it_is(jit):
    def f(x):
        return torch.linalg.cholesky(x)

    with pytest.raises(torch.linalg.LinAlgError):
        (ft.jit(f) if jit else f)(-torch.eye(2))
