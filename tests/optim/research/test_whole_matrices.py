"""Shampoo, SOAP and GaLore against their formulas in NumPy, float64."""

import numpy as np
import pytest
import torch

import functrain as ft
from functrain import nn, optim, tree
from functrain.errors import DtypeMismatch, InvalidArgument
from functrain.optim.preconditioning.matrices import eigenbasis, inverse_root

DOUBLE = torch.float64
SHAPES = {"wide": (3, 4), "tall": (4, 3), "conv": (3, 2, 2), "bias": (3,), "s": ()}


def drawn(seed, dtype=DOUBLE):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in SHAPES.items()}


def run(transform, steps, dtype=DOUBLE):
    params, course = drawn(0, dtype), []
    state = transform.init(params)
    for step in range(steps):
        updates, state = transform.update(drawn(1 + step, dtype), state, params)
        course.append(updates)
    return course, state


def expected(make, steps):
    """The course of each leaf alone, by a NumPy function of the shape that returns gradient -> update."""
    course = []
    steppers = {name: make(shape) for name, shape in SHAPES.items()}
    for step in range(steps):
        course.append({name: torch.as_tensor(steppers[name](g.numpy())) for name, g in drawn(1 + step).items()})
    return course


def close(got, wanted, rtol=1e-8, atol=1e-10):
    for step, (a, b) in enumerate(zip(got, wanted, strict=True)):
        for name in a:
            torch.testing.assert_close(
                a[name], b[name].reshape(a[name].shape), rtol=rtol, atol=atol, msg=f"{name}, {step}"
            )


def power(matrix, exponent):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(values**exponent) @ vectors.T


def flat(g):
    return g.reshape(g.shape[0], -1) if g.ndim else g.reshape(1, 1)


# --- Shampoo ---


@pytest.mark.parametrize(
    "b2, every, max_size", [(None, 1, 1024), (0.9, 1, 1024), (None, 3, 1024), (0.5, 1, 4), (None, 1, 2)]
)
def test_shampoo_is_its_formula(b2, every, max_size):
    eps = 1e-3

    def make(shape):
        n, m = flat(np.zeros(shape)).shape
        sides = [size for size, counts in ((n, True), (m, len(shape) > 1)) if counts and size <= max_size]
        left, right, v, roots, t = np.zeros((n, n)), np.zeros((m, m)), 0.0, {}, 0

        def step(g):
            nonlocal left, right, v, t
            matrix, t = flat(g), t + 1
            a, b = (1, 1) if b2 is None else (b2, 1 - b2)
            left, right, v = a * left + b * matrix @ matrix.T, a * right + b * matrix.T @ matrix, a * v + b * g * g
            c = 1 if b2 is None else 1 / (1 - b2**t)
            if not sides:
                return g / np.sqrt(v * c + eps)
            exponent = -1 / (2 * len(sides))
            if (t - 1) % every == 0:
                roots["l"] = power(c * left + eps * np.eye(n), exponent) if n <= max_size else np.eye(n)
                roots["r"] = (
                    power(c * right + eps * np.eye(m), exponent) if len(shape) > 1 and m <= max_size else np.eye(m)
                )
            return roots["l"] @ matrix @ roots["r"]

        return step

    got, _ = run(optim.scale_by_shampoo(b2, eps, every, max_size), 8)
    close(got, expected(make, 8))


def test_shampoo_does_not_depend_on_the_basis():
    """Turned gradients make turned updates, which no optimizer of single elements has."""
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(9))).Q
    piece = optim.scale_by_shampoo(eps=1e-6)
    params = {"w": torch.zeros(4, 3, dtype=DOUBLE)}
    a, b = piece.init(params), piece.init(params)
    for seed in range(4):
        g = torch.randn(4, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
        one, a = piece.update({"w": g}, a, params)
        other, b = piece.update({"w": turn @ g}, b, params)
        torch.testing.assert_close(turn @ one["w"], other["w"])


@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_derivative_of_an_inverse_root(order):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4, 4, dtype=DOUBLE, generator=generator)
    for matrix in (a @ a.T + torch.eye(4, dtype=DOUBLE), 2 * torch.eye(4, dtype=DOUBLE)):  # and of equal eigenvalues

        def root(x):
            return inverse_root((x + x.T) / 2, order, 1e-9)

        assert torch.autograd.gradcheck(root, matrix.clone().requires_grad_(), atol=1e-6)
        torch.testing.assert_close(
            torch.linalg.matrix_power(root(matrix), order) @ matrix, torch.eye(4, dtype=DOUBLE), rtol=1e-9, atol=1e-9
        )


