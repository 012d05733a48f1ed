"""The default backend: straight-line Python that calls PyTorch's operations."""

from functrain.engine.backends.aten.source import compile

__all__ = ["compile"]
