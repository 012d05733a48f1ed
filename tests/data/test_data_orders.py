"""The orders of `shuffled`: each is as likely as another, as far as counts over many keys can tell."""

import math

import pytest
import torch

from functrain import random
from functrain.data import sampler as samplers

KEY = random.key(7)
ORDERS = {"permuted": samplers.permute, "scattered": samplers.scatter}


def orders(order, n, times):
    return torch.stack([order(KEY, n, epoch, 0, n) for epoch in range(times)])


def excess(drawn, bins):
    """The chi-square statistic of a table (place, value), in standard deviations from its mean, for (times, n) orders.

    Each order fills the table with fixed margins, which makes the statistic n / (n - 1) too large.
    """
    times, n = drawn.shape
    cells = torch.arange(n) * bins // n
    table = (cells * bins + cells[drawn]).view(-1).bincount(minlength=bins * bins).view(bins, bins).double()
    sizes = cells.bincount(minlength=bins).double()
    expected = times * sizes.outer(sizes) / n
    statistic = ((table - expected) ** 2 / expected).sum().item() * (n - 1) / n
    free = (bins - 1) ** 2
    return (statistic - free) / math.sqrt(2 * free)


def is_odd(order):
    """Whether an order is an odd permutation: n less its number of cycles."""
    to, seen, cycles = order.tolist(), set(), 0
    for start in range(len(to)):
        cycles += start not in seen
        while start not in seen:
            seen.add(start)
            start = to[start]
    return (len(to) - cycles) % 2 == 1


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("n", range(2, 21))
def test_each_example_is_as_likely_at_each_place(name, n):
    # Beyond 4.5 standard deviations once in 30,000 keys or so; the statistic of one degree of freedom has a long tail.
    assert excess(orders(ORDERS[name], n, 600), n) < (4.5 if n > 4 else 8)


@pytest.mark.parametrize("n", [1025, 1500, 2048, 4097])
def test_a_network_takes_each_place_to_all_parts(n):
    drawn = orders(samplers.scatter, n, 200)
    assert torch.equal(drawn.sort(1).values, torch.arange(n).expand(200, n))
    assert abs(excess(drawn, 32)) < 4.5
    assert abs(excess(drawn[:, :64].argsort(1), 64)) < 4.5  # which of the first 64 places holds the larger example


@pytest.mark.parametrize("n", [4, 8, 16, 1000, 1024, 1025, 1500, 2048, 4096])
def test_half_of_the_orders_are_odd(n):
    odd = sum(map(is_odd, orders(samplers.scatter, n, 300)))
    assert abs(odd - 150) < 4.5 * math.sqrt(300) / 2


def patterns(drawn):
    """How often each order of the first four places comes: counts of 24."""
    numbers = (drawn[:, :4].argsort(1) * torch.tensor([64, 16, 4, 1])).sum(1)
    return numbers.unique(return_counts=True)[1].double()


@pytest.mark.parametrize("n", [4, 7, 8, 16, 20, 1025, 2048])
def test_any_four_places_are_ordered_in_all_ways(n):
    counts = patterns(torch.stack([samplers.scatter(KEY, n, epoch, 0, 4) for epoch in range(2400)]))
    assert counts.numel() == 24
    assert ((counts - 100) ** 2 / 100).sum() < 23 + 4.5 * math.sqrt(46)


def test_all_orders_of_five_are_as_likely():
    drawn = orders(samplers.scatter, 5, 12_000)
    counts = (drawn * 5 ** torch.arange(5)).sum(1).unique(return_counts=True)[1].double()
    assert counts.numel() == 120
    assert ((counts - 100) ** 2 / 100).sum() < 119 + 4.5 * math.sqrt(238)