def test_moments_of_gradients_with_rows_of_zeros_have_a_basis():
    """Of which the first moments are; in float32 LAPACK's iteration does not end on two of these."""
    generator = torch.Generator().manual_seed(0)
    for size in range(60, 100):
        g = torch.randn(size, 2, generator=generator) * 10 ** (-15 * torch.rand(size, 1, generator=generator))
        g = g * (torch.rand(size, 1, generator=generator) > 0.4)
        basis = eigenbasis(0.05 * g @ g.mT)
        assert (basis.mT @ basis - torch.eye(size)).abs().max() < 1e-5
        assert inverse_root(0.05 * g @ g.mT, 4, 1e-4).isfinite().all()


# --- SOAP ---


@pytest.mark.parametrize("every, max_size, b3", [(1, 100, None), (2, 100, 0.8), (3, 3, None)])
def test_soap_is_the_authors_algorithm(every, max_size, b3):
    b1, b2, eps = 0.9, 0.8, 1e-8
    keeps = b2 if b3 is None else b3

    def make(shape):
        n, m = flat(np.zeros(shape)).shape
        sides = {0: n <= max_size and len(shape) > 1, 1: m <= max_size and len(shape) > 1}
        moments, bases = [np.zeros((n, n)), np.zeros((m, m))], [np.eye(n), np.eye(m)]
        mean, square, t = np.zeros((n, m)), np.zeros((n, m)), 0

        def step(g):
            nonlocal mean, square, t
            matrix, update = flat(g), np.zeros((n, m))
            first, t = t == 0, t + 1
            if not first:
                s = t - 1
                seen = bases[0].T @ matrix @ bases[1]
                mean, square = b1 * mean + (1 - b1) * seen, b2 * square + (1 - b2) * seen**2
                factor = np.sqrt(1 - b2**s) / (1 - b1**s)
                update = bases[0] @ (factor * mean / (np.sqrt(square) + eps)) @ bases[1].T
            mean_outside = bases[0] @ mean @ bases[1].T
            for side, outer in enumerate((matrix @ matrix.T, matrix.T @ matrix)):
                moments[side] = keeps * moments[side] + (1 - keeps) * outer
                if not sides[side]:
                    continue
                if first:
                    bases[side] = np.linalg.eigh(moments[side])[1][:, ::-1]
                elif (t - 1) % every == 0:
                    estimate = np.diag(bases[side].T @ moments[side] @ bases[side])
                    order = np.argsort(-estimate)
                    square = np.take(square, order, side)
                    bases[side] = np.linalg.qr(moments[side] @ bases[side][:, order])[0]
            mean = bases[0].T @ mean_outside @ bases[1]
            return update

        return step

    got, _ = run(optim.scale_by_soap(b1, b2, b3, eps, every, max_size), 9)
    close(got, expected(make, 9), rtol=1e-6, atol=1e-8)
    assert all(not update.any() for update in got[0].values())


# --- GaLore ---


@pytest.mark.parametrize("rank, every", [(1, 1), (2, 3), (10, 4)])
def test_galore_is_its_formula(rank, every):
    b1, b2, eps, scale = 0.9, 0.99, 1e-8, 0.5

    def make(shape):
        base, m, v, t = None, 0.0, 0.0, 0

        def step(g):
            nonlocal base, m, v, t
            t += 1
            matrix, wide = g.ndim == 2, g.ndim == 2 and g.shape[0] <= g.shape[1]
            if matrix and (t - 1) % every == 0:
                base = np.linalg.svd(g if wide else g.T)[0][:, :rank]
                base = base * np.sign(base[np.abs(base).argmax(0), range(base.shape[1])])
            seen = (base.T @ g if wide else g @ base) if matrix else g
            m, v = b1 * m + (1 - b1) * seen, b2 * v + (1 - b2) * seen**2
            u = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
            return scale * (base @ u if wide else u @ base.T) if matrix else u

        return step

    got, state = run(optim.low_rank(optim.scale_by_adam(b1, b2, eps), rank, every, scale), 9)
    close(got, expected(make, 9))
    assert state.inner["mean"]["wide"].shape == (min(rank, 3), 4) and state.inner["mean"]["tall"].shape == (
        4,
        min(rank, 3),
    )


