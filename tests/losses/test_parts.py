"""Losses with named parts: what they may return, and what is refused."""

import pytest
import torch

from functrain import losses
from functrain.errors import DtypeMismatch, InvalidArgument, NotATensor, ShapeMismatch

VALUES = torch.tensor([1.0, 2.0])


def test_a_tensor_is_the_loss_and_a_dict_has_it_first():
    assert losses.by_name(VALUES) == {"loss": VALUES}
    parts = losses.by_name({"a": VALUES + 1, "loss": VALUES, "b": VALUES.view(2, 1)})
    assert list(parts) == ["loss", "a", "b"] and parts["loss"] is VALUES


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (None, NotATensor, "a loss must return a tensor with one value per target, or a dict .* got NoneType"),
        ((VALUES, VALUES), NotATensor, "got tuple"),
        ({"a": VALUES}, InvalidArgument, "the parts of a loss must hold 'loss', the values that train; got 'a'"),
        ({}, InvalidArgument, "got nothing"),
        ({"loss": VALUES, 3: VALUES}, InvalidArgument, "must be named by strings, got 3"),
        ({"loss": 1.0}, NotATensor, r"the part 'loss' of a loss must be a tensor \(n, ...\), got float"),
        ({"loss": VALUES, "a": None}, NotATensor, "the part 'a' of a loss must be a tensor"),
        (VALUES.sum(), ShapeMismatch, "values must be one per example"),
        ({"loss": VALUES, "a": VALUES.sum()}, ShapeMismatch, "the part 'a' of a loss must be one per example"),
        (VALUES * 1j, DtypeMismatch, r"values must be real numbers, got torch.complex64; take their abs\(\)"),
        ({"loss": VALUES, "a": VALUES * 1j}, DtypeMismatch, "the part 'a' of a loss must be real numbers"),
    ],
)
def test_what_is_no_loss_is_refused(result, error, message):
    with pytest.raises(error, match=message):
        losses.by_name(result)
