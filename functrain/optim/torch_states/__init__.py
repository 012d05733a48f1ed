"""States of torch.optim read and written, so that a run can move either way.

`slots` says what torch.optim calls what our pieces keep, and walks through a state; `reading` and `writing` are the two
ways; `history` is the state of L-BFGS, which is one of all parameters.
"""

from functrain.optim.torch_states.reading import from_torch
from functrain.optim.torch_states.writing import to_torch

__all__ = ["from_torch", "to_torch"]
