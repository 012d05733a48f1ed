"""Gradients, vmap and fold: laws, and equality of the two ways to differentiate."""

import pytest
import torch

from functrain import tree
from functrain.engine import Stop, fold, grad, value_and_grad, vmap
from functrain.engine.transforms.gradients import by_autograd, by_func, pull_back
from functrain.errors import InvalidArgument, NotATensor, ShapeMismatch, TreeMismatch


def net(params, x, y):
    hidden = torch.tanh(x @ params["w"] + params["b"])
    loss = ((hidden - y) ** 2).mean()
    return loss, {"hidden": hidden, "unused": params["unused"]}


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    params = {
        name: torch.randn(shape, generator=generator) for name, shape in [("w", (3, 2)), ("b", (2,)), ("unused", (4,))]
    }
    return params, torch.randn(5, 3, generator=generator), torch.randn(5, 2, generator=generator)


def test_both_ways_to_differentiate_are_equal(problem):
    assert tree.equal(by_autograd(net, 0, True, problem), by_func(net, 0, True, problem))


def test_gradient_is_that_of_autograd(problem):
    params, x, y = problem
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    net(leaves, x, y)[0].backward()
    (_, aux), grads = value_and_grad(net, has_aux=True)(params, x, y)
    torch.testing.assert_close(grads["w"], leaves["w"].grad)
    assert torch.equal(grads["unused"], torch.zeros(4))
    assert not aux["hidden"].requires_grad


def test_nothing_is_left_on_the_arguments(problem):
    before = tree.map(torch.clone, problem)
    value_and_grad(net, has_aux=True)(*problem)
    assert tree.equal(before, problem)
    assert not any(leaf.requires_grad for leaf in tree.leaves(problem))


def test_works_under_no_grad(problem):
    with torch.no_grad():
        assert bool(tree.global_norm(grad(net, has_aux=True)(*problem)[0]) > 0)


def test_differentiates_by_any_argument():
    assert torch.equal(
        grad(lambda a, b: (a * b).sum(), argnum=1)(torch.tensor(3.0), torch.tensor(2.0)), torch.tensor(3.0)
    )


@pytest.mark.parametrize("transformed", [False, True])
def test_pull_back_is_the_gradient_of_the_weighted_sum(transformed):
    x, weight = torch.randn(5), torch.rand(5)
    expected = grad(lambda x: (torch.sin(x) * weight).sum())(x)
    f = lambda x: pull_back(lambda x: (torch.sin(x), weight, {"cos": torch.cos(x)}), x)  # noqa: E731
    aux, pulled = torch.func.vmap(f)(x[None]) if transformed else f(x)
    torch.testing.assert_close(pulled.reshape(5), expected)
    assert torch.equal(aux["cos"].reshape(5), torch.cos(x)) and not aux["cos"].requires_grad


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("transformed", [False, True])
def test_pull_back_takes_one_number_for_all_values(transformed, count):
    x = torch.randn(count)
    f = lambda x: pull_back(lambda x: (torch.sin(x), 0.25, x), x)[1]  # noqa: E731
    torch.testing.assert_close((torch.func.vmap(f)(x[None])[0] if transformed else f(x)), torch.cos(x) / 4)


def test_pull_back_works_where_gradients_are_switched_off():
    f = lambda: pull_back(lambda x: (x * 2, 0.125, None), torch.ones(7))[1]  # noqa: E731
    with torch.no_grad():
        assert torch.equal(f(), torch.full((7,), 0.25))
    assert torch.equal(f(), torch.full((7,), 0.25))


@pytest.mark.parametrize("f", [lambda x: x, lambda x: x.sum(), lambda x: x[0]])
def test_a_gradient_is_nobody_elses(f):
    def by_value_and_grad():
        return grad(lambda x: f(x).squeeze())(torch.ones(1))

    def by_pull_back():
        return pull_back(lambda x: (f(x), 1.0, None), torch.ones(1))[1]

    for gradient in (by_value_and_grad, by_pull_back):
        gradient().mul_(5)
        assert torch.equal(gradient(), torch.ones(1))


