"""How far draws may be from a distribution: statistics of which it is known how large they come."""

import math

import torch


def kolmogorov_smirnov(draws, distribution):
    """The largest distance between two distribution functions, times the root of the number of draws.

    Above 1.95 once in a thousand keys.
    """
    n = draws.numel()
    ordered = distribution(draws.double().sort().values)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return math.sqrt(n) * max((ordered - steps[:-1]).abs().max(), (steps[1:] - ordered).abs().max()).item()


def chi_square(counts, probabilities):
    """The statistic, in standard deviations from its mean. Beyond 4 once in ten thousand keys or so."""
    expected = probabilities.double() * counts.sum()
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    return (statistic - (counts.numel() - 1)) / math.sqrt(2 * (counts.numel() - 1))


def assert_moments(draws, mean, variance, fourth):
    """Mean and variance within four standard errors; `fourth` is the fourth central moment."""
    draws, n = draws.double(), draws.numel()
    assert abs(draws.mean().item() - mean) < 4 * math.sqrt(variance / n)
    assert abs(draws.var().item() - variance) < 4 * math.sqrt((fourth - variance**2) / n)


def normal_cdf(x):
    return 0.5 * torch.erfc(-x / math.sqrt(2))


def rounded_kolmogorov_smirnov(draws, distribution):
    """The same for draws that were rounded to the nearest number of their dtype, and at most to the last below a limit.

    Of a number as many draws come as the distribution has up to the middle between it and the next.
    """
    values, counts = draws.unique(return_counts=True)
    after = torch.nextafter(values, torch.full_like(values, math.inf))
    middle = (values.double() + after.double()) / 2
    share = counts.cumsum(0).double() / draws.numel()
    return math.sqrt(draws.numel()) * (share - distribution(middle))[:-1].abs().max().item()
