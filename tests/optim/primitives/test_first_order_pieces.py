"""Pieces of the first order alone: clips, projections, noise, caution, and which weights decay."""

import math

import pytest
import torch

import functrain as ft
from functrain import data, nn, optim, random, schedule, tree
from functrain.errors import DtypeMismatch, InvalidArgument

DOUBLE, KEY = torch.float64, random.key(3)


def passed(piece, gradients, params=None, **context):
    params = tree.zeros_like(gradients) if params is None else params
    return piece.update(gradients, piece.init(params), params, optim.Context(**context))[0]


# --- clips, against PyTorch ---


@pytest.mark.parametrize("limit", [0.0, 0.3, 2.0])
def test_clips_of_values_and_of_units_are_pytorchs(limit):
    gradients = {"m": torch.randn(5, 4, dtype=DOUBLE), "k": torch.randn(3, 2, 2, 2), "v": torch.randn(6)}
    by_value, by_unit = passed(optim.clip(limit), gradients), passed(optim.clip_by_unit_norm(limit), gradients)
    by_leaf = passed(optim.clip_by_block_norm(limit), gradients)
    for name, g in gradients.items():
        torch.testing.assert_close(by_value[name], g.clamp(-limit, limit))
        rows = g.reshape(1, -1) if g.dim() < 2 else g
        torch.testing.assert_close(by_unit[name], torch.renorm(rows, 2, 0, limit).view_as(g), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(by_leaf[name], torch.renorm(g[None], 2, 0, limit)[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_unit_that_is_not_finite_becomes_nan_and_no_other(bad):
    gradients = {"w": torch.tensor([[1.0, bad], [1.0, 2.0]])}
    for piece in (optim.clip_by_unit_norm(1.0), optim.adaptive_grad_clip(0.1)):
        clipped = passed(piece, gradients)["w"]
        assert clipped[0].isnan().all() and clipped[1].isfinite().all()


def test_nans_become_zeros_and_are_kept_in_mind():
    piece, params = optim.zero_nans(), {"a": torch.zeros(2), "b": torch.zeros(())}
    state = piece.init(params)
    updates, state = piece.update({"a": torch.tensor([math.nan, math.inf]), "b": torch.tensor(1.0)}, state, params)
    assert tree.equal(updates, {"a": torch.tensor([0.0, math.inf]), "b": torch.tensor(1.0)})
    assert tree.equal(state["seen"], {"a": torch.tensor(True), "b": torch.tensor(False)})
    assert not any(tree.leaves(piece.update(params, state, params)[1]))


# --- projections: the nearest point, which is the one that no point of the set lies behind ---


def in_box(shape):
    return torch.rand(shape, dtype=DOUBLE) - 0.5


def in_l1_ball(shape):
    y = torch.randn(shape, dtype=DOUBLE)
    return y / y.abs().sum() * torch.rand((), dtype=DOUBLE) * 0.7


def in_l2_ball(shape):
    y = torch.randn(shape, dtype=DOUBLE)
    return y / y.norm() * torch.rand((), dtype=DOUBLE) * 0.7


def on_simplex(shape):
    y = torch.rand(shape, dtype=DOUBLE)
    return 0.7 * y / y.sum()


# name: (the piece, a point of the set of some shape, how far a point is outside)
SETS = {
    "nonnegative": (optim.keep_nonnegative(), lambda s: torch.rand(s, dtype=DOUBLE) * 3, lambda x: -x.min()),
    "box": (optim.keep_in_box(-0.5, 0.5), in_box, lambda x: x.abs().max() - 0.5),
    "l1 ball": (optim.keep_in_l1_ball(0.7), in_l1_ball, lambda x: x.abs().sum() - 0.7),
    "l2 ball": (optim.keep_in_l2_ball(0.7), in_l2_ball, lambda x: x.norm() - 0.7),
    "simplex": (optim.keep_on_simplex(0.7), on_simplex, lambda x: max((x.sum() - 0.7).abs(), -x.min())),
}


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4)], ids=str)
@pytest.mark.parametrize("size", [0.01, 1.0, 10.0])
@pytest.mark.parametrize("name", SETS)
def test_parameters_come_to_the_nearest_point_of_a_set(name, size, shape):
    piece, member, outside = SETS[name]
    p, g = torch.randn(shape, dtype=DOUBLE) * size, torch.randn(shape, dtype=DOUBLE) * size
    goal, reached = p + g, p + passed(piece, {"w": g}, {"w": p})["w"]
    assert outside(reached) < 1e-12 * max(size, 1)
    for _ in range(20):
        assert ((goal - reached) * (member(shape) - reached)).sum() <= 1e-12 * max(size, 1) ** 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_is_kept_nonnegative_is_exactly_so(dtype):
    params = {"w": torch.rand(1000).to(dtype)}
    updates = passed(optim.keep_nonnegative(), {"w": torch.randn(1000).to(dtype)}, params)
    after = optim.apply_updates(params, updates)["w"]
    assert after.min() == 0


