"""What the named optimizers share: pieces that a 0 leaves out."""

from functrain.optim.arithmetic import is_zero
from functrain.optim.primitives import add_decayed_weights
from functrain.optim.transform import Transform
from functrain.schedule import Hyper


def decay(weight_decay: Hyper) -> Transform | None:
    """Return the piece that decays weights, None where the decay is the number 0.

    >>> decay(0.0) is None, decay(0.1)
    (True, add_decayed_weights(weight_decay=0.1))
    """
    return None if is_zero(weight_decay) else add_decayed_weights(weight_decay)
