"""What the schemas of aten operations do not say: writes and shared memory.

Found by `python -m tests.conformance.schemas` (PyTorch 2.13 on the CPU), where conditions are read off its examples.
"""

UNDECLARED_WRITES: dict[str, tuple[str, ...]] = {
    "aten.native_batch_norm.default": ("running_mean", "running_var"),  # in training, where they are given
    "aten.native_batch_norm.out": ("running_mean", "running_var"),  # in training, where they are given
    "aten.batch_norm_update_stats.default": ("running_mean", "running_var"),  # where they are given
    "aten.mkldnn_rnn_layer_backward.default": ("workspace",),  # as scratch: gradients from it written once are the same
}
"""Overload -> the arguments it writes and does not mark as written."""

UNDECLARED_ALIASES: dict[str, tuple[tuple[str | int, int], ...]] = {
    "aten._unsafe_view.default": (("self", 0),),  # always
    "aten.unsafe_split.Tensor": (("self", 0),),  # always, all of its list
    "aten.unsafe_split_with_sizes.default": (("self", 0),),  # always, all of its list
    "aten.lift.default": (("self", 0),),  # always: returns its argument
    "aten.dequantize.self": (("self", 0),),  # returns its argument where that is float32
    "aten.set_.source_Tensor": (("source", 0),),  # always, and from then on `self` shares it too
    "aten.set.source_Tensor": (("source", 0),),  # always
    "aten._transform_bias_rescale_qkv.default": ((0, 1), (0, 2), (1, 2)),  # always: one block of memory cut in three
}
"""Overload -> pairs that share memory: the argument (name) or return (position), and the return (position)."""
