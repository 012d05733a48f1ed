"""The state of an optimizer takes no more memory than PyTorch's."""

import pytest
import torch

from functrain import optim, tree

SHAPES = [(64, 32), (64,), (10, 64)]

PAIRS = {
    "sgd": (optim.sgd(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (optim.sgd(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    "adam": (optim.adam(), torch.optim.Adam),
    "adamw": (optim.adamw(), torch.optim.AdamW),
    "amsgrad": (optim.amsgrad(), lambda p: torch.optim.Adam(p, amsgrad=True)),
    "adamax": (optim.adamax(), torch.optim.Adamax),
    "nadam": (optim.nadam(), torch.optim.NAdam),
    "radam": (optim.radam(), torch.optim.RAdam),
    "rmsprop": (optim.rmsprop(0.1), torch.optim.RMSprop),
    "adagrad": (optim.adagrad(), torch.optim.Adagrad),
    "adadelta": (optim.adadelta(), torch.optim.Adadelta),
    "adafactor": (optim.adafactor(), torch.optim.Adafactor),
    "rprop": (optim.rprop(), torch.optim.Rprop),
    "asgd": (optim.asgd(), torch.optim.ASGD),
}


def bytes_of(tensors):
    return sum(t.numel() * t.itemsize for t in tensors if isinstance(t, torch.Tensor))


@pytest.mark.parametrize("name", PAIRS)
def test_the_state_takes_the_memory_of_pytorchs(name):
    ours, make = PAIRS[name]
    params = {str(k): torch.randn(shape) for k, shape in enumerate(SHAPES)}
    theirs = [leaf.clone().requires_grad_() for leaf in params.values()]
    for leaf in theirs:
        leaf.grad = torch.ones_like(leaf)
    optimizer = make(theirs)
    optimizer.step()
    kept = bytes_of(value for state in optimizer.state.values() for value in state.values())
    state = tree.leaves(ours.init(params))
    assert bytes_of(state) <= kept + 16  # our count of updates, and a product of NAdam's
    assert bytes_of(leaf for leaf in state if leaf.dim()) == bytes_of(
        value for state in optimizer.state.values() for value in state.values() if getattr(value, "dim", int)()
    )
