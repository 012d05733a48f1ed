"""A training step of a Llama (4 layers of width 256, 8 rows of 128 tokens)."""

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

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 688,
    "use_cache": False,
}
ENTRANTS = entrants(partial(transformer, "Llama", "ForCausalLM", **SIZES), next_tokens, logits)
