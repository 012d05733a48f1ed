"""The backend that compiles to machine code, with PyTorch's Inductor."""

from functrain.engine.backends.inductor.compiling import compile

__all__ = ["compile"]
