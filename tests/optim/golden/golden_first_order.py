"""Recipes of optimizers of the first order; run it to record what is new, see `golden_recording`."""

from pathlib import Path

from golden_recording import by_hand, optax_, optax_chain, record, torch_

FILE = Path(__file__).with_suffix(".json")

RECIPES = {
    "adabelief": optax_("adabelief", learning_rate=0.05),
    "yogi": optax_("yogi", learning_rate=0.05),
    "novograd": optax_("novograd", learning_rate=0.05, weight_decay=0.1),
    "lamb": optax_("lamb", learning_rate=0.05, weight_decay=0.1),
    "lars": optax_("lars", learning_rate=0.5, weight_decay=0.1, trust_coefficient=0.05),
    "lars nesterov": optax_("lars", learning_rate=0.5, trust_coefficient=0.05, eps=0.1, nesterov=True),
    "sm3": optax_("sm3", learning_rate=0.1),
    # optax weighs the difference by 1 - b2, the authors by b2; this is theirs.
    "adan": torch_("pytorch_optimizer:Adan", lr=0.02, weight_decay=0.1, weight_decouple=True),
    "ademamix": optax_("contrib.ademamix", learning_rate=0.05, b3=0.99, weight_decay=0.1),
    "adopt": optax_("contrib.adopt", learning_rate=0.1),
    "adopt without a clip": optax_("contrib.adopt", learning_rate=0.02, use_clipping=False, b2=0.99),
    # optax takes the root of the count in float32.
    "madgrad": torch_("pytorch_optimizer:MADGRAD", lr=0.05, weight_decay=0.1),
    "signum": optax_("signum", learning_rate=0.02),
    "sign": optax_("sign_sgd", learning_rate=0.02),
    # It adds eps before the correction, the authors after it; so eps is next to nothing.
    "mars": torch_("pytorch_optimizer:MARS", lr=0.02, lr_1d=0.02, eps=1e-14, gamma=0.1, weight_decay=0.1),
    "ranger": torch_("pytorch_optimizer:Ranger", lr=0.05, weight_decay=0.1, degenerated_to_sgd=True),
    "cautious adamw": by_hand("cautious_adamw", lr=0.05, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.1),
    "cautious lion": by_hand("cautious_lion", lr=0.02, b1=0.9, b2=0.99, weight_decay=0.1),
    "lesson's momentum": by_hand("lesson_momentum", lr=0.1, momentum=0.9),
    "lesson's lamb": by_hand("lesson_lamb", lr=0.05, momentum=0.9, square_momentum=0.99, eps=1e-5, weight_decay=0.01),
    "adagrad with eps under the root": optax_("adagrad", learning_rate=0.1),
    "clip": optax_chain(("clip", {"max_delta": 0.1}), ("sgd", {"learning_rate": 0.1})),
    "adaptive clip": by_hand("adaptive_clip", lr=0.1, clipping=0.2),
    "centralize": optax_chain(("centralize", {}), ("sgd", {"learning_rate": 0.1})),
    "keep nonnegative": optax_chain(("sgd", {"learning_rate": 0.1}), ("keep_params_nonnegative", {})),
    "keep in a box": by_hand("projected", lr=0.1, onto="projection_linf_ball", scale=0.4),
    "keep in the ball of l1": by_hand("projected", lr=0.1, onto="projection_l1_ball", scale=2.0),
    "keep in the ball of l2": by_hand("projected", lr=0.1, onto="projection_l2_ball", scale=1.0),
    "keep on a simplex": by_hand("projected", lr=0.1, onto="projection_simplex", scale=1.5),
}

if __name__ == "__main__":
    record(FILE, RECIPES)
