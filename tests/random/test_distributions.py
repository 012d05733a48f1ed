"""Distributions, over a million draws of fixed keys."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import vmap

from functrain import random
from functrain.engine import jit
from functrain.random import choices, drawing
from functrain.random.kinds import multiply_high
from functrain.random.philox import MASK
from tests.random.bands import assert_moments, chi_square, kolmogorov_smirnov, normal_cdf

MILLION = 10**6
HALF, BRAIN, DOUBLE = torch.float16, torch.bfloat16, torch.float64
word = st.integers(0, MASK)


def test_each_bit_is_fair_and_words_are_independent_of_the_next():
    words = random.bits(random.key(1), MILLION)
    for bit in range(32):
        ones = (words >> bit) & 1
        assert abs(ones.float().mean().item() - 0.5) < 4 * 0.5 / 1000
        assert abs((ones[1:] ^ ones[:-1]).float().mean().item() - 0.5) < 4 * 0.5 / 1000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_is_uniform(dtype):
    draws = random.uniform(random.key(2), MILLION, dtype=dtype)
    assert draws.dtype is dtype and draws.min() >= 0 and draws.max() < 1
    assert_moments(draws, 1 / 2, 1 / 12, 1 / 80)
    assert kolmogorov_smirnov(draws, lambda x: x) < 1.95


def test_uniform_between():
    draws = random.uniform(random.key(4), MILLION, -3.0, 5.0)
    assert kolmogorov_smirnov(draws, lambda x: (x + 3) / 8) < 1.95


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE, HALF, BRAIN])
@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (-3.0, -2.0), (0.1, 0.3), (100.0, 101.0)])
def test_uniform_never_reaches_high(low, high, dtype):
    draws = random.uniform(random.key(5), 50_000, low, high, dtype)
    low, high = torch.tensor(low, dtype=dtype), torch.tensor(high, dtype=dtype)
    assert draws.dtype is dtype and draws.min() >= low and draws.max() < high


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_is_normal(dtype):
    draws = random.normal(random.key(6), MILLION, dtype)
    assert draws.dtype is dtype
    assert_moments(draws, 0, 1, 3)
    assert kolmogorov_smirnov(draws, normal_cdf) < 1.95


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float32, 5.42), (DOUBLE, 8.29), (HALF, 5.42), (BRAIN, 5.41)])
def test_the_largest_normal_draws_are_finite(dtype, largest):
    # The extreme words, through the same function that finishes a draw.
    extremes = torch.tensor([0, MASK])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "few", lambda key, count, bits, finish, lane: finish(*(extremes,) * (bits // 32)))
        found = random.normal(random.key(0), 2, dtype).tolist()
    assert found[0] == -found[1] and abs(found[0]) == pytest.approx(largest, abs=0.01)


@pytest.mark.parametrize(
    ("low", "high"), [(-2.0, 2.0), (-math.inf, math.inf), (1.0, 3.0), (-0.1, 0.2), (6.0, 6.5), (-9.0, -7.0)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_truncated_normal_is_normal_between_its_limits(low, high, dtype):
    draws = random.truncated_normal(random.key(7), MILLION // 4, low, high, dtype)
    assert draws.dtype is dtype and draws.min() >= low and draws.max() < high and torch.isfinite(draws).all()
    sign = -1 if low > 0 else 1  # the lower tail, where probabilities have digits to tell them apart
    ends = normal_cdf(torch.tensor([sign * low, sign * high], dtype=DOUBLE).sort().values)
    assert kolmogorov_smirnov(sign * draws, lambda x: (normal_cdf(x) - ends[0]) / (ends[1] - ends[0])) < 1.95


@pytest.mark.parametrize("dtype", [HALF, BRAIN])
def test_truncated_normal_of_16_bits_keeps_to_its_limits(dtype):
    draws = random.truncated_normal(random.key(8), 50_000, -1.0, 1.0, dtype)
    assert draws.dtype is dtype and draws.min() >= -1 and draws.max() < 1


@pytest.mark.parametrize(("p", "keys"), [(1e-9, 4000), (3e-8, 400), (2**-25, 400), (1e-6, 40)])
def test_a_small_probability_has_its_rate(p, keys):
    # The first 16 bits are 0 in one of 65,536 elements; there the second word decides. So it is enough to count, over
    # many keys, the words of the second stream that are below p, and to compare whole draws with that rule elsewhere.
    made = vmap(lambda key: random.drawing.draw(key, (1000,), "words", [], torch.int64, 1))(
        random.split(random.key(20), keys)
    )
    expected = p * 2**16 * made.numel()
    assert abs(int((made < round(p * 2**48)).sum()) - expected) < 4.5 * math.sqrt(expected)


def test_a_small_probability_is_counted_over_whole_draws():
    counts = [int(random.bernoulli(random.key(seed), 2e-6, MILLION).sum()) for seed in range(40)]
    assert abs(sum(counts) - 80) < 4.5 * math.sqrt(80)


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.3, 0.5, 1.0])
def test_bernoulli_is_true_with_probability_p(p):
    share = random.bernoulli(random.key(9), p, MILLION).double().mean().item()
    assert abs(share - p) <= 4 * math.sqrt(p * (1 - p) / MILLION)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 2), (-3, 4), (5, 6), (0, 1000), (2**40, 2**40 + 10), (-(2**63), -(2**63) + 7)]
)
def test_randint_is_uniform(low, high):
    draws = random.randint(random.key(10), MILLION, low, high) - low
    assert draws.dtype is torch.int64 and draws.min() >= 0 and draws.max() < high - low
    counts = draws.bincount(minlength=high - low)
    assert high - low == 1 or abs(chi_square(counts, torch.full_like(counts, 1) / (high - low))) < 4


@pytest.mark.parametrize(("low", "high"), [(0, 3 * 2**61), (-(2**63), 2**63 - 1), (-(2**40), 2**33 + 12345)])
def test_randint_over_a_wide_range(low, high):
    draws = random.randint(random.key(11), 100_000, low, high)
    assert draws.min() >= low and draws.max() < high
    assert kolmogorov_smirnov(draws, lambda x: (x - low) / (high - low)) < 1.95


@given(word, word, st.integers(1, 2**64 - 1))
@settings(max_examples=50, deadline=None)
def test_randint_multiplies_exactly(high, low, size):
    product = multiply_high(torch.tensor(high), torch.tensor(low), size if size <= 2**31 else wrap(size))
    assert product.item() % 2**64 == ((high << 32 | low) * size) >> 64


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(1, 2**64 - 1))
@settings(max_examples=100, deadline=None)
def test_randint_of_a_wide_range_multiplies_128_bits_exactly(first, second, size):
    wanted = ((first << 64 | second) * size) >> 128
    for given_size in (size, wrap(size)):
        assert choices._product(wrap(first), wrap(second), given_size).item() % 2**64 == wanted


@pytest.mark.parametrize("size", [3 * 2**61, 3 * 2**62, 5 * 2**61, 2**64 - 1])
def test_randint_over_nearly_all_integers_favours_none(size):
    # With 64 bits, of the numbers below 3 * 2**62 every third came twice as often as the others.
    counts = (random.randint(random.key(19), 300_000, -(2**63), -(2**63) + size) % 3).bincount(minlength=3)
    assert abs(chi_square(counts, torch.ones(3) / 3)) < 6


def wrap(number):
    return torch.tensor(number - 2**64 if number >= 2**63 else number)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 1000])
def test_a_permutation_holds_each_once(n):
    assert torch.equal(random.permutation(random.key(12), n).sort().values, torch.arange(n))


def test_all_permutations_are_equally_likely():
    orders = vmap(lambda key: random.permutation(key, 4))(random.split(random.key(13), 48_000))
    counts = (orders * torch.tensor([64, 16, 4, 1])).sum(1).bincount()
    counts = counts[counts > 0]
    assert counts.numel() == 24 and abs(chi_square(counts, torch.ones(24) / 24)) < 4


def test_a_permutation_of_rows_keeps_rows():
    rows = torch.arange(20.0).view(10, 2)
    key = random.key(14)
    assert torch.equal(random.permutation(key, rows), rows[random.permutation(key, 10)])


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_categorical_has_the_probabilities_of_softmax(dtype):
    logits = torch.tensor([2.0, -math.inf, 0.0, -5.0, 1.0], dtype=dtype)
    counts = random.categorical(random.key(15), logits, MILLION // 2).bincount(minlength=5)
    there = torch.tensor([0, 2, 3, 4])
    assert counts[1] == 0 and abs(chi_square(counts[there], logits.softmax(0)[there])) < 4


@pytest.mark.parametrize(
    ("dtype", "base", "step"), [(torch.float32, 1e8, 8.0), (DOUBLE, 1e16, 2.0), (DOUBLE, 1e8, 8.0)]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_categorical_of_large_logits_is_softmax_too(dtype, base, step, sign):
    logits = sign * base + torch.tensor([0.0, 0.0, step], dtype=dtype)
    counts = random.categorical(random.key(22), logits, MILLION // 2).bincount(minlength=3)
    assert abs(chi_square(counts, torch.tensor([0.0, 0.0, step], dtype=DOUBLE).softmax(0))) < 4


@pytest.mark.parametrize("dtype", [HALF, BRAIN, torch.float32, DOUBLE])
def test_categorical_does_not_depend_on_a_constant(dtype):
    logits = torch.tensor([1.0, -2.0, 0.5, -math.inf], dtype=dtype)
    key = random.key(23)
    wanted = random.categorical(key, logits, 9999)
    assert torch.equal(random.categorical(key, logits + 16, 9999), wanted)
    assert torch.equal(random.categorical(key, logits - 16, 9999), wanted)


ROWS = torch.tensor([[0.0, 1.0], [-math.inf, -math.inf], [math.nan, 0.0], [math.inf, 0.0], [-math.inf, 5.0]])


def test_where_no_class_can_be_drawn_a_trace_gives_the_number_of_classes():
    key = random.key(24)
    wanted = random.categorical(key, ROWS[[0, 4]], (2,)).tolist()
    for run in (jit(random.categorical), lambda key, rows: vmap(random.categorical, (None, 0))(key, rows[None])[0]):
        found = run(key, ROWS)
        assert found[1:4].tolist() == [2, 2, 2] and found[4] == wanted[1] == 1 and found[0] in (0, 1)


def test_categorical_shapes_and_axes():
    logits = random.normal(random.key(16), (3, 4, 5))
    key = random.key(17)
    assert random.categorical(key, logits).shape == (3, 4)
    assert random.categorical(key, logits, axis=0).shape == (4, 5)
    assert random.categorical(key, logits, (7, 3, 4)).shape == (7, 3, 4)
    assert torch.equal(random.categorical(key, logits, axis=1), random.categorical(key, logits.movedim(1, -1)))
    certain = torch.full((3, 4), -math.inf).index_put((torch.arange(3), torch.tensor([2, 0, 3])), torch.zeros(3))
    assert random.categorical(key, certain, (50, 3)).unique(dim=0).tolist() == [[2, 0, 3]]


@pytest.mark.parametrize("derive", [lambda key: random.split(key), lambda key: random.fold_in(key, torch.arange(2))])
def test_draws_of_derived_keys_are_not_correlated(derive):
    key = random.key(18)
    a, b, c = (random.normal(k, 100_000).double() for k in (key, *derive(key)))
    for x, y in ((a, b), (b, c), (a, c)):
        assert abs((x * y).mean().item()) < 4 / math.sqrt(100_000)


def test_consecutive_seeds_and_steps_are_not_correlated():
    for keys in (torch.stack([random.key(i) for i in range(300)]), random.fold_in(random.key(0), torch.arange(300))):
        draws = vmap(lambda key: random.normal(key, (300,)))(keys).double()
        off = (draws @ draws.T / 300).fill_diagonal_(0)
        assert off.abs().max() < 5.5 / math.sqrt(300)
