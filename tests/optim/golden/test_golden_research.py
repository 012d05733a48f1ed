"""Optimizers that look at more than a gradient go where their references went."""

import golden_comparing
import pytest
from golden_references import signs
from golden_research import FILE, RECIPES

from functrain import optim, tree
from functrain.optim.evaluating import diagonal

OURS = {
    "prodigy": optim.prodigy(initial=0.01, weight_decay=0.1),
    "prodigy with a safeguard": optim.prodigy(0.5, 0.8, 0.9, 0.7, initial=0.01, safeguard=True),
    "dog": optim.dog(initial=0.01, weight_decay=0.1),
    "dowg": optim.dowg(0.5, 0.01, 0.001),
    "mechanize": optim.mechanize(optim.sgd(1.0, momentum=0.9), initial=0.01),
    "polyak": optim.polyak_sgd(most=0.3, lowest=-1.0, eps=0.1),
    "schedule-free descent": optim.schedule_free_sgd(0.1, weight_decay=0.1),
    "schedule-free adamw": optim.schedule_free_adamw(0.05, 0.8, weight_decay=0.1),
    "sam": optim.sam(optim.sgd(0.05, momentum=0.9), 0.1),
    "adaptive sam": optim.sam(optim.sgd(0.05), 0.5, adaptive=True),
    "shampoo": optim.shampoo(0.1, eps=0.001),
    "soap": optim.soap(0.05, eps=1e-6, every=1, max_size=3, weight_decay=0.0),
    "soap with rare bases": optim.soap(0.05, 0.9, 0.99, 0.8, 1e-6, every=3, max_size=2, weight_decay=0.0),
    "galore": optim.galore(0.05, rank=1, every=100, scale=1.0, eps=1e-14),
    "galore with new directions": optim.galore(0.05, rank=2, every=3, scale=0.5, eps=1e-14),
    "sophia": optim.sophia(0.05, every=1, gamma=0.5, weight_decay=0.1),
    "sophia with a rare diagonal": optim.sophia(0.1, 0.9, 0.8, every=3, gamma=0.2, most=0.7),
}


@pytest.mark.parametrize("name", OURS)
def test_it_goes_where_its_reference_went(name, monkeypatch):
    # The references have generators of their own; so both get signs that nobody drew.
    monkeypatch.setattr(
        diagonal,
        "random_signs",
        lambda params, context: tree.map_with_path(lambda path, p: signs(context.step, path, p.shape), params),
    )
    golden_comparing.check(FILE, name, OURS[name])


def test_the_file_holds_what_the_recipes_say():
    golden_comparing.check_recipes(FILE, RECIPES, OURS)
