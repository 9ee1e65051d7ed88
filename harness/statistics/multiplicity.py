"""Corrections for many comparisons: Holm's, and Dunnett's for many rows against one baseline."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaincinv, ndtr, stdtr, stdtrit

Array = NDArray[np.float64]

NUM_NODES = 24
"""Nodes of Gauss quadrature over each of two variables: probabilities are right to 1e-4, see the tests."""

MAX_CORRELATION = 0.99


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values, in the given order; None is no test and stays None."""
    tested = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        adjusted[index] = largest
    return adjusted


@dataclass(frozen=True)
class Dunnett:
    """Many rows against one baseline (Dunnett, 1955), stepping down from the clearest (Dunnett and Tamhane, 1991).

    The estimates share the error of the baseline, so that they are correlated: by 1/2 where every row has all seeds
    and the same variance, elsewhere by their mean correlation.

    Attributes:
        t: each estimate over its standard error.
        df: degrees of freedom of each standard error.
        correlation: of two estimates, between 0 and 1.
    """

    t: tuple[float, ...]
    df: tuple[float, ...]
    correlation: float

    @classmethod
    def from_covariance(cls, deltas: Sequence[float], covariance: Array, df: Sequence[float]) -> "Dunnett":
        """From the estimates and their covariance matrix."""
        errors, m = np.sqrt(covariance.diagonal()), len(deltas)
        correlations = covariance / np.outer(errors, errors)
        mean = float((correlations.sum() - m) / (m * (m - 1))) if m > 1 else 0.0
        return cls(tuple((np.array(deltas) / errors).tolist()), tuple(df), min(max(mean, 0.0), MAX_CORRELATION))

    def adjust(self) -> list[float]:
        """Adjusted two-sided p-values of the step-down test."""
        single = [2 * float(stdtr(df, -abs(t))) for t, df in zip(self.t, self.df, strict=True)]
        order = sorted(range(len(single)), key=lambda index: single[index])
        adjusted, largest = [0.0] * len(single), 0.0
        for step, index in enumerate(order):
            exceeds = 1 - _integrate(abs(self.t[index]), len(single) - step, self.correlation, self.df[index])
            largest = min(1.0, max(largest, exceeds))
            adjusted[index] = largest
        return adjusted

    def find_critical(self, alpha: float) -> list[float]:
        """What each |t| has to exceed, so that with probability 1 - alpha none does by chance."""
        return [find_critical(alpha, len(self.t), self.correlation, df) for df in self.df]


@lru_cache(maxsize=4096)
def find_critical(alpha: float, m: int, correlation: float, df: float) -> float:
    """The two-sided critical value of the largest of m correlated t statistics with `df` degrees of freedom."""
    least, most = (float(-stdtrit(df, level / 2)) for level in (alpha, alpha / m))
    if m == 1:
        return least
    return float(brentq(lambda t: 1 - _integrate(t, m, correlation, df) - alpha, least - 0.01, most + 0.01, xtol=1e-6))


def _integrate(t: float, m: int, correlation: float, df: float) -> float:
    """The probability that no |T| of m exceeds t: an integral over their shared error z and the estimated scale s."""
    z, z_weights = _nodes_of_normal()
    s, s_weights = _nodes_of_scale(df)
    shared, rest = math.sqrt(correlation) * z, math.sqrt(1 - correlation)
    inside = ndtr((t * s[:, None] + shared) / rest) - ndtr((-t * s[:, None] + shared) / rest)
    return float(s_weights @ inside**m @ z_weights)


@cache
def _nodes_of_normal() -> tuple[Array, Array]:
    """The positive half: what is integrated is symmetric."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(2 * NUM_NODES)
    return nodes[NUM_NODES:], weights[NUM_NODES:] * math.sqrt(2 / math.pi)


@lru_cache(maxsize=4096)
def _nodes_of_scale(df: float) -> tuple[Array, Array]:
    """Of the square root of a chi-square variable over its degrees of freedom, by its quantiles."""
    nodes, weights = _nodes_of_unit()
    return np.sqrt(2 * gammaincinv(df / 2, nodes) / df), weights


@cache
def _nodes_of_unit() -> tuple[Array, Array]:
    """Of the uniform distribution, dense near zero: small scales decide how heavy the tails of t are."""
    nodes, weights = np.polynomial.legendre.leggauss(NUM_NODES)
    root = (1 + nodes) / 2
    return root**4, 2 * root**3 * weights
