"""Models changed after they are made: parts frozen, adapted in few dimensions.

Each takes a model and returns one, for layers of functrain's own and for `from_module` alike.
"""

from functrain.nn.surgery.adapting import lora
from functrain.nn.surgery.freezing import freeze
from functrain.nn.surgery.merging import merge

__all__ = ["freeze", "lora", "merge"]
