"""Summaries of one row, and tests of paired differences: Student's t and the exact sign-flip test."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

MAX_EXACT_SEEDS = 16
"""2^16 sign patterns are enumerated; for more seeds there is no sign-flip p-value."""


@dataclass(frozen=True)
class Summary:
    """Mean and unbiased standard deviation of n values; None if n is too small."""

    n: int
    mean: float | None
    std: float | None


@dataclass(frozen=True)
class PairedTest:
    """Tests of the mean of n differences against zero.

    Attributes:
        mean: the mean difference.
        t_p: two-sided p-value of the paired t-test; None for one difference, and if all differences are equal: a spread
            of zero over a few seeds is a coincidence of counting images, not an estimate of the noise.
        sign_flip_p: exact two-sided p-value over all 2^n signs of the differences; never below 2 / 2^n.
    """

    n: int
    mean: float
    t_p: float | None = None
    sign_flip_p: float | None = None


def summarize(values: Sequence[float]) -> Summary:
    """Count, mean and standard deviation."""
    return Summary(
        n=len(values),
        mean=statistics.fmean(values) if values else None,
        std=statistics.stdev(values) if len(values) > 1 else None,
    )


def compare_pairs(values: Sequence[float]) -> PairedTest:
    """Test differences, one per seed, against zero.

    Raises:
        ValueError: there is no difference.
    """
    if not values:
        raise ValueError("a paired test needs at least one difference, got none")
    differences = np.array(values, dtype=np.float64)
    n, mean = len(differences), float(differences.mean())
    if n == 1:
        return PairedTest(n, mean)
    error, sign_flip_p = float(differences.std(ddof=1)) / math.sqrt(n), _flip_signs(differences)
    if error < 1e-9 * max(1.0, abs(mean)):
        return PairedTest(n, mean, sign_flip_p=sign_flip_p)
    return PairedTest(n, mean, float(2 * stdtr(n - 1, -abs(mean) / error)), sign_flip_p)


def _flip_signs(differences: NDArray[np.float64]) -> float | None:
    """The share of all sign patterns whose mean is at least as far from zero as the observed one."""
    n = len(differences)
    if n > MAX_EXACT_SEEDS:
        return None
    signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    means, observed = np.abs(signs @ differences) / n, abs(differences.mean())
    return float(np.mean(means >= observed - 1e-9 * max(1.0, observed)))
