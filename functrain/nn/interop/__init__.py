"""The ways to and from `torch.nn`."""

from functrain.nn.interop.state_dict import Report, from_state_dict, to_state_dict

__all__ = ["Report", "from_state_dict", "to_state_dict"]
