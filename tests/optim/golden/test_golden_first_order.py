"""Optimizers and transforms of the first order go where their references went."""

import golden_comparing
import pytest
from golden_first_order import FILE, RECIPES
from golden_recording import optax_

from functrain import optim

SGD = optim.sgd(0.1)

OURS = {
    "adabelief": optim.adabelief(0.05),
    "yogi": optim.yogi(0.05),
    "novograd": optim.novograd(0.05, weight_decay=0.1),
    "lamb": optim.lamb(0.05, weight_decay=0.1),
    "lars": optim.lars(0.5, weight_decay=0.1, trust_coefficient=0.05),
    "lars nesterov": optim.lars(0.5, nesterov=True, trust_coefficient=0.05, eps=0.1),
    "sm3": optim.sm3(0.1),
    "adan": optim.adan(0.02, weight_decay=0.1),
    "ademamix": optim.ademamix(0.05, b3=0.99, weight_decay=0.1),
    "adopt": optim.adopt(0.1),
    "adopt without a clip": optim.adopt(0.02, b2=0.99, clip=False),
    "madgrad": optim.madgrad(0.05, weight_decay=0.1),
    "signum": optim.signum(0.02),
    "sign": optim.signum(0.02, momentum=0.0),
    "mars": optim.mars(
        0.02, eps=1e-14, gamma=0.1, weight_decay=0.1, others=optim.adamw(0.02, 0.9, 0.95, 1e-14, weight_decay=0.1)
    ),
    "ranger": optim.ranger(0.05, weight_decay=0.1),
    "cautious adamw": optim.cautious_adamw(0.05, weight_decay=0.1),
    "cautious lion": optim.cautious_lion(0.02, weight_decay=0.1),
    "lesson's momentum": optim.momentum(0.1),
    "lesson's lamb": optim.lamb(0.05, b2=0.99, eps=1e-5, weight_decay=0.01, most=10.0),
    "adagrad with eps under the root": optim.adagrad(0.1, initial=0.1, eps=1e-7, eps_in_root=True),
    "clip": optim.chain(optim.clip(0.1), SGD),
    "adaptive clip": optim.chain(optim.adaptive_grad_clip(0.2), SGD),
    "centralize": optim.chain(optim.centralize(), SGD),
    "keep nonnegative": optim.chain(SGD, optim.keep_nonnegative()),
    "keep in a box": optim.chain(SGD, optim.keep_in_box(-0.4, 0.4)),
    "keep in the ball of l1": optim.flatten(optim.chain(SGD, optim.keep_in_l1_ball(2.0))),
    "keep in the ball of l2": optim.flatten(optim.chain(SGD, optim.keep_in_l2_ball(1.0))),
    "keep on a simplex": optim.flatten(optim.chain(SGD, optim.keep_on_simplex(1.5))),
}


@pytest.mark.parametrize("name", OURS)
def test_it_goes_where_its_reference_went(name):
    golden_comparing.check(FILE, name, OURS[name])


def test_the_file_holds_what_the_recipes_say():
    golden_comparing.check_recipes(FILE, RECIPES, OURS)


def test_a_recipe_that_was_changed_after_its_run_is_found():
    changed = {**RECIPES, "yogi": optax_("yogi", learning_rate=0.051)}
    with pytest.raises(AssertionError, match=r"recipe and file disagree; run the table again for \['yogi'\]"):
        golden_comparing.check_recipes(FILE, changed, OURS)
    with pytest.raises(AssertionError):
        golden_comparing.check_recipes(FILE, {**RECIPES, "new": RECIPES["yogi"]}, OURS)
    with pytest.raises(AssertionError, match="yogi, quadratic, after 1 updates"):
        golden_comparing.check(FILE, "yogi", optim.yogi(0.05001))
