"""Values of optax's schedules, for schedules that PyTorch has not: run it with optax to write golden_schedules.json.

JAX computes them in float64. The file holds the versions and a digest of this recipe.
"""

import hashlib
import json
from pathlib import Path

STEPS = 40
HERE = Path(__file__).parent


def values():
    import jax

    jax.config.update("jax_enable_x64", True)
    import optax

    made = {
        "warmup_cosine": optax.warmup_cosine_decay_schedule(0.1, 1.0, 10, STEPS, end_value=0.2),
        "cosine_exponent": optax.cosine_decay_schedule(0.5, STEPS, alpha=0.1, exponent=2.0),
        "exponential_staircase": optax.exponential_decay(0.5, 10, 0.5, staircase=True),
        "exponential_begin_clipped": optax.exponential_decay(0.5, 10, 0.5, transition_begin=8, end_value=0.2),
        "polynomial_begin": optax.polynomial_schedule(1.0, 0.1, 2.0, 32, transition_begin=8),
        "piecewise_constant": optax.piecewise_constant_schedule(1.0, {11: 0.5, 30: 0.1}),
        "piecewise_linear": optax.piecewise_interpolate_schedule("linear", 1.0, {11: 0.5, 30: 4.0, 40: 0.1}),
        "piecewise_cosine": optax.piecewise_interpolate_schedule("cosine", 1.0, {11: 0.5, 30: 4.0, 40: 0.1}),
        "linear_onecycle": optax.linear_onecycle_schedule(STEPS, 0.5, 0.3, 0.85, 20.0, 1e3),
        "cosine_onecycle": optax.cosine_onecycle_schedule(STEPS, 0.5, 0.3, 20.0, 1e3),
        "sgdr": optax.sgdr_schedule(
            [
                {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 4, "decay_steps": 20},
                {"init_value": 0.1, "peak_value": 0.5, "warmup_steps": 4, "decay_steps": 20},
            ]
        ),
        "warmup_exponential": optax.warmup_exponential_decay_schedule(0.0, 1.0, 8, 10, 0.5),
    }
    return {name: [float(f(step)) for step in range(STEPS + 1)] for name, f in made.items()}


def digest():
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


if __name__ == "__main__":
    import jax
    import optax

    result = {"recipe": digest(), "optax": optax.__version__, "jax": jax.__version__, "values": values()}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result).replace('], "', '],\n"') + "\n")
