"""Corrections for multiple comparisons: Holm's, and Dunnett's for many rows against one baseline."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, ndtr, stdtr, stdtrit

Array = NDArray[np.float64]

NUM_NODES = 24
"""Nodes of Gauss quadrature for each of two variables: probabilities are accurate to 1e-4 (tested)."""

BALANCED = 0.5
"""The correlation of two estimates if all rows have all seeds and the same variance."""

MAX_CORRELATION = 0.95

NUM_STEPS = 6
"""Steps of the secant method, which starts from the critical values of one statistic and of Bonferroni's correction."""


def holm(p_values: Sequence[float | None], others: int = 0) -> list[float | None]:
    """Holm's adjusted p-values, in the given order; None stands for no test and stays None.

    `others` is the number of further tests of the family that reject nothing.
    """
    tested = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) + others - rank)))
        adjusted[index] = largest
    return adjusted


@dataclass(frozen=True)
class Dunnett:
    """Dunnett's test of many rows against one baseline (1955), as a step-down test (Dunnett and Tamhane, 1991).

    The estimates share the error of the baseline and are therefore correlated: by 1/2 if every row has all seeds and
    the same variance. Otherwise, the mean correlation is used.

    Attributes:
        t: each estimate divided by its standard error.
        df: degrees of freedom of each standard error.
        correlation: the correlation of two estimates, between 0 and 1.
        others: number of further estimates of the family, which reject nothing.
    """

    t: tuple[float, ...]
    df: tuple[float, ...]
    correlation: float
    others: int = 0

    @classmethod
    def from_covariance(
        cls, deltas: Sequence[float], covariance: Array, df: Sequence[float], others: int = 0
    ) -> "Dunnett":
        """Make the test from the estimates and their covariance matrix."""
        errors, m = np.sqrt(covariance.diagonal()), len(deltas)
        correlations = covariance / np.outer(errors, errors)
        mean = float((correlations.sum() - m) / (m * (m - 1))) if m > 1 else BALANCED
        return cls(tuple((np.array(deltas) / errors).tolist()), tuple(df), min(max(mean, 0.0), MAX_CORRELATION), others)

    def adjust(self) -> list[float]:
        """Adjusted two-sided p-values of the step-down test."""
        t, df = np.abs(np.array(self.t)), np.array(self.df)
        order = np.argsort(stdtr(df, -t), kind="stable")
        remaining = np.arange(len(t), 0, -1) + self.others
        exceeds = 1 - _integrate(t[order], _find_scales(df[order]), remaining, self.correlation)
        adjusted = np.empty_like(t)
        adjusted[order] = np.minimum(np.maximum.accumulate(exceeds), 1.0)
        return list(map(float, adjusted))

    def find_critical(self, alpha: float) -> list[float]:
        """The critical value of each |t|: by chance, any of them exceeds its own with probability alpha."""
        return list(map(float, find_critical(alpha, len(self.t) + self.others, self.correlation, np.array(self.df))))


def find_critical(alpha: float, m: int, correlation: float, df: Array) -> Array:
    """The two-sided critical values of the largest of m correlated t statistics, for several degrees of freedom."""
    low, high = -stdtrit(df, alpha / 2), -stdtrit(df, alpha / (2 * m))
    if m == 1:
        return np.asarray(low)
    scales, (before, last) = _find_scales(df), (np.log(low), np.log(high))

    def find_excess(log_t: Array) -> Array:
        return np.asarray(np.log((1 - _integrate(np.exp(log_t), scales, m, correlation)) / alpha))

    first, second = find_excess(before), find_excess(last)
    for _ in range(NUM_STEPS):  # the tails of t are power laws, nearly linear in logarithms
        step = np.divide(last - before, second - first, out=np.zeros_like(last), where=second != first)
        before, last = last, np.clip(last - second * step, np.log(low), np.log(high))
        first, second = second, find_excess(last)
    critical: Array = np.exp(last)
    return critical


def _integrate(t: Array, scales: Array, m: int | NDArray[np.int64], correlation: float) -> Array:
    """The probability that none of m |T| exceeds t: an integral over their common error z and the estimated scale."""
    z, z_weights = _nodes_of_normal()
    shared, rest = math.sqrt(correlation) * z, math.sqrt(1 - correlation)
    bound = (t[:, None] * scales)[..., None]
    inside = ndtr((bound + shared) / rest) - ndtr((shared - bound) / rest)
    probability: Array = inside ** np.broadcast_to(m, t.shape)[:, None, None] @ z_weights @ _nodes_of_unit()[1]
    return probability


def _find_scales(df: Array) -> Array:
    """Quantiles of √(χ²/df) at `_nodes_of_unit`."""
    scales: Array = np.sqrt(2 * gammaincinv(df[:, None] / 2, _nodes_of_unit()[0]) / df[:, None])
    return scales


@cache
def _nodes_of_normal() -> tuple[Array, Array]:
    """Nodes and weights for the positive half of the normal distribution; the integrand is symmetric."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(2 * NUM_NODES)
    return nodes[NUM_NODES:], weights[NUM_NODES:] * math.sqrt(2 / math.pi)


@cache
def _nodes_of_unit() -> tuple[Array, Array]:
    """Nodes and weights for the uniform distribution, dense near zero, since small scales determine the tails of t."""
    nodes, weights = np.polynomial.legendre.leggauss(NUM_NODES)
    root = (1 + nodes) / 2
    return root**4, 2 * root**3 * weights
