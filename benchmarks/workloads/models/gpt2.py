"""A training step of a GPT-2 with dropout (4 layers of width 256, 8 rows of 128 tokens)."""

from functools import partial

from benchmarks.workloads._modules import (
    TARGETS,
    TOLERANCE,
    UNIT,
    VOCABULARY,
    entrants,
    logits,
    next_tokens,
    transformer,
)

__all__ = ["ENTRANTS", "TARGETS", "TOLERANCE", "UNIT"]

SIZES = {"vocab_size": VOCABULARY, "n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 128, "use_cache": False}
ENTRANTS = entrants(partial(transformer, "GPT2", "LMHeadModel", **SIZES), next_tokens, logits)
