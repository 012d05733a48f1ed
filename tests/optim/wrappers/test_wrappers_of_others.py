"""Wrappers against optax's trajectories, torch's param groups and ReduceLROnPlateau."""

import json
import math

import golden_wrappers as recipe
import pytest
import torch

from functrain import optim, schedule, tree

STORED = json.loads((recipe.HERE / "golden_wrappers.json").read_text())
OURS = {
    "lookahead": optim.lookahead(4, 0.6, optim.adam(0.1)),
    "flatten": optim.flatten(optim.chain(optim.clip_by_global_norm(1.0), optim.adam(0.1))),
    "apply_if_finite": optim.apply_if_finite(4, optim.adam(0.1)),
    "masked": optim.chain(optim.masked("a", optim.add_decayed_weights(0.5)), optim.sgd(0.1)),
    "inject": optim.inject(optim.adam, lr=0.1, b1=0.8),
    # optax's scale falls at the patience-th mean that is no better, torch's and ours after it.
    "plateau": optim.chain(optim.sgd(0.1), optim.reduce_on_plateau(0.5, patience=1, rtol=1e-3, cooldown=1)),
    "plateau of pairs": optim.chain(
        optim.sgd(0.1), optim.reduce_on_plateau(0.5, patience=1, every=2, rtol=1e-3, min_scale=0.3)
    ),
}


def gradients(params, step):
    return {
        name: p + torch.tensor(recipe.noise(name, step), dtype=torch.float64, device=p.device)
        for name, p in params.items()
    }


@pytest.mark.parametrize("name", OURS)
def test_a_course_is_that_of_optax(name):
    params = {key: torch.tensor(value, dtype=torch.float64) for key, value in recipe.BEGIN.items()}
    transform, state = OURS[name], OURS[name].init(params)
    for step, wanted in enumerate(STORED["courses"][name]):
        grads = gradients(params, step)
        if name == "apply_if_finite" and step in recipe.BAD:
            grads = tree.map(lambda g: g * math.nan, grads)
        context = optim.Context(position=step / recipe.STEPS, updates=step, loss=recipe.LOSSES[step])
        params, state = optim.step(transform, grads, state, params, context)
        for key in params:
            assert params[key].tolist() == pytest.approx(wanted[key], rel=1e-9, abs=1e-12), step


def test_the_stored_courses_are_those_of_the_recipe():
    assert STORED["recipe"] == recipe.digest()
    assert set(STORED["courses"]) == set(OURS)
    assert all(len(course) == recipe.STEPS for course in STORED["courses"].values())


@pytest.mark.parametrize("cooldown", [0, 2])
@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("options", [{"rtol": 1e-2}, {"rtol": 0.0, "atol": 0.3}, {"rtol": 0.0, "min_scale": 0.2}])
def test_the_scale_is_that_of_torchs_scheduler(patience, cooldown, options):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        factor=0.5,
        patience=patience,
        cooldown=cooldown,
        threshold=options.get("atol") or options["rtol"],
        threshold_mode="abs" if "atol" in options else "rel",
        min_lr=options.get("min_scale", 0.0),
    )
    plateau = optim.reduce_on_plateau(0.5, patience=patience, cooldown=cooldown, **options)
    params = {"w": torch.ones(1)}
    state = plateau.init(params)
    scales = []
    for loss in [*recipe.LOSSES, math.nan, 0.4, math.inf, math.nan, math.nan, 0.3]:
        scheduler.step(loss)
        _, state = plateau.update(params, state, params, optim.Context(loss=loss))
        scales.append(state.scale.item())
        assert scales[-1] == optimizer.param_groups[0]["lr"]
    assert min(scales) < 1.0


def test_groups_with_rates_are_torchs_param_groups():
    begin = {"0": {"weight": torch.ones(3)}, "1": {"weight": torch.full((2,), 2.0)}}
    theirs = [leaf.clone().requires_grad_() for leaf in tree.leaves(begin)]
    optimizer = torch.optim.AdamW([{"params": [theirs[0]], "lr": 0.01}, {"params": [theirs[1]], "lr": 0.1}])
    lrs = optim.spread(["body", "head"], 0.1, first=0.01)
    ours = optim.discriminative(optim.adamw, lrs, {"body": "0.*", "head": "1.*"})
    params, state = begin, ours.init(begin)
    for step in range(20):
        grads = tree.map(lambda p, step=step: p + math.sin(step), params)
        for leaf, grad in zip(theirs, tree.leaves(grads), strict=True):
            leaf.grad = grad
        optimizer.step()
        params, state = optim.step(ours, grads, state, params)
    assert not tree.differences(tree.leaves(params), [leaf.detach() for leaf in theirs], rtol=1e-5, atol=1e-6)


def test_a_gated_optimizer_begins_where_its_gate_opens():
    opening = schedule.piecewise_constant([0.3], [0, 1])
    late, adam = optim.gate(opening, optim.adam(0.1)), optim.adam(0.1)
    params = alone = {"w": torch.tensor([1.0, -2.0])}
    state, lone = late.init(params), adam.init(params)
    for step in range(10):
        grads = {"w": torch.tensor([math.sin(step), math.cos(step)])}
        params, state = optim.step(late, grads, state, params, optim.Context(position=step / 10))
        if step >= 3:
            alone, lone = optim.step(adam, grads, lone, alone)
        # Alone it is PyTorch's kernel, which rounds otherwise.
        assert not tree.differences(params, alone, rtol=1e-6) and int(state.updates) == max(step - 2, 0)
    assert tree.equal(state.inner, lone)