def test_gradients_are_refused_in_inference_mode_where_they_would_be_zero():
    x = torch.tensor([3.0, 4.0])
    calls = (lambda: grad(lambda x: (x**2).sum())(x), lambda: pull_back(lambda x: (x**2, 0.5, x), x))
    for call in calls:
        with torch.inference_mode(), pytest.raises(InvalidArgument, match=r"inside torch\.inference_mode"):
            call()
        with torch.no_grad():
            call()


def test_pull_back_gives_zeros_for_what_is_not_used():
    _, pulled = pull_back(lambda p: (p["w"] * 2, torch.ones(2), None), {"w": torch.ones(2), "unused": torch.ones(3)})
    assert tree.equal(pulled, {"w": torch.full((2,), 2.0), "unused": torch.zeros(3)})


def test_second_derivatives():
    second = grad(lambda x: grad(lambda y: y**3)(x))
    assert torch.equal(second(torch.tensor(2.0)), torch.tensor(12.0))


def test_under_vmap_it_gives_a_gradient_a_row():
    xs = torch.arange(4.0)
    assert torch.equal(vmap(grad(lambda x: x**2))(xs), 2 * xs)


def test_differentiable_by_the_users_own_tape():
    x = torch.tensor(2.0, requires_grad=True)
    grad(lambda y: y**3)(x).backward()
    assert float(x.grad) == 12.0


def test_constant_functions_have_zero_gradients():
    value, grads = value_and_grad(lambda p: torch.tensor(3.0))({"w": torch.ones(2)})
    assert float(value) == 3.0
    assert torch.equal(grads["w"], torch.zeros(2))


@pytest.mark.parametrize("transform", [lambda f: f, lambda f: vmap(f)])
def test_bad_values_are_named(transform):
    rows = torch.ones(2, 3)
    with pytest.raises(ShapeMismatch, match=r"must return a scalar tensor, got shape \(3,\)|got shape \(2, 3\)"):
        transform(grad(lambda x: 2 * x))(rows)
    with pytest.raises(NotATensor, match="must return a scalar tensor, got int"):
        transform(grad(lambda x: 3))(rows)


def test_an_integer_leaf_is_named():
    with pytest.raises(NotATensor, match=r"argument 0 at n: gradients need floating-point tensors, got int64\(\)"):
        grad(lambda p: p["w"].sum())({"w": torch.ones(2), "n": torch.tensor(3)})


def test_fold_is_the_loop():
    carry, ys = fold(lambda c, x: (c + x, {"square": x * x}), torch.tensor(0), torch.arange(5))
    assert int(carry) == 10
    assert torch.equal(ys["square"], torch.arange(5) ** 2)


def test_fold_over_nothing_returns_the_carry():
    assert fold(lambda c, x: (c + x, c), 7, []) == (7, None)


def test_stop_ends_the_fold_and_takes_its_output_along():
    seen = []

    def f(total, x):
        seen.append(x)
        return Stop(total + x, total) if x == 3 else (total + x, total)

    carry, ys = fold(f, 0, [1, 2, 3, 4])
    assert (carry, ys.tolist(), seen) == (6, [0, 1, 3], [1, 2, 3])


def test_a_stop_whose_condition_is_false_is_none():
    carry, _ = fold(lambda c, x: Stop(c + x, when=torch.tensor(x == 3)), 0, [1, 2, 3, 4])
    assert carry == 6


def test_fold_says_what_a_function_must_return():
    with pytest.raises(NotATensor, match=r"must return \(carry, y\) or Stop\(carry, y\), got int"):
        fold(lambda c, x: c + x, 0, [1])


def test_outputs_of_different_structure_are_an_error():
    with pytest.raises(TreeMismatch):
        fold(lambda c, x: (c, {str(x): x}), 0, [1, 2])
