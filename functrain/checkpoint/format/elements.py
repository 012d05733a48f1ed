"""The elements of tensors: how those of each dtype lie in a safetensors file, and their bytes in memory."""

import ctypes
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor


@attrs.frozen
class Stored:
    """How a file holds the elements of a dtype.

    Attributes:
        code: the name that safetensors has for what is stored.
        dtype: what is stored. Where it is another dtype than the tensor's, it is the same bytes looked at otherwise.
        pair: whether an element is a pair along one more axis, as the real and the imaginary part are.
    """

    code: str
    dtype: torch.dtype
    pair: bool = False

    @property
    def size(self) -> int:
        """The bytes of what is stored for one element."""
        return self.dtype.itemsize * (2 if self.pair else 1)


_NATIVE = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}

STORED = {
    **{dtype: Stored(code, dtype) for code, dtype in _NATIVE.items()},
    # safetensors has no name for these.
    torch.complex128: Stored("F64", torch.float64, pair=True),
    torch.complex32: Stored("F16", torch.float16, pair=True),
    torch.float8_e8m0fnu: Stored("U8", torch.uint8),
    torch.float4_e2m1fn_x2: Stored("U8", torch.uint8),
}
"""dtype -> how it is stored."""

if hasattr(torch, "bcomplex32"):  # from PyTorch 2.14 on
    STORED[torch.bcomplex32] = Stored("BF16", torch.bfloat16, pair=True)  # pyright: ignore

NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in STORED}
"""The name of a dtype in a manifest -> the dtype. Nothing else that a file names is ever looked up in torch."""


def name_of(dtype: torch.dtype) -> str:
    """Return the name of a dtype in a manifest.

    >>> name_of(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


def as_stored(tensor: Tensor) -> Tensor:
    """Return the elements of a tensor in the order and the dtype of a file, on the CPU; a copy only where it must be.

    >>> as_stored(torch.tensor([1 + 2j], dtype=torch.complex128))
    tensor([[1., 2.]], dtype=torch.float64)
    """
    stored = STORED[tensor.dtype]
    plain = tensor.resolve_conj().resolve_neg().cpu()
    looked_at = torch.view_as_real(plain) if stored.pair else plain.view(stored.dtype)
    return looked_at.contiguous()


def as_bytes(tensor: Tensor) -> memoryview:
    r"""Return the memory of a contiguous CPU tensor, which must be held as long as it is looked at.

    >>> x = torch.tensor([1, 2], dtype=torch.uint8)
    >>> bytes(as_bytes(x))
    b'\x01\x02'
    """
    size = tensor.numel() * tensor.element_size()
    if size == 0:
        return memoryview(b"")
    return memoryview((ctypes.c_char * size).from_address(tensor.data_ptr())).cast("B")


def lay_out(tensor: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Return a contiguous tensor, or a copy of it that has these strides.

    >>> lay_out(torch.ones(2, 3), (1, 2)).stride()
    (1, 2)
    """
    if tensor.stride() == stride:
        return tensor
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)


def is_dense(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Return whether a tensor of these strides has no gaps and no overlaps.

    >>> is_dense((2, 3), (1, 2)), is_dense((2, 3), (4, 1))
    (True, False)
    """
    expected = 1
    for step, size in sorted((step, size) for step, size in zip(stride, shape, strict=True) if size != 1):
        if step != expected and 0 not in shape:
            return False
        expected *= size
    return True


def dense_stride(tensor: Tensor) -> tuple[int, ...]:
    """Return the strides that a tensor comes back with: its own, or of one with gaps or overlaps those of its clone.

    >>> dense_stride(torch.ones(2, 3).T), dense_stride(torch.ones(4, 3)[:, :2])
    ((1, 3), (2, 1))
    """
    if is_dense(tensor.shape, tensor.stride()):
        return tensor.stride()
    # Of bytes, because PyTorch warns of complex32, and a stride does not depend on the dtype.
    like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=torch.uint8, device="meta")
    return torch.empty_like(like).stride()
