"""Labels and indices out of range: refused in words eager and compiled, whatever the kernel says."""

import pytest
import torch
import torch.nn.functional as F

import functrain as ft
from functrain import losses, nn, random
from functrain.engine.graph.passes.simplifying import remove_dead
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


WEIGHT = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
ZERO = torch.zeros(())


def looped(w, t):
    return ft.scan(lambda c, i: (c + F.embedding(i, w).sum(), F.embedding(i, w)), ZERO, t)


def repeated(w, t):
    start = torch.tensor(0), ZERO
    return ft.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1] + F.embedding(t, w).sum()), start, max_steps=3)


LINEAR = {  # their gradients need no forward pass, which then goes away
    "embedding": lambda w, t: F.embedding(t, w).sum(),
    "embedding with padding": lambda w, t: (F.embedding(t, w, padding_idx=0) @ torch.ones(3)).sum(),
    "one_hot": lambda w, t: (F.one_hot(t, 5).float() @ w).sum(),
    "cross_entropy": lambda w, t: F.cross_entropy(w.t()[:2], t),
    "losses.cross_entropy": lambda w, t: losses.cross_entropy(w.t()[:2], t).sum(),
    "gather": lambda w, t: w.gather(0, t[:, None]).sum(),
    "index": lambda w, t: w[t].sum(),
    "index_select": lambda w, t: w.index_select(0, t).sum(),
    "a scan": lambda w, t: looped(w, t)[0] + looped(w, t)[1].sum(),
    "a scan in a scan": lambda w, t: ft.scan(lambda c, _: (c + looped(w, t)[0], c), ZERO, torch.ones(2))[0],
    "while_loop": lambda w, t: repeated(w, t)[1],
    "cond": lambda w, t: ft.cond(t[0] > -9, lambda: F.embedding(t, w).sum(), lambda: ZERO),
}
GRADIENTS = {
    "grad": ft.grad,
    "torch.func.grad": torch.func.grad,
    "vmap(grad": lambda f: lambda w, t: ft.vmap(ft.grad(f), (None, 0))(w, t[None]),
}


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("name", LINEAR)
def test_they_are_refused_where_a_gradient_alone_is_computed(name, gradient):
    f = ft.jit(GRADIENTS[gradient](LINEAR[name]))
    with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)|is no class"):
        f(WEIGHT, torch.tensor([4, 5]))
    torch.testing.assert_close(
        f(WEIGHT, torch.tensor([4, 1])).squeeze(0), ft.grad(LINEAR[name])(WEIGHT, torch.tensor([4, 1]))
    )


@pytest.mark.parametrize("name", ["embedding", "a scan", "a scan in a scan", "while_loop", "cond"])
def test_they_are_refused_where_nobody_reads_what_is_computed(name):
    def f(w, t):
        LINEAR[name](w, t)
        return w * 2

    for g in (f, ft.jit(f), ft.jit(ft.grad(lambda w, t: f(w, t).sum()))):
        with pytest.raises(IndexError, match="out of range"):
            g(WEIGHT, torch.tensor([4, 5]))
        assert torch.isfinite(g(WEIGHT, torch.tensor([4, 1]))).all()


def test_a_loop_that_nobody_reads_and_that_checks_nothing_is_not_run():
    graph = ft.jit(lambda x: (ft.scan(lambda c, r: (c + r, None), x[0], x), x + 1)[1]).lower(WEIGHT).graph
    remove_dead(graph)
    assert [n.name for n in graph.graph.nodes if n.op == "call_function"] == ["add"]


@pytest.mark.parametrize("bad", [5, -1])
@pytest.mark.parametrize("f", [lambda t: F.one_hot(t, 5), lambda t: F.one_hot(t, 5).sum()])
def test_classes_of_one_hot(f, bad):
    assert torch.equal(ft.jit(ft.vmap(f))(torch.tensor([4, 0])), torch.stack([f(torch.tensor(k)) for k in (4, 0)]))
    for g in (ft.jit(f), ft.jit(ft.vmap(f))):
        with pytest.raises(LabelOutOfRange, match="is out of range"):
            g(torch.tensor([4, bad]))


def test_probabilities_of_a_loss_whose_gradient_alone_is_computed():
    def loss(p):
        return F.binary_cross_entropy(p, torch.ones(2))

    for g in (ft.grad(loss), ft.jit(ft.grad(loss))):
        with pytest.raises(RuntimeError, match="all elements of input should be between 0 and 1"):
            g(torch.tensor([0.5, 1.5]))
    assert torch.equal(ft.jit(ft.grad(loss))(torch.tensor([0.5, 1.0])), torch.tensor([-1.0, 0.0]))
