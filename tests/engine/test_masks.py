"""Writes through masks, whose number of rows depends on values: right where the shape of the result does not."""

import pytest
import torch

from functrain.engine import jit
from functrain.errors import NotTraceable

ROWS = torch.arange(6.0).view(2, 3)
TRUE, FALSE = torch.tensor(True), torch.tensor(False)


def written(x, mask, value, *, at=lambda mask: mask):
    y = x.clone()
    y[at(mask)] = value
    return y


PLACES = [
    lambda m: m,
    lambda m: (m,),
    lambda m: (m, ...),
    lambda m: (..., m),
    lambda m: (slice(0, 1), m),
    lambda m: (slice(None), slice(1, 3), m),
    lambda m: (m, 0),
    lambda m: (1, m, 0),
    lambda m: (None, 0, m),
    lambda m: (-1, ..., m, slice(None, None, 2)),
]
VALUES = [5.0, 2, torch.tensor(7.0), torch.ones(1), torch.full((1, 1, 1), 3.0)]


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("value", VALUES)
def test_a_mask_of_no_axes_writes_what_eager_execution_writes(at, value):
    f = jit(lambda x, m, v: written(x, m, v, at=at))
    for mask in (TRUE, FALSE, TRUE):
        assert torch.equal(f(ROWS, mask, value), written(ROWS, mask, value, at=at))
    assert len(f.traces) == 1


@pytest.mark.parametrize("value", [torch.ones(3), torch.ones(2, 3), torch.ones(1, 2, 3)])
def test_a_mask_of_no_axes_broadcasts_its_value(value):
    for mask in (TRUE, FALSE):
        assert torch.equal(jit(written)(ROWS, mask, value), written(ROWS, mask, value))


CUBE = torch.arange(24.0).view(2, 3, 4)
BYTE, ONE = torch.tensor(2, dtype=torch.uint8), torch.tensor(1)
SEVERAL = {
    "two": ((TRUE, FALSE), lambda m, n: (m, n)),
    "both true": ((TRUE, TRUE), lambda m, n: (slice(None), m, slice(None), n)),
    "before a number": ((TRUE, ONE), lambda m, k: (m, k)),
    "behind a number": ((ONE, FALSE), lambda k, m: (k, m)),
    "apart from a number": ((TRUE, ONE), lambda m, k: (m, ..., k, slice(1, 2))),
    "a byte": ((BYTE,), lambda m: m),
    "a byte of zero": ((BYTE * 0,), lambda m: (m, 0)),
    "a byte and a number": ((BYTE, ONE), lambda m, k: (slice(None), m, k)),
}


@pytest.mark.parametrize("value", [*VALUES, torch.ones(4), torch.ones(1, 3, 4), torch.ones(4, dtype=torch.int64), 1j])
@pytest.mark.parametrize("name", SEVERAL)
def test_several_masks_bytes_and_numbers_write_what_eager_execution_writes_errors_included(name, value):
    indices, at = SEVERAL[name]

    def f(x, v, *indices):
        y = x.clone()
        y[at(*indices)] = v
        return y

    try:
        expected = f(CUBE, value, *indices)
    except RuntimeError:
        with pytest.raises(RuntimeError, match=r"shape mismatch|must match the size|dtypes match|cannot be converted"):
            jit(f)(CUBE, value, *indices)
        return
    assert torch.equal(jit(f)(CUBE, value, *indices), expected)


def test_axes_of_a_value_that_belong_to_those_of_masks_are_refused_in_words():
    with pytest.raises(NotTraceable, match="Python looks at the values"):
        jit(lambda x, m, v: written(x, m, v, at=lambda m: (slice(None), m, m)))(ROWS, TRUE, torch.ones(2, 1, 3))


def test_rows_by_a_byte_are_refused_as_a_shape_that_depends_on_values():
    with pytest.raises(NotTraceable, match="the shape of a result depends on the values"):
        jit(lambda x, k: x[k])(ROWS, BYTE)


@pytest.mark.parametrize("value", [torch.ones(2), torch.ones(4), torch.ones(2, 2, 3), torch.ones(3, dtype=torch.int64)])
def test_what_does_not_fit_is_an_error_as_in_eager_execution(value):
    for call in (written, jit(written)):
        with pytest.raises((RuntimeError, IndexError), match=r"shape mismatch|dtypes? match|expand"):
            call(ROWS, TRUE, value)


def test_a_number_without_axes_is_written_through_a_mask_of_none():
    for mask in (TRUE, FALSE):
        assert jit(written)(torch.tensor(1.0), mask, 9.0) == written(torch.tensor(1.0), mask, 9.0)


def test_reading_through_a_mask_of_no_axes_is_refused_as_a_shape_that_depends_on_values():
    with pytest.raises(NotTraceable, match="the shape of a result depends on the values"):
        jit(lambda x, m: x[m])(ROWS, TRUE)
    assert torch.equal(jit(lambda x: x[TRUE] * 2)(ROWS), ROWS[None] * 2)  # closed over, its value may be asked for


def test_with_other_index_tensors_a_mask_of_no_axes_is_refused_in_words():
    with pytest.raises(NotTraceable, match="Python looks at the values"):
        jit(lambda x, m: written(x, m, 1.0, at=lambda m: (m, torch.tensor([0]))))(ROWS, TRUE)


def test_as_many_values_as_a_mask_has_elements_are_counted_when_it_runs():
    f = jit(written)
    for mask in (ROWS > 2, ROWS < 3, ROWS % 2 == 0):
        assert torch.equal(f(ROWS, mask, torch.ones(3)), written(ROWS, mask, torch.ones(3)))
    assert len(f.traces) == 1
    with pytest.raises(RuntimeError, match="shape mismatch"):
        f(ROWS, ROWS > 3, torch.ones(3))
