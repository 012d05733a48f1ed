"""Trajectories of optax's wrappers in float64: run it with optax to write golden_wrappers.json.

The problem is simple enough to state twice: the gradient at p is p + sin(t + i) in step t, for element i.
"""

import hashlib
import json
import math
from pathlib import Path

HERE = Path(__file__).parent
STEPS = 24
BEGIN = {"a": [1.0, -2.0, 0.5], "b": [3.0]}
LOSSES = [5.0, 4.0, 3.0, 3.0, 2.9999, 3.5, 2.0, 2.0, 2.0, 2.0, 1.0, 1.5, 1.2, 1.1, 0.9, 0.95, 0.9, 0.9, 0.9, 0.9, 0.9]
LOSSES = [*LOSSES, 0.5, 0.6, 0.7]
BAD = {3, 7, 8, 9, 15}
"""Steps whose gradients are NaN, for apply_if_finite with at most two in a row."""


def noise(name, step):
    return [math.sin(step + i + len(name)) for i in range(len(BEGIN[name]))]


def trajectories():
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    import optax

    def run(optimizer, lookahead=False, bad=(), **extra):
        params = {name: jnp.array(value) for name, value in BEGIN.items()}
        params = optax.LookaheadParams.init_synced(params) if lookahead else params
        state, fast = optimizer.init(params), (lambda p: p.fast) if lookahead else (lambda p: p)
        course = []
        for step in range(STEPS):
            scale = math.nan if step in bad else 1.0
            grads = {name: scale * (p + jnp.array(noise(name, step))) for name, p in fast(params).items()}
            more = {"value": LOSSES[step]} if extra else {}
            updates, state = optimizer.update(grads, state, params, **more)
            params = optax.apply_updates(params, updates)
            course.append({name: [float(x) for x in p] for name, p in fast(params).items()})
        return course

    plateau = optax.contrib.reduce_on_plateau(0.5, patience=2, rtol=1e-3, cooldown=1, accumulation_size=1)
    pairs = optax.contrib.reduce_on_plateau(0.5, patience=2, rtol=1e-3, accumulation_size=2, min_scale=0.3)
    return {
        "lookahead": run(optax.lookahead(optax.adam(0.1), 4, 0.6), lookahead=True),
        "flatten": run(optax.flatten(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)))),
        "apply_if_finite": run(optax.apply_if_finite(optax.adam(0.1), 4), bad=BAD),
        "masked": run(
            optax.chain(optax.masked(optax.add_decayed_weights(0.5), {"a": True, "b": False}), optax.sgd(0.1))
        ),
        "inject": run(optax.inject_hyperparams(optax.adam, hyperparam_dtype=jnp.float64)(learning_rate=0.1, b1=0.8)),
        "plateau": run(optax.chain(optax.sgd(0.1), plateau), loss=True),
        "plateau of pairs": run(optax.chain(optax.sgd(0.1), pairs), loss=True),
    }


def digest():
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


if __name__ == "__main__":
    import jax
    import optax

    result = {"recipe": digest(), "optax": optax.__version__, "jax": jax.__version__, "courses": trajectories()}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result).replace('], "', '],\n"') + "\n")