def test_galore_with_groups_inside_and_around():
    params = {"a": torch.randn(4, 3), "b": torch.randn(2)}
    inside = optim.low_rank(optim.partition({"m": optim.adam(0.1), "r": optim.sgd(0.1)}, {"m": "a", "r": "b"}), 2)
    around = optim.partition({"m": optim.low_rank(optim.adam(0.1), 2), "r": optim.sgd(0.1)}, {"m": "a", "r": "b"})
    one, _ = inside.update(params, inside.init(params), params)
    other, _ = around.update(params, around.init(params), params)
    assert tree.equal(one, other)


# --- all of them ---

MADE = {
    "shampoo": lambda: optim.shampoo(0.05, momentum=0.9, b2=0.9, every=2),
    "soap": lambda: optim.soap(0.01, every=2),
    "galore": lambda: optim.galore(0.05, rank=2, every=2),
}


@pytest.mark.parametrize("name", MADE)
def test_compiled_it_is_the_same(name):
    transform, params = MADE[name](), drawn(0)
    step = ft.jit(lambda grads, state, params: optim.step(transform, grads, state, params))
    one = other = (params, transform.init(params))
    for seed in range(7):
        one = optim.step(transform, drawn(1 + seed), one[1], one[0])
        other = step(drawn(1 + seed), other[1], other[0])
        assert not tree.differences(one[0], other[0], rtol=1e-7, atol=1e-9)
    assert len(step.traces) == 1


@pytest.mark.parametrize("name", MADE)
def test_a_fit_learns(name):
    labels = torch.arange(24) % 3
    inputs = torch.nn.functional.one_hot(labels, 6) + 0.1 * torch.randn(24, 6)
    rows = ft.data.ArrayDataset((inputs, labels))
    learner = ft.Learner(nn.serial(nn.dense(5), nn.tanh, nn.dense(3)), ft.losses.cross_entropy, MADE[name]())
    state = ft.init(learner, ft.random.key(0), rows[:1])
    run = ft.fit(learner, state, train=ft.data.loader(rows, ft.data.shuffled(8)), epochs=20, chunk=3)
    assert run.history[-1]["train/loss"] < 0.5 * run.history[0]["train/loss"]


@pytest.mark.parametrize("name", MADE)
def test_a_gradient_that_is_not_finite_is_not_hidden(name):
    transform, params = MADE[name](), {"w": torch.ones(3, 2)}
    state = transform.init(params)
    for step in range(4):
        grads = {"w": torch.full((3, 2), float("nan") if step == 1 else 1.0)}
        updates, state = transform.update(grads, state, params)
    assert updates["w"].isnan().all()


def test_arguments_out_of_range_are_named():
    for make, message in (
        (lambda: optim.shampoo(b2=1.0), "b2 must be a number of at least 0 and below 1"),
        (lambda: optim.shampoo(eps=0.0), "eps must be a number above 0"),
        (lambda: optim.shampoo(every=0), "every must be a whole number of updates, at least 1"),
        (lambda: optim.shampoo(max_size=0), "max_size must be a whole number of at least 1"),
        (lambda: optim.soap(b3=1.0), "b3 must be a number of at least 0 and below 1"),
        (lambda: optim.soap(every=0.5), "every must be a whole number of updates"),
        (lambda: optim.soap(max_size=0), "max_size must be a whole number"),
        (lambda: optim.galore(rank=0), "rank must be a whole number of at least 1"),
        (lambda: optim.galore(every=0), "every must be a whole number"),
        (lambda: optim.galore(scale=-1.0), "scale must be a number of at least 0"),
        (lambda: optim.low_rank(optim.sam(optim.sgd(0.1)), 2), "looks at the loss of other parameters"),
        (lambda: optim.low_rank(0.1, 2), "transform must be a Transform"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            make()
    for make in MADE.values():
        with pytest.raises(DtypeMismatch, match="parameters must be real floating-point tensors"):
            make().init({"w": torch.zeros(2, 2, dtype=torch.complex64)})
