"""Optimizers that look at more than a gradient go where their references went."""

import golden_comparing
import pytest
from golden_research import FILE, RECIPES

from functrain import optim

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
}


@pytest.mark.parametrize("name", OURS)
def test_it_goes_where_its_reference_went(name):
    golden_comparing.check(FILE, name, OURS[name])


def test_the_file_holds_what_the_recipes_say():
    golden_comparing.check_recipes(FILE, RECIPES, OURS)
