"""The inverse short-time Fourier transform asks whether its windows leave gaps; compiled, it asks when it runs."""

import pytest
import torch

from functrain.engine import grad, jit

SIGNAL = torch.randn(2, 400, generator=torch.Generator().manual_seed(0))
WINDOW = torch.hann_window(64)
SPECTRUM = torch.stft(SIGNAL, 64, 16, window=WINDOW, return_complex=True)
CASES = [
    lambda s, w: torch.istft(s, 64, 16, window=w),
    lambda s, w: s.istft(64, 16, window=w),
    lambda s, w: torch.istft(s, 64, 16, window=w, length=390),
    lambda s, w: torch.istft(s, 64, hop_length=16, win_length=64, window=w, normalized=True),
    lambda s, w: torch.istft(s[0], 64, 16, window=w * 2),
]


@pytest.mark.parametrize("f", CASES)
def test_the_window_may_be_an_argument(f):
    compiled = jit(f)
    assert torch.equal(compiled(SPECTRUM, WINDOW), f(SPECTRUM, WINDOW))
    assert torch.equal(compiled(SPECTRUM, WINDOW + 1), f(SPECTRUM, WINDOW + 1))
    assert len(compiled.traces) == 1


def test_the_window_may_be_closed_over():
    f = lambda s: torch.istft(s, 64, 16, window=WINDOW)  # noqa: E731
    assert torch.equal(jit(f)(SPECTRUM), f(SPECTRUM))


def test_a_window_with_gaps_is_an_error_compiled_as_it_is_in_eager_execution():
    compiled = jit(CASES[0])
    compiled(SPECTRUM, WINDOW)
    for f in (CASES[0], compiled):
        with pytest.raises(RuntimeError, match="window overlap add min: 1"):
            f(SPECTRUM, torch.zeros(64))


def test_its_gradient_by_the_window():
    f = lambda s, w: grad(lambda w: CASES[0](s, w).square().sum())(w)  # noqa: E731
    torch.testing.assert_close(jit(f)(SPECTRUM, WINDOW), f(SPECTRUM, WINDOW), rtol=1e-4, atol=1e-4)