def test_complex_parameters_have_no_order():
    params = {"w": torch.ones(2, dtype=torch.complex64)}
    for piece, *_ in SETS.values():
        with pytest.raises(DtypeMismatch, match="parameters must be real floating-point tensors, but w is complex64"):
            piece.init(params)


def test_a_box_is_not_upside_down():
    with pytest.raises(InvalidArgument, match=r"lower must be at most upper, got lower=1.0, upper=0.0"):
        optim.keep_in_box(1.0, 0.0)


# --- noise ---


def test_noise_has_the_variance_that_it_says_and_depends_on_key_name_and_path():
    zeros = {"a": torch.zeros(4000), "b": torch.zeros(4000)}
    piece = optim.add_noise(eta=0.5, gamma=2.0)
    state = piece.init(zeros)
    for t in (1, 2, 3):
        noise, state = piece.update(zeros, state, zeros, optim.Context(key=KEY))
        # The standard error of a standard deviation of 8000 draws is 0.8 %; of their mean 1.1 %.
        both = torch.cat(tree.leaves(noise)) / (0.5 / t**2) ** 0.5
        assert abs(both.std().item() - 1) < 0.04 and abs(both.mean().item()) < 0.05
        assert abs(torch.corrcoef(torch.stack(tree.leaves(noise)))[0, 1].item()) < 0.06
    same, other = passed(piece, zeros, key=KEY), passed(piece, zeros, key=random.key(4))
    assert tree.equal(same, passed(piece, zeros, key=KEY)) and not torch.equal(same["a"], other["a"])
    assert not torch.equal(same["a"], passed(optim.add_noise(0.5, 2.0, name="more"), zeros, key=KEY)["a"])


@pytest.mark.parametrize("jit", [False, "aten"])
def test_a_fit_draws_its_noise_from_the_keys_of_its_steps(jit):
    rows = data.ArrayDataset((torch.zeros(8, 2), torch.zeros(8, 1)))
    learner = ft.Learner(nn.dense(1), lambda output, target: output * 0, optim.noisy_sgd(1.0, eta=1.0, gamma=0.0))
    state = ft.init(learner, KEY, rows[:1])
    run = ft.fit(learner, state, train=data.loader(rows, data.sequential(4)), epochs=1, jit=jit)
    first, second = (random.fold_in(state.key, step) for step in (0, 1))
    for path, leaf in tree.leaves_with_path(state.params):
        noise = [random.normal(random.fold_in(key, "add_noise", path), tuple(leaf.shape)) for key in (first, second)]
        torch.testing.assert_close(dict(tree.leaves_with_path(run.state.params))[path], leaf - noise[0] - noise[1])


def test_noise_needs_a_key():
    params = {"w": torch.zeros(1)}
    with pytest.raises(InvalidArgument, match="this transform needs the random key of this step"):
        passed(optim.noisy_sgd(0.1), params)


# --- caution ---


def test_around_a_whole_optimizer_caution_is_that_around_its_piece():
    whole, piece = (
        optim.cautious(optim.adam(0.1)),
        optim.chain(optim.scale_by_caution(optim.scale_by_adam()), optim.scale_by_learning_rate(0.1)),
    )
    params = {"w": torch.randn(3, 2, dtype=DOUBLE), "s": torch.randn((), dtype=DOUBLE)}
    states, still = [whole.init(params), piece.init(params)], 0
    for _ in range(7):
        gradients = tree.map(torch.randn_like, params)
        (a, states[0]), (b, states[1]) = (
            t.update(gradients, s, params) for t, s in zip((whole, piece), states, strict=True)
        )
        assert not tree.differences(a, b, rtol=1e-12, atol=1e-15)
        against = [(u * g <= 0).all() for u, g in zip(tree.leaves(a), tree.leaves(gradients), strict=True)]
        assert all(against)
        still += sum(int((u == 0).sum()) for u in tree.leaves(a))
    assert still > 0


