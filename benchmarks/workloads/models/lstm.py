"""A training step of an LSTM of torch.nn, with dropout between its 2 layers of width 256 (8 rows of 128 tokens)."""

import torch
from torch import Tensor, nn

from benchmarks.workloads._modules import TARGETS, TOLERANCE, UNIT, VOCABULARY, entrants, next_tokens

__all__ = ["ENTRANTS", "TARGETS", "TOLERANCE", "UNIT"]

WIDTH = 256


class Language(nn.Module):
    """A language model by an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, num_layers=2, dropout=0.2, batch_first=True)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the logits of each next token."""
        hidden, _ = self.lstm(self.embed(input_ids))
        return self.head(torch.relu(hidden))


ENTRANTS = entrants(Language, next_tokens)
