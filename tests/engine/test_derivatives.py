"""Products with derivatives, Jacobians and Hessians, against torch.autograd.functional and formulas; and the rest."""

import pytest
import torch
from torch.autograd import functional

import functrain as ft
from functrain import tree
from functrain.errors import InvalidArgument, NotATensor, NotTraceable, ShapeMismatch, TreeMismatch

W = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
V = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
WAYS = {"eager": lambda f: f, "jit": ft.jit}
pytestmark = pytest.mark.parametrize("jit", WAYS.values(), ids=WAYS)


def layer(x):
    return torch.tanh(W @ x)


def scanned(x):
    return ft.scan(lambda h, row: (torch.sin(h + row.sum() * x), h.sum()), x, W)[0]


def scalar(x):
    return (layer(x) ** 3).sum() + x.prod()


def loop(x):
    return (scanned(x) ** 3).sum()


@pytest.mark.parametrize("f", [layer, scanned])
def test_jacobians(jit, f):
    expected = functional.jacobian(f, X)
    torch.testing.assert_close(jit(ft.jacrev(f))(X), expected)
    torch.testing.assert_close(jit(ft.jacfwd(f))(X), expected)


@pytest.mark.parametrize("f", [scalar, loop])
def test_hessians_and_products_with_them(jit, f):
    torch.testing.assert_close(jit(ft.hessian(f))(X), functional.hessian(f, X))
    torch.testing.assert_close(jit(lambda x: ft.hvp(f, (x,), (V,))[0])(X), functional.hvp(f, X, V)[1])


@pytest.mark.parametrize("f", [layer, scanned])
def test_products_from_either_side(jit, f):
    size = f(X).shape
    u = torch.linspace(-1, 1, size.numel(), dtype=torch.float64).reshape(size)

    def pulled(x):
        value, pull = ft.vjp(f, x)
        return value, pull(u)[0]

    for got, expected in zip(jit(pulled)(X), functional.vjp(f, X, u), strict=True):
        torch.testing.assert_close(got, expected)
    for got, expected in zip(jit(lambda x: ft.jvp(f, (x,), (V,)))(X), functional.jvp(f, X, V), strict=True):
        torch.testing.assert_close(got, expected)


def test_over_trees_and_several_arguments(jit):
    p = {"a": X, "b": (V,)}

    def f(p, y):
        return {"z": p["a"] * p["b"][0] * y, "s": y.sum()}

    value, pulled = jit(lambda p, y: (lambda v, pull: (v, pull(v)))(*ft.vjp(f, p, y)))(p, X)
    z = X * V * X
    close(value, {"z": z, "s": X.sum()})
    close(pulled, ({"a": z * V * X, "b": (z * X * X,)}, z * X * V + X.sum()))
    _, pushed = jit(lambda p, y: ft.jvp(f, (p, y), (p, y)))(p, X)
    close(pushed, {"z": 3 * z, "s": X.sum()})
    jacobian = jit(ft.jacrev(f, argnums=(0, 1)))(p, X)
    close(jacobian["z"][0]["b"][0], torch.diag(X * X))
    close(jacobian["s"][1], torch.ones(3, dtype=torch.float64))
    close(jit(ft.jacfwd(f, argnums=(0, 1)))(p, X), jacobian)
    second = jit(ft.hessian(lambda p: (p["a"] ** 2 * p["b"][0]).sum()))(p)
    close(second["a"]["b"][0], torch.diag(2 * X))
    product = jit(lambda p: ft.hvp(lambda p: (p["a"] ** 2 * p["b"][0]).sum(), (p,), (p,))[0])(p)
    close(product, {"a": 4 * X * V, "b": (2 * X * X,)})


def close(a, b):
    assert not tree.differences(a, b, rtol=1e-9, atol=1e-12), tree.differences(a, b, rtol=1e-9, atol=1e-12)


def test_aux_comes_along(jit):
    def f(x):
        return x**2, {"n": x.sum()}

    def all_of_them(x):
        value, pull, aux = ft.vjp(f, x, has_aux=True)
        _, tangent, aux_of_jvp = ft.jvp(f, (x,), (x,), has_aux=True)
        jacobian, aux_of_jacobian = ft.jacrev(f, has_aux=True)(x)
        forward, aux_of_forward = ft.jacfwd(f, has_aux=True)(x)
        auxes = [aux, aux_of_jvp, aux_of_jacobian, aux_of_forward]
        return pull(value)[0], tangent, jacobian, forward, auxes

    pulled, tangent, jacobian, forward, auxes = jit(all_of_them)(X)
    close([pulled, tangent, jacobian, forward], [2 * X**3, 2 * X * X, torch.diag(2 * X), torch.diag(2 * X)])
    assert all(tree.equal(aux, {"n": X.sum()}) for aux in auxes)
    second, aux = jit(ft.hessian(lambda x: ((x**3).sum(), x.sum()), has_aux=True))(X)
    close([second, aux], [torch.diag(6 * X), X.sum()])


def test_they_nest(jit):
    def f(x):
        return (ft.jacrev(layer)(x) ** 2).sum() + (ft.hvp(scalar, (x,), (V,))[0] ** 2).sum()

    def plain(x):
        j = functional.jacobian(layer, x, create_graph=True)
        return (j**2).sum() + (functional.hvp(scalar, x, V, create_graph=True)[1] ** 2).sum()

    torch.testing.assert_close(jit(ft.grad(f))(X), functional.jacobian(plain, X))
    batch = torch.stack([X, V])
    torch.testing.assert_close(
        jit(ft.vmap(ft.jacfwd(layer)))(batch), torch.stack([functional.jacobian(layer, x) for x in batch])
    )


