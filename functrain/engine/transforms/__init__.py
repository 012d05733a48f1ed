"""Functions to and from functions: gradients, vectorisation, folds, scans, rematerialisation, and a check of `jit`."""

__all__: list[str] = []
