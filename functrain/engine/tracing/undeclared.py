"""What PyTorch's schemas do not say: which operations write to an argument, or return memory of one, without a word.

Found by running every operation of PyTorch's own database and comparing bytes and storages around each call; the search
is repeated by `tests/conformance/test_schemas.py`.
"""

UNDECLARED_WRITES: dict[str, tuple[str, ...]] = {
    "aten::native_batch_norm": ("running_mean", "running_var"),
    "aten::cudnn_batch_norm": ("running_mean", "running_var"),
    "aten::miopen_batch_norm": ("running_mean", "running_var"),
}
"""Operation -> the names of arguments that it writes to, beyond those that its schema marks."""

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

UNDECLARED_ALIASES: dict[str, tuple[str, ...]] = {
    "aten::_unsafe_view": ("self",),
    "aten::unsafe_split.Tensor": ("self",),
    "aten::unsafe_split_with_sizes": ("self",),
    "aten::_conj_physical": ("self",),
}
"""Operation -> the names of arguments whose memory each of its results may share, beyond what its schema marks."""
