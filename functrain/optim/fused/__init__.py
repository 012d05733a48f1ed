"""Fast paths: the end of a chain that PyTorch has one kernel for, computed by it. A chain looks for one by itself.

`paths` says which pieces a kernel stands for and takes trees apart; `operator` makes an operation of a graph of it, and
`adam` and `sgd` have the kernels. Each equals the pieces that it stands for up to rounding, which is a law.
"""

from functrain.optim.fused.paths import fast_path

__all__ = ["fast_path"]
