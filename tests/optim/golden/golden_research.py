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
    # Longer axes have moments of a lower rank here, and so bases that are not determined.
    "soap": by_hand("soap", lr=0.05, every=1, max_size=3, eps=1e-6, weight_decay=0.0),
    "soap with rare bases": by_hand(
        "soap", lr=0.05, every=3, max_size=2, betas=[0.9, 0.99], shampoo_beta=0.8, eps=1e-6, weight_decay=0.0
    ),
    "galore": by_hand("galore", lr=0.05, rank=1, every=100, scale=1.0, eps=1e-14),
    "galore with new directions": by_hand("galore", lr=0.05, rank=2, every=3, scale=0.5, eps=1e-14),
    "sophia": by_hand("sophia", lr=0.05, every=1, gamma=0.5, weight_decay=0.1),
    "sophia with a rare diagonal": by_hand("sophia", lr=0.1, every=3, b1=0.9, b2=0.8, gamma=0.2, clip_threshold=0.7),
}

if __name__ == "__main__":
    record(FILE, RECIPES)
