"""Copies of tensors that keep their memory layout, or have another one; and whether memory has changed."""

from collections.abc import Callable

import torch
from torch import Tensor


def is_plain(t: Tensor) -> bool:
    """Return whether a tensor is a view of one storage, so that its layout can be chosen."""
    known = type(t) in (Tensor, torch.nn.Parameter) and t.device.type == "cpu"
    return known and t.layout is torch.strided and not t.is_nested


def copies(tensors: list[Tensor]) -> list[Tensor]:
    """Return copies with the same strides and offsets; what shares a storage shares one again."""
    storages: dict[int, torch.UntypedStorage] = {}
    return [_copy(t, storages) for t in tensors]


def _copy(t: Tensor, storages: dict[int, torch.UntypedStorage]) -> Tensor:
    if not is_plain(t):
        return t.clone()
    storage = t.untyped_storage()
    if storage._cdata not in storages:
        storages[storage._cdata] = storage.clone()
    new = torch.empty(0, dtype=t.dtype).set_(storages[storage._cdata], t.storage_offset(), t.shape, t.stride())
    new = torch._conj(new) if t.is_conj() else new
    return torch._neg_view(new) if t.is_neg() else new


def memory(tensors: list[Tensor]) -> list[Tensor]:
    """Return all bytes of the storages of tensors, those that no element shows included."""
    return [torch.empty(0, dtype=torch.uint8).set_(t.untyped_storage().clone()) for t in tensors if is_plain(t)]


def reversed_values(tensors: list[Tensor]) -> list[Tensor] | None:
    """Return copies whose real and complex values stand in reverse order, or None where no tensor can be so.

    A second call with other values shows what a trace took for a constant. Indices stay, as others may be illegal.
    """
    new = copies(tensors)
    fit = [t for t in new if is_plain(t) and (t.is_floating_point() or t.is_complex()) and t.numel() > 1]
    fit = [t for t in fit if not _overlaps(t)]
    for t in fit:
        t.copy_(t.flip(list(range(t.dim()))))
    return new if fit else None


def _overlaps(t: Tensor) -> bool:
    return any(step == 0 and size > 1 for step, size in zip(t.stride(), t.shape, strict=True))


def _transposed(t: Tensor) -> Tensor:
    return t.mT.contiguous().mT if t.dim() >= 2 else t


def _channels_last(t: Tensor) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return t.contiguous(memory_format=formats[t.dim()]) if t.dim() in formats else t


def _expanded(t: Tensor) -> Tensor:
    # This changes values. Where the operator then refuses them (no longer positive definite, say), eager does so too.
    axis = next((k for k, size in enumerate(t.shape) if size > 1), None)
    return t if axis is None else t.narrow(axis, 0, 1).clone().expand(t.shape)


def _sliced(t: Tensor) -> Tensor:
    if t.dim() == 0:
        return t
    wide = torch.ones(*t.shape[:-1], 2 * t.shape[-1], dtype=t.dtype)
    wide[..., ::2] = t
    return wide[..., ::2]


def _offset(t: Tensor) -> Tensor:
    wide = torch.ones(t.numel() + 3, dtype=t.dtype)
    wide[3:] = t.reshape(-1)
    return wide[3:].view(t.shape)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": _transposed,
    "channels_last": _channels_last,
    "expanded": _expanded,
    "sliced": _sliced,
    "offset": _offset,
}


def laid_out(tensors: list[Tensor], layout: str) -> list[Tensor] | None:
    """Return the tensors in another layout, or None where it changes none of them."""
    fits = [is_plain(t) and t.numel() > 0 for t in tensors]
    new = [LAYOUTS[layout](t) if fit else t for t, fit in zip(tensors, fits, strict=True)]
    return new if any(a is not b and _place(a) != _place(b) for a, b in zip(tensors, new, strict=True)) else None


def _place(t: Tensor) -> tuple:
    return t.stride(), t.storage_offset()