def test_caution_refuses_what_it_cannot_compare():
    for word in ("cautious", "scale_by_caution"):
        wrap = getattr(optim, word)
        with pytest.raises(
            InvalidArgument, match=rf"{word}: .* may make no update.* accumulate\(k, {word}\(\.\.\.\)\)"
        ):
            wrap(optim.accumulate(2, optim.sgd(0.1)))
        with pytest.raises(InvalidArgument, match=r"transform must be a Transform, got 0\.1"):
            wrap(0.1)
        with pytest.raises(InvalidArgument, match=r"least must be above 0, got 0"):
            wrap(optim.sgd(0.1), least=0)


# --- the rest ---


def test_weights_decay_and_biases_and_norms_do_not():
    model = nn.serial(nn.conv(4, kernel_size=3), nn.batch_norm(), nn.flatten, nn.dense(3), nn.layer_norm())
    params, _ = model.init(KEY, torch.zeros(2, 1, 5, 5))
    where = optim.no_biases_or_norms
    chosen = [path for path, leaf in tree.leaves_with_path(params) if where(path, leaf)]
    assert chosen == ["0.weight", "3.weight"]
    zero = tree.zeros_like(params)
    decayed = passed(optim.add_decayed_weights(1.0, where), zero, params)
    assert tree.equal(decayed, tree.map_with_path(lambda path, p: p if path in chosen else p * 0, params))
    for make in (optim.adamw, optim.nadamw, optim.lion, optim.adan, optim.adopt, optim.ademamix, optim.adabelief):
        updates = passed(make(0.1, weight_decay=1.0, decayed=where), zero, params)
        expected = tree.map_with_path(lambda path, p: -0.1 * p if path in chosen else p * 0, params)
        assert not tree.differences(updates, expected, rtol=1e-6), make


def test_what_is_not_adapted_goes_as_adam_goes():
    params, gradients = {"w": torch.ones(2, 2), "b": torch.ones(2)}, {"w": torch.ones(2, 2), "b": torch.ones(2)}
    updates = passed(optim.lamb(0.1, weight_decay=3.0, adapted="w"), gradients, params)
    torch.testing.assert_close(updates["b"], torch.full((2,), -0.1))
    torch.testing.assert_close(updates["w"], torch.full((2, 2), -0.1))
    plain = passed(optim.lamb(0.1, weight_decay=3.0), {**gradients, "b": torch.full((2,), 5.0)}, params)
    torch.testing.assert_close(plain["b"], torch.full((2,), -0.1))


def test_sm3_keeps_a_number_for_each_index_of_each_axis():
    state = optim.scale_by_sm3().init({"w": torch.zeros(30, 40), "k": torch.zeros(2, 3, 4), "s": torch.zeros(())})
    assert {name: leaf.numel() for name, leaf in state["bounds"].items()} == {"w": 70, "k": 9, "s": 1}


def test_a_mean_that_looks_ahead_has_no_debias():
    with pytest.raises(InvalidArgument, match="nesterov and debias exclude each other"):
        optim.ema(0.9, nesterov=True, debias=True)


ZEROS = {"number": 0.0, "tensor": torch.tensor(0.0), "schedule": schedule.constant(0.0)}
CLIPS = ["clip", "clip_by_global_norm", "clip_by_block_norm", "clip_by_block_rms", "clip_by_unit_norm"]


@pytest.mark.parametrize("zero", ZEROS)
@pytest.mark.parametrize("name", CLIPS)
def test_a_limit_of_zero_leaves_zeros_and_no_nan(name, zero):
    piece = getattr(optim, name)(ZEROS[zero])
    gradients = {"none": torch.zeros(2, 2), "some": torch.ones(2, 2)}
    assert tree.equal(passed(piece, gradients), tree.zeros_like(gradients))
    assert tree.equal(passed(piece, {"none": torch.zeros(2)}), {"none": torch.zeros(2)})


def test_a_simplex_has_a_finite_total():
    with pytest.raises(InvalidArgument, match="total must be a finite number"):
        optim.keep_on_simplex(math.inf)
