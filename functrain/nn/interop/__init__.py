"""Any `torch.nn.Module` as a pure function, and back."""

from functrain.nn.interop.model_module import to_module
from functrain.nn.interop.module_model import from_module

__all__ = ["from_module", "to_module"]
