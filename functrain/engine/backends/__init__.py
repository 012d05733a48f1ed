"""From a graph to a function: PyTorch's operations one by one, machine code, or a CUDA graph."""

__all__: list[str] = []