def test_stop_gradient(jit):
    def f(p):
        stopped = ft.stop_gradient({"w": p, "n": 1})
        return (p * stopped["w"] * stopped["n"]).sum()

    close(jit(ft.grad(f))(X), X)
    close(jit(lambda x: ft.jvp(f, (x,), (V,))[1])(X), (X * V).sum())


@ft.custom_gradient
def clipped(x, scale):
    """Twice the value, and a gradient that is cut; the scale has a gradient of its own."""

    def pull(cotangent):
        return (cotangent * x).clamp(-0.5, 0.5), None if scale is None else cotangent.sum()

    return {"y": x * 2}["y"], pull


def test_custom_gradients(jit):
    def f(x, s):
        return (clipped(x, s) * 3).sum()

    got = jit(lambda x, s: (ft.grad(f)(x, s), ft.grad(f, argnum=1)(x, s), torch.func.grad(f)(x, s)))(X, X[0])
    expected = (3 * X).clamp(-0.5, 0.5)
    close(got, (expected, torch.tensor(9.0, dtype=torch.float64), expected))
    # Its gradient is a function like others: differentiated, vmapped, and inside a scan and a remat.
    second = jit(ft.grad(lambda x: (ft.grad(f)(x, x[0]) * V).sum()))(X)
    close(second, torch.where((3 * X).abs() < 0.5, 3 * V, 0.0))
    batch = torch.stack([X, V])
    close(jit(ft.vmap(ft.grad(f), (0, None)))(batch, X[0]), (3 * batch).clamp(-0.5, 0.5))
    loop = jit(ft.grad(lambda x: ft.scan(lambda c, r: (c + clipped(x * r, None).sum(), None), x[0] * 0, W)[0]))
    close(loop(X), sum((X * r).clamp(-0.5, 0.5) * r for r in W))
    close(jit(ft.grad(ft.remat(lambda x: f(x, None))))(X), expected)


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda x: ft.custom_gradient(lambda x: x)(x), NotATensor, r"must return \(value, pull\), got a tensor"),
        (lambda x: ft.custom_gradient(lambda x: ({"y": 1}, abs))(x), NotATensor, "must be tensors, got int in it"),
        (lambda x: ft.custom_gradient(lambda x: (x * 1, lambda g: g[:1]))(x), TreeMismatch, r"got .*\(1,\)"),
        (lambda x: ft.custom_gradient(lambda x: (x * 1, lambda g: {"g": g}))(x), TreeMismatch, "like its argument"),
        (lambda x: ft.custom_gradient(lambda x, y: (x * 1, lambda g: g))(x, x), TreeMismatch, "must be a tuple of 2"),
        (lambda x: ft.custom_gradient(lambda y: (x * y, lambda g: g))(x * 1), InvalidArgument, "closes over a tensor"),
    ],
)  # fmt: skip
def test_custom_gradients_that_are_wrong(jit, f, error, message):
    with pytest.raises(error, match=message):
        jit(ft.grad(lambda x: f(x).sum()))(X)


def test_a_custom_gradient_has_no_forward_derivative(jit):
    with pytest.raises(InvalidArgument, match=r"clipped states its gradient by custom_gradient, .* reverse mode"):
        jit(lambda x: ft.jvp(lambda x: clipped(x, None), (x,), (x,))[1])(X)


def test_eval_shape(jit):
    def f(x, n=2):
        return {"y": (W @ x)[:n].float(), "n": n, "i": x.argmax()}

    expected = {"y": ft.ShapeDtype((2,), torch.float32), "n": 2, "i": ft.ShapeDtype((), torch.int64)}
    assert ft.eval_shape(jit(f) if jit is not ft.jit else f, X) == expected
    assert ft.eval_shape(f, ft.ShapeDtype([3], torch.float64, "cpu"), n=2) == expected
    seen = []
    jit(ft.vmap(ft.grad(lambda x: (seen.append(ft.eval_shape(f, x)["y"].shape), x.sum())[1])))(torch.stack([X, X]))
    assert set(seen) == {(2,)}
    with pytest.raises(NotTraceable, match="looks at the values"):
        ft.eval_shape(lambda x: x if x.sum() > 0 else -x, X)


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda x: ft.vjp(layer, x.int()), NotATensor, "vjp: argument 0: derivatives need floating-point"),
        (lambda x: ft.vjp(layer, x)[1](x), TreeMismatch, r"the cotangents .*\(4,\), got .*\(3,\)"),
        (lambda x: ft.jvp(layer, x, x), InvalidArgument, "jvp: primals must be a tuple of arguments, got Tensor"),
        (lambda x: ft.jvp(layer, (x,), (x[:1],)), TreeMismatch, "jvp: the tangents must be like .*: at 0"),
        (lambda x: ft.hvp(layer, (x,), (x,)), ShapeMismatch, r"hvp: .* a scalar tensor, got float64\(4,\)"),
        (lambda x: ft.jacrev(layer)(x.int()), NotATensor, "jacrev: argument 0: derivatives need floating-point"),
        (lambda x: ft.jacfwd(lambda p: p["a"], argnums=0)({"a": 1}), NotATensor, "jacfwd: argument 0 at a: .* got int"),
        (lambda x: ft.hessian(scalar, argnums=1)(x), InvalidArgument, "hessian: argnums names argument 1"),
    ],
)  # fmt: skip
def test_bad_input(jit, f, error, message):
    with pytest.raises(error, match=message):
        f(X)
