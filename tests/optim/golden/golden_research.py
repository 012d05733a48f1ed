"""Recipes of optimizers that look at more than a gradient; run it to record what is new, see `golden_recording`."""

from pathlib import Path

from golden_recording import by_hand, optax_, record

FILE = Path(__file__).with_suffix(".json")

RECIPES = {
    "prodigy": optax_("contrib.prodigy", learning_rate=1.0, estim_lr0=0.01, weight_decay=0.1),
    "prodigy with a safeguard": optax_(
        "contrib.prodigy", learning_rate=0.5, betas=[0.8, 0.9], beta3=0.7, estim_lr0=0.01, safeguard_warmup=True
    ),
    "dog": optax_("contrib.dog", init_step=["heuristic", 0.01], weight_decay=0.1),
    "dowg": optax_("contrib.dowg", learning_rate=0.5, init_estim_sq_dist=0.01, eps=0.001),
    "mechanize": by_hand("mechanized", lr=1.0, s_init=0.01),
    "polyak": by_hand("polyak", most=0.3, lowest=-1.0, eps=0.1),
    "schedule-free descent": optax_("contrib.schedule_free_sgd", learning_rate=0.1, weight_decay=0.1),
    "schedule-free adamw": optax_("contrib.schedule_free_adamw", learning_rate=0.05, b1=0.8, weight_decay=0.1),
    "sam": by_hand("sam", lr=0.05, rho=0.1, momentum=0.9, adaptive=False),
    "adaptive sam": by_hand("sam", lr=0.05, rho=0.5, momentum=0.0, adaptive=True),
    "shampoo": by_hand("shampoo", lr=0.1, eps=0.001),
}

if __name__ == "__main__":
    record(FILE, RECIPES)
