"""Singular values and eigenvalues alone: a trace computes vectors where eager execution does."""

import pytest
import torch

import functrain as ft

X = torch.randn(3, 9, 9, generator=torch.Generator().manual_seed(0)) * 10
S = X + X.mT
ALONE = {
    "svdvals": (torch.linalg.svdvals, X),
    "svdvals of some rows": (torch.linalg.svdvals, X[:, :4]),
    "eigvalsh": (torch.linalg.eigvalsh, S),
    "eigvalsh, upper": (lambda x: torch.linalg.eigvalsh(x, UPLO="U"), S),
    "cond": (torch.linalg.cond, X),
    "cond, -2": (lambda x: torch.linalg.cond(x, -2), X),
    "cond, nuc": (lambda x: torch.linalg.cond(x, "nuc"), X),
    "matrix_norm, 2": (lambda x: torch.linalg.matrix_norm(x, ord=2), X),
    "matrix_norm, nuc": (lambda x: torch.linalg.matrix_norm(x, "nuc"), X),
    "norm, -2": (lambda x: torch.linalg.norm(x, ord=-2, dim=(-2, -1)), X),
    "torch.norm, nuc": (lambda x: torch.norm(x, p="nuc", dim=(1, 2)), X),
    "Tensor.norm, nuc": (lambda x: x.norm("nuc", dim=(1, 2)), X),
    "nuclear_norm": (lambda x: torch.nuclear_norm(x, (1, 2)), X),
    "svd without": (lambda x: torch.svd(x, compute_uv=False)[1], X),
    "Tensor.svd without": (lambda x: x.svd(True, False).S, X),
}
WITH = {
    "svd": (lambda x: torch.linalg.svd(x, full_matrices=False).S, X),
    "svd, all": (lambda x: torch.linalg.svd(x)[1], X),
    "torch.svd": (lambda x: torch.svd(x)[1], X),
    "eigh": (lambda x: torch.linalg.eigh(x)[0], S),
}


DECOMPOSITIONS = (torch.ops.aten._linalg_svd.default, torch.ops.aten._linalg_eigh.default)


def computes_vectors(func, args):
    return args[2] if len(args) > 2 else func._schema.arguments[2].default_value


def traced(f, *args, **options):
    jitted = ft.jit(f, **options)
    result = jitted(*args)
    nodes = [n for n in jitted.traces[0].graph.graph.nodes if n.target in DECOMPOSITIONS]
    return result, [computes_vectors(n.target, n.args) for n in nodes]


def test_these_inputs_show_the_difference():
    for x in (X, X[:, :4]):
        svd = torch.ops.aten._linalg_svd
        assert not torch.equal(svd(x, False, True)[1], svd(x, False, False)[1])
    assert not torch.equal(torch.ops.aten._linalg_eigh(S, "L", True)[0], torch.ops.aten._linalg_eigh(S, "L", False)[0])


@pytest.mark.filterwarnings("ignore:at..nuclear_norm is deprecated")
@pytest.mark.parametrize("backend", ["aten", "replay"])
@pytest.mark.parametrize("name", [*ALONE, *WITH])
def test_the_bits_are_those_of_eager_execution(name, backend):
    f, x = {**ALONE, **WITH}[name]
    result, vectors = traced(f, x, backend=backend)
    assert torch.equal(result, f(x))
    assert vectors == [name in WITH]


@pytest.mark.filterwarnings("ignore:at..nuclear_norm is deprecated")
@pytest.mark.parametrize("name", ALONE)
def test_who_differentiates_needs_the_vectors(name):
    f, x = ALONE[name]
    gradient = ft.grad(lambda x: f(x).sum())
    result, vectors = traced(gradient, x)
    torch.testing.assert_close(result, gradient(x))
    assert set(vectors) == {True}


@pytest.mark.parametrize("f", [torch.linalg.svdvals, torch.linalg.eigvalsh, torch.linalg.cond])
def test_under_vmap_there_are_vectors_too(f):
    result, vectors = traced(torch.func.vmap(f), S)
    assert torch.equal(result, torch.func.vmap(f)(S))
    assert vectors == [True]


def test_in_a_scan_there_are_none_until_it_is_differentiated():
    def f(s):
        return ft.scan(lambda c, x: (c + torch.linalg.svdvals(x), torch.linalg.cond(x)), torch.zeros(9), s)

    _, ys = ft.jit(f)(S)
    assert torch.equal(ys, torch.stack([torch.linalg.cond(x) for x in S]))
    expected = ft.grad(lambda s: ft.fold(lambda c, x: (c + torch.linalg.svdvals(x), None), torch.zeros(9), s)[0].sum())(
        S
    )
    torch.testing.assert_close(ft.jit(ft.grad(lambda s: f(s)[0].sum()))(S), expected)
