"""Arguments by keyword, and what a differentiated function returns: passed on as JAX does, or refused in words."""

import pytest
import torch

import functrain as ft
from functrain.errors import DtypeMismatch, InvalidArgument, NotATensor

X, Y = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
JITS = pytest.mark.parametrize("jit", [lambda f: f, ft.jit], ids=["eager", "jit"])


def scaled(x, *, by=1.0):
    return x**2 * by


def loss(x, *, by=1.0):
    return (x**2 * by).sum()


def stated(x, by=1.0):
    return x * by, lambda cotangent: cotangent * by


KEYWORDS = {  # name -> (f(x, by=by), what it is)
    "grad": (ft.grad(loss), lambda by: 2 * X * by),
    "value_and_grad": (lambda x, by: ft.value_and_grad(loss)(x, by=by)[1], lambda by: 2 * X * by),
    "jacrev": (ft.jacrev(scaled), lambda by: torch.diag(2 * X * by)),
    "jacfwd": (ft.jacfwd(scaled), lambda by: torch.diag(2 * X * by)),
    "hessian": (ft.hessian(loss), lambda by: torch.diag(2 * torch.ones(2) * by)),
    "vmap": (lambda x, by: ft.vmap(loss)(torch.stack([x, x]), by=by), lambda by: torch.stack([(X**2 * by).sum()] * 2)),
    "remat": (lambda x, by: torch.func.grad(lambda x: ft.remat(loss)(x, by=by))(x), lambda by: 2 * X * by),
    "remat, autograd": (lambda x, by: ft.grad(lambda x: ft.remat(loss)(x, by=by))(x), lambda by: 2 * X * by),
    "custom_gradient": (
        lambda x, by: ft.grad(lambda x: ft.custom_gradient(stated)(x, by=by).sum())(x),
        lambda by: 0 * X + by,
    ),
    "jit": (ft.jit(scaled), lambda by: X**2 * by),
    "grad of grad": (lambda x, by: ft.grad(lambda x: ft.grad(loss)(x, by=by).sum())(x), lambda by: 0 * X + 2 * by),
}


@JITS
@pytest.mark.parametrize("by", [3, Y])
@pytest.mark.parametrize("name", KEYWORDS)
def test_arguments_by_keyword_are_passed_on(name, by, jit):
    f, expected = KEYWORDS[name]
    torch.testing.assert_close(jit(f)(X, by=by), expected(by))


def test_what_a_remat_is_given_by_keyword_has_a_gradient():
    torch.testing.assert_close(torch.func.grad(lambda by: ft.remat(loss)(X, by=by))(Y), X**2)
    torch.testing.assert_close(ft.jit(ft.grad(lambda by: ft.remat(loss)(X, by=by)))(Y), X**2)


def test_what_a_custom_gradient_is_given_by_keyword_has_none_and_says_so():
    with pytest.raises(InvalidArgument, match="stated under custom_gradient closes over a tensor"):
        ft.grad(lambda by: ft.custom_gradient(stated)(X, by=by).sum())(Y)


def test_what_is_differentiated_comes_by_position():
    with pytest.raises(InvalidArgument, match="one of the 0 arguments, got 0; what is differentiated is passed by pos"):
        ft.grad(loss)(x=X)
    with pytest.raises(InvalidArgument, match="jacrev: argnums names argument 0, but there are 0"):
        ft.jacrev(loss)(x=X)


DERIVATIVES = {
    "vjp": lambda f: lambda x: ft.vjp(f, x),
    "jvp": lambda f: lambda x: ft.jvp(f, (x,), (x,)),
    "jacrev": ft.jacrev,
    "jacfwd": ft.jacfwd,
    "hessian": ft.hessian,
}


@JITS
@pytest.mark.parametrize("name", DERIVATIVES)
@pytest.mark.parametrize(
    ("f", "got"),
    [
        (lambda x: 3, "int"),
        (lambda x: None, "NoneType"),
        (lambda x: (x * 2, True), "bool at 1"),
        (lambda x: {"y": x, "n": None}, "NoneType at n"),
    ],
)
def test_a_value_that_is_no_tensor_is_refused(f, got, name, jit):
    with pytest.raises(NotATensor, match=f"{name}: the function must return tensors, got {got}; .* has_aux=True"):
        jit(DERIVATIVES[name](f))(X)


@JITS
@pytest.mark.parametrize("name", ["vjp", "jacrev", "hessian"])
def test_whole_numbers_are_not_differentiated_backward(name, jit):
    with pytest.raises(NotATensor, match=rf"{name}: .* floating-point tensors, got int64\(\) at n; .* has_aux=True"):
        jit(DERIVATIVES[name](lambda x: {"n": x.argmax(), "y": x}))(X)


@JITS
def test_forward_their_tangent_is_zero(jit):
    _, tangent = jit(lambda x: ft.jvp(lambda x: (x * 2, x.argmax()), (x,), (x,)))(X)
    assert torch.equal(tangent[0], 2 * X) and tangent[1] == 0


@JITS
def test_the_value_of_grad_is_a_floating_point_number(jit):
    for grad in (ft.grad, lambda f: ft.vmap(ft.grad(f))):
        with pytest.raises(DtypeMismatch, match=r"must return a floating-point number, got int64\(\)"):
            jit(grad(lambda x: x.argmax()))(X[None] if grad is not ft.grad else X)


AUXES = [3, None, "a", {"a": 1, "b": None}, [1, 2.0], ()]


@JITS
@pytest.mark.parametrize("aux", AUXES)
def test_aux_is_anything(aux, jit):
    def f(x):
        return x * 2, (aux, x.sum())

    def g(x):
        return (x**2).sum(), (aux, x.sum())

    def inner(x):
        gradient, aux = ft.grad(g, has_aux=True)(x)
        return gradient.sum(), aux

    results = {
        "vjp": lambda x: ft.vjp(f, x, has_aux=True)[2],
        "jvp": lambda x: ft.jvp(f, (x,), (x,), has_aux=True)[2],
        "jacrev": lambda x: ft.jacrev(f, has_aux=True)(x)[1],
        "jacfwd": lambda x: ft.jacfwd(f, has_aux=True)(x)[1],
        "hessian": lambda x: ft.hessian(g, has_aux=True)(x)[1],
        "grad": lambda x: ft.grad(g, has_aux=True)(x)[1],
        "grad of grad": lambda x: ft.grad(inner, has_aux=True)(x)[1],
    }
    for result in results.values():
        seen = []

        def total(x, result=result, seen=seen):  # what `jit` returns is made of tensors
            found, total = result(x)
            seen.append(found)
            return total

        assert jit(total)(X) == 3 and seen == [aux]


@JITS
@pytest.mark.parametrize("name", ["jacrev", "jacfwd", "hessian", "grad"])
@pytest.mark.parametrize(("f", "got"), [(lambda x: x.sum(), r"float32\(\)"), (lambda x: (x.sum(), 1, 2), "tuple of 3")])
def test_with_aux_a_pair_is_asked_for(name, f, got, jit):
    with pytest.raises(InvalidArgument, match=rf"{name}: .* must return a pair \(value, aux\), got .*{got}"):
        jit(getattr(ft, name)(f, has_aux=True))(X)
