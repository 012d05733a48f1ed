"""A scan under any two and three transforms: equal to the fold, in a graph of one size for 10 steps and 1,000."""

import pytest
import torch

import functrain as ft
from tests.engine.nesting import calls, nested, nodes, oracle, orders, size_and_cost
from tests.engine.scanned_programs import OURS, PLAIN, PROGRAMS, recurrent

X = torch.tensor([0.3, -0.5, 0.8])
INSIDE = ("grad", "torch.func.grad", "vmap", "remat")


@pytest.mark.parametrize("order", [*orders(2), *orders(3)])
def test_equals_the_fold(order):
    torch.testing.assert_close(nested(order, recurrent(OURS, 4))(X), oracle(order, recurrent(PLAIN, 4), X))


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("order", [*INSIDE, *orders(2, INSIDE)])
def test_every_program_equals_the_fold_in_jit(program, order):
    f = PROGRAMS[program]
    got = ft.jit(nested(order, f(OURS, 4)))(X)
    torch.testing.assert_close(got, oracle(order, f(PLAIN, 4), X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("order", [*INSIDE, "vmap(grad", "grad(vmap", "torch.func.grad(grad", "vmap(vmap"])
def test_every_program_equals_the_fold_without_jit(program, order):
    f = PROGRAMS[program]
    torch.testing.assert_close(nested(order, f(OURS, 4))(X), oracle(order, f(PLAIN, 4), X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", [*INSIDE, *orders(2), *orders(3)])
def test_neither_the_graph_nor_its_trace_depends_on_the_length(order):
    few, many = (size_and_cost(nested(order, recurrent(OURS, n)), X) for n in (10, 1000))
    assert few == many and min(few) > 0


@pytest.mark.parametrize("order", ["grad", "vmap(torch.func.grad(remat", "grad(grad(vmap"])
def test_a_trace_calls_as_many_functions_for_many_steps_as_for_few(order):
    def traced(n):
        return ft.jit(nested(order, recurrent(OURS, n))).lower

    for n in (10, 1000):  # what is seen once in a process
        traced(n)(X)
    few, many = (calls(traced(n), X) for n in (10, 1000))
    assert few == many


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("order", ["grad", "vmap", "vmap(grad", "grad(vmap", "torch.func.grad(grad", "remat(grad"])
def test_the_graph_of_no_program_depends_on_the_length(program, order):
    f = PROGRAMS[program]
    counts = {n: nodes(ft.jit(nested(order, f(OURS, n))).lower(X).graph) for n in (10, 1000)}
    assert counts[10] == counts[1000]
