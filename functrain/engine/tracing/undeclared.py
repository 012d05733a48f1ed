"""What PyTorch's schemas do not say: which operations write to an argument, or return memory of one, without a word.

Found by running every operation of PyTorch's own database and comparing bytes and storages around each call; the search
is repeated by `tests/conformance/test_schemas.py`.
"""

UNDECLARED_WRITES: dict[str, tuple[str, ...]] = {
    "aten.native_batch_norm.default": ("running_mean", "running_var"),  # in training, where they are given
    "aten.native_batch_norm.out": ("running_mean", "running_var"),  # in training, where they are given
    "aten.batch_norm_update_stats.default": ("running_mean", "running_var"),  # where they are given
    "aten.mkldnn_rnn_layer_backward.default": ("workspace",),  # as scratch: gradients from it written once are the same
}
"""Overload -> the arguments that it writes and does not mark as written."""

ON_OTHER_DEVICES: dict[str, tuple[str, ...]] = {
    "aten.cudnn_batch_norm.default": ("running_mean", "running_var"),
    "aten.miopen_batch_norm.default": ("running_mean", "running_var"),
}
"""The same for overloads that no CPU runs, by their documentation."""

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

QUIET: dict[str, tuple[str, object]] = {
    "aten::native_batch_norm": ("training", False),
    "aten::cudnn_batch_norm": ("training", False),
    "aten::miopen_batch_norm": ("training", False),
    "aten::_native_batch_norm_legit": ("training", False),
    "aten::_native_batch_norm_legit_functional": ("training", False),
    "aten::rrelu_with_noise": ("training", False),
    "aten::rrelu_with_noise_functional": ("training", False),
    "aten::_scaled_dot_product_flash_attention_for_cpu": ("dropout_p", 0.0),
    "aten::_scaled_dot_product_flash_attention": ("dropout_p", 0.0),
    "aten::_scaled_dot_product_efficient_attention": ("dropout_p", 0.0),
    "aten::_scaled_dot_product_cudnn_attention": ("dropout_p", 0.0),
    "aten::_scaled_dot_product_fused_attention_overrideable": ("dropout_p", 0.0),
    "aten::_flash_attention_forward": ("dropout_p", 0.0),
    "aten::_efficient_attention_forward": ("dropout_p", 0.0),
    "aten::_cudnn_rnn": ("dropout", 0.0),
    "aten::miopen_rnn": ("dropout", 0.0),
    "aten::native_dropout": ("train", False),
}
"""Operation -> an argument, and its value with which the operation neither writes nor draws, although it could."""
