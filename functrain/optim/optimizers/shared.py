"""What the named optimizers share: pieces that a 0 leaves out, and pieces for some parameters alone."""

from functrain.optim.arithmetic import is_zero
from functrain.optim.primitives import add_decayed_weights
from functrain.optim.transform import Transform
from functrain.optim.wrappers import masked
from functrain.optim.wrappers.claiming import Where
from functrain.schedule import Hyper


def decay_weights(weight_decay: Hyper, where: Where | None = None) -> Transform | None:
    """Return the piece that decays weights, all or some, None where the decay is the number 0.

    >>> decay_weights(0.0) is None, decay_weights(0.1)
    (True, add_decayed_weights(weight_decay=0.1))
    """
    return None if is_zero(weight_decay) else add_decayed_weights(weight_decay, where)


def of_some(where: Where | None, piece: Transform) -> Transform:
    """Return the piece for the parameters that are meant, None for all.

    >>> from functrain import optim
    >>> of_some("*.weight", optim.scale(0.5))
    masked('*.weight', scale(factor=0.5))
    """
    return piece if where is None else masked(where, piece)
