"""A training step of a BERT with dropout (4 layers of width 256, 8 rows of 128 tokens)."""

from functools import partial

from benchmarks.workloads._modules import TARGETS, TOLERANCE, UNIT, VOCABULARY, entrants, logits, tokens, transformer

__all__ = ["ENTRANTS", "TARGETS", "TOLERANCE", "UNIT"]

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
}
ENTRANTS = entrants(partial(transformer, "Bert", "ForSequenceClassification", **SIZES), tokens, logits)
