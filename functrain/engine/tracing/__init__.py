"""From a function to a graph: the function runs on tensors without memory, and each operation is recorded."""

__all__: list[str] = []
