"""Courses of the references' optimizers: how they are recorded, stored small, and compared with ours.

A room of optimizers has a table of recipes, say `golden_first_order.py`, and what the references made of it beside it,
`golden_first_order.json`. To add an optimizer:

1. Add a line to the room's `RECIPES`: `optax_("adabelief", learning_rate=0.1)`, `torch_("pytorch_optimizer:Adan",
   lr=0.1)`; or, for what is neither, `by_hand("name")`, a function of `golden_references.py` from the authors' formula,
   of (params, evaluate) -> the parameters after each update.
2. In an environment with the references (`pip install -e ".[golden]"`), run the table: `python
   tests/optim/golden/golden_first_order.py`. It runs what is new or has changed, and keeps the rest.
3. Add ours by the same name to the test of the room, whose law is `check`.

For a room of your own copy the table and its test, a page each. The values are the reference's, never ours: nothing
here imports functrain but the comparison. Each course holds the digest of its recipe, of the problems and of the
function by hand, and the versions that made it; a test fails where recipe and file disagree.
"""

import hashlib
import importlib
import importlib.metadata
import inspect
import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import golden_problems
import torch
from golden_problems import KEPT, PROBLEMS, STEPS, Course, Evaluate, Params

Recipe = tuple[str, str, dict[str, Any]]
"""The kind of the reference, where it is, and its options."""


def optax_(path: str, **options: Any) -> Recipe:
    """Return the recipe of optax's optimizer at a dotted path."""
    return "optax", path, options


def optax_chain(*pieces: tuple[str, dict[str, Any]]) -> Recipe:
    """Return the recipe of a chain of optax's transforms, each a dotted path and its options."""
    return "optax", "chain", {"pieces": [list(piece) for piece in pieces]}


def torch_(path: str, **options: Any) -> Recipe:
    """Return the recipe of a `torch.optim.Optimizer`: "module:class"; `closure=True` gives its step a closure."""
    return "torch", path, options


def by_hand(name: str, **options: Any) -> Recipe:
    """Return the recipe of a function in `golden_references.py`, of its options, which returns a course."""
    return "by hand", name, options


def optax_course(optimizer: Any) -> Course:
    """Return the course of an optimizer of optax."""

    def course(params: Params, evaluate: Evaluate):
        import jax
        import optax

        jax.config.update("jax_enable_x64", True)
        made = optimizer() if callable(optimizer) else optimizer
        theirs = {name: jax.numpy.asarray(leaf.numpy()) for name, leaf in params.items()}
        state = made.init(theirs)
        for step in range(STEPS):
            ours = {name: torch.tensor(leaf.tolist(), dtype=torch.float64) for name, leaf in theirs.items()}
            grads = {name: jax.numpy.asarray(g.numpy()) for name, g in evaluate(ours, step)[1].items()}
            updates, state = made.update(grads, state, theirs)
            theirs = optax.apply_updates(theirs, updates)
            yield {name: torch.tensor(leaf.tolist(), dtype=torch.float64) for name, leaf in theirs.items()}

    return course


def torch_course(make: Callable[..., Any], closure: bool = False, **options: Any) -> Course:
    """Return the course of a `torch.optim.Optimizer`."""

    def course(params: Params, evaluate: Evaluate):
        leaves = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
        optimizer = make(list(leaves.values()), **options)
        for step in range(STEPS):

            def closed(step: int = step):
                loss, grads = evaluate(leaves, step)
                for name, leaf in leaves.items():
                    leaf.grad = grads[name]
                return loss

            if closure:
                optimizer.step(closed)
            else:
                closed()
                optimizer.step()
            yield {name: leaf.detach().clone() for name, leaf in leaves.items()}

    return course


def course_of(recipe: Recipe) -> Course:
    """Return the course that a recipe states."""
    kind, path, options = recipe
    if kind == "by hand":
        return getattr(importlib.import_module("golden_references"), path)(**options)
    if kind == "torch":
        module, name = path.split(":")
        return torch_course(getattr(importlib.import_module(module), name), **options)

    return optax_course(lambda: optax_made(path, options))


def optax_made(path: str, options: dict[str, Any]) -> Any:
    """Return optax's transform at a dotted path, of these options; of a chain, its pieces."""
    found = importlib.import_module("optax")
    for part in path.split("."):
        found = getattr(found, part)
    if "pieces" in options:
        return found(*(optax_made(*piece) for piece in options["pieces"]))
    return found(**options)


def digest(recipe: Recipe) -> str:
    """Return what tells a recipe from any other, problems included."""
    kind, path, _ = recipe
    text = json.dumps(recipe, sort_keys=True) + inspect.getsource(golden_problems)
    if kind == "by hand":
        text += inspect.getsource(getattr(importlib.import_module("golden_references"), path))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flat(params: Params) -> list[float]:
    """Return all numbers of parameters in the order of the names, with twelve digits."""
    return [float(f"{number:.12g}") for name in sorted(params) for number in params[name].flatten().tolist()]


def points(course: Course, problem: str) -> dict[str, list[float]]:
    """Return the parameters of a course after the updates that are kept."""
    here = PROBLEMS[problem]
    made = list(course(here.begin(), here.evaluate))
    return {str(step): flat(made[step - 1]) for step in KEPT}


def versions(packages: tuple[str, ...]) -> str:
    """Return the versions that a course is made by."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(f"{name} {version}" for name, version in found.items())


PACKAGES = ("torch", "numpy", "optax", "jax", "pytorch_optimizer")


def record(file: Path, recipes: Mapping[str, Recipe]) -> None:
    """Run the recipes that are new or have changed, and store all courses of the table."""
    stored = json.loads(file.read_text()) if file.exists() else {}
    for name, recipe in recipes.items():
        if stored.get(name, {}).get("recipe") != digest(recipe):
            made = {problem: points(course_of(recipe), problem) for problem in PROBLEMS}
            stored[name] = {"recipe": digest(recipe), "made by": versions(PACKAGES), "points": made}
            print("recorded", name)
    lines = [f"{json.dumps(name)}: {json.dumps(stored[name], separators=(',', ':'))}" for name in sorted(recipes)]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")
