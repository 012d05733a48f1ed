"""The conformance of `jit` to PyTorch's own database of operators, `op_db`. README.md says how to run it."""
