"""The ways to and from `torch.nn`."""

from functrain.nn.interop.model_module import to_module
from functrain.nn.interop.module_model import from_module
from functrain.nn.interop.state_dict import Report, from_state_dict, to_state_dict

__all__ = ["Report", "from_module", "from_state_dict", "to_module", "to_state_dict"]
