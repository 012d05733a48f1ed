"""Our courses, and the law that they are the references'."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import golden_recording
import pytest
import torch
from golden_problems import KEPT, PROBLEMS, STEPS, Params
from golden_recording import Recipe

import functrain as ft
from functrain import optim, random

LIMIT = {"rel": 2e-9, "abs": 1e-10}
"""How far rounding may take two float64 programs of one formula apart, of which twelve digits are stored."""


@functools.cache
def stored(file: Path) -> dict[str, Any]:
    """Return what a file holds, read once."""
    return json.loads(file.read_text())


def course(transform: optim.Transform, problem: str) -> dict[int, Params]:
    """Return our parameters after the updates that are kept."""
    here, made = PROBLEMS[problem], {}
    params = here.begin()
    state, key = transform.init(params), random.key(0)
    for step in range(STEPS):
        loss, grads = here.evaluate(params, step)
        # Not `here.evaluate`, for this is differentiated once more.
        evaluate = ft.value_and_grad(lambda at, step=step: here.loss(at, step))
        context = optim.Context(
            position=step / STEPS,
            updates=step,
            step=step,
            key=random.fold_in(key, step),
            loss=loss,
            evaluate=evaluate,
        )
        params, state = optim.step(transform, grads, state, params, context)
        if step + 1 in KEPT:
            made[step + 1] = params
    return made


def check(file: Path, name: str, transform: optim.Transform, **limit: float) -> None:
    """Assert that a transform goes where the reference of this name went, on all problems."""
    for problem in PROBLEMS:
        begin = PROBLEMS[problem].begin()
        assert all(leaf.dtype == torch.float64 for leaf in begin.values())
        for step, params in course(transform, problem).items():
            got = [number for key in sorted(params) for number in params[key].flatten().tolist()]
            wanted = stored(file)[name]["points"][problem][str(step)]
            assert got == pytest.approx(wanted, **(limit or LIMIT)), f"{name}, {problem}, after {step} updates"


def check_recipes(file: Path, recipes: Mapping[str, Recipe], ours: Mapping[str, Any]) -> None:
    """Assert that a file holds the courses of these recipes and of no others, each of which is compared with ours."""
    assert sorted(stored(file)) == sorted(recipes) == sorted(ours)
    differing = [
        name for name, recipe in recipes.items() if stored(file)[name]["recipe"] != golden_recording.digest(recipe)
    ]
    assert not differing, f"recipe and file disagree; run the table again for {differing}"
    for name, course in stored(file).items():
        assert course["made by"].startswith("python "), name
        assert {problem: sorted(map(int, points)) for problem, points in course["points"].items()} == {
            problem: sorted(KEPT) for problem in PROBLEMS
        }
