"""Paired comparisons over replicates, verdicts over a table, and marks on a row.

Replicate s of two rows shares data order, augmentation and initial values, so that differences are taken seed by seed.
The paired t-test decides, after Holm's correction over the table; the exact sign-flip p-value stands beside it.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.special import stdtr, stdtrit

from harness.record import RunStatus

ALPHA = 0.05
"""Intervals are of 1 - ALPHA; a table's verdicts are wrong together with at most this probability."""

MAX_EXACT_SEEDS = 16
"""2^16 sign patterns are enumerated; for more seeds there is no sign-flip p-value."""

LAST_PART = 0.2
MIN_LAST_EPOCHS = 4


class Verdict(StrEnum):
    """What a table may say of a row against its baseline."""

    BETTER = "better"
    WORSE = "worse"
    UNRESOLVED = "unresolved"


class ClaimVerdict(StrEnum):
    """What a table may say of a claim of the paper."""

    REPRODUCED = "reproduced"
    CONTRADICTED = "contradicted"
    UNRESOLVED = "unresolved"


class Agreement(StrEnum):
    """What a table may say of a row whose outcome the paper reports in words."""

    AS_PUBLISHED = "as published"
    DIFFERS = "differs"


@dataclass(frozen=True)
class Summary:
    """Mean and unbiased standard deviation of n values; what n does not allow is None."""

    n: int
    mean: float | None
    std: float | None


@dataclass(frozen=True)
class Comparison:
    """A row less its baseline over the n seeds that both have.

    Attributes:
        delta: the mean difference.
        low: lower end of the 95 % Student-t interval of the mean difference.
        high: its upper end.
        t_p: two-sided p-value of the paired t-test.
        sign_flip_p: exact two-sided p-value over all 2^n signs of the differences; never below 2 / 2^n.
    """

    n: int
    delta: float
    low: float | None = None
    high: float | None = None
    t_p: float | None = None
    sign_flip_p: float | None = None


def summarize(values: Sequence[float]) -> Summary:
    """Count, mean and standard deviation."""
    return Summary(
        n=len(values),
        mean=statistics.fmean(values) if values else None,
        std=statistics.stdev(values) if len(values) > 1 else None,
    )


def compare(row: Mapping[int, float], baseline: Mapping[int, float]) -> Comparison | None:
    """Compare values by seed; None where no seed is in both.

    One pair gives the difference alone. So do differences that are all equal: a spread of zero over a few seeds is
    an accident of counting images, not knowledge of the noise.
    """
    differences = np.array([row[seed] - baseline[seed] for seed in sorted(row.keys() & baseline.keys())])
    n = len(differences)
    if n == 0:
        return None
    delta = float(differences.mean())
    if n == 1:
        return Comparison(n, delta)
    sign_flip_p, error = _flip_signs(differences), float(differences.std(ddof=1)) / math.sqrt(n)
    if error < 1e-9 * max(1.0, abs(delta)):
        return Comparison(n, delta, sign_flip_p=sign_flip_p)
    half_width = float(stdtrit(n - 1, 1 - ALPHA / 2)) * error
    return Comparison(
        n,
        delta,
        low=delta - half_width,
        high=delta + half_width,
        t_p=float(2 * stdtr(n - 1, -abs(delta) / error)),
        sign_flip_p=sign_flip_p,
    )


def _flip_signs(differences: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float | None:
    """The share of all sign patterns whose mean is at least as far from zero as the observed one."""
    n = len(differences)
    if n > MAX_EXACT_SEEDS:
        return None
    signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    means, observed = np.abs(signs @ differences) / n, abs(differences.mean())
    return float(np.mean(means >= observed - 1e-9 * max(1.0, observed)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values, in the given order; None is no test and stays None."""
    tested = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        adjusted[index] = largest
    return adjusted


def decide(gain: float, holm_p: float | None) -> Verdict:
    """`better` or `worse` where the corrected t-test rejects equality at 5 %; whatever is not proven is unresolved.

    `gain` is the mean difference in the direction that is better.
    """
    if holm_p is None or holm_p >= ALPHA:
        return Verdict.UNRESOLVED
    return Verdict.BETTER if gain > 0 else Verdict.WORSE


def judge_claim(gain: float, holm_p: float | None) -> ClaimVerdict:
    """Of the claim that a gain is positive: what `decide` proves reproduces or contradicts it."""
    verdicts = {Verdict.BETTER: ClaimVerdict.REPRODUCED, Verdict.WORSE: ClaimVerdict.CONTRADICTED}
    return verdicts.get(decide(gain, holm_p), ClaimVerdict.UNRESOLVED)


def compare_expectation(expected: RunStatus, statuses: Iterable[RunStatus]) -> Agreement | None:
    """Whether every replicate that has a result ended as the paper says; None where none has one."""
    results = [status for status in statuses if status.is_result]
    if not results:
        return None
    return Agreement.AS_PUBLISHED if all(status == expected for status in results) else Agreement.DIFFERS


def average_curves(curves: Iterable[Sequence[float]]) -> list[float]:
    """The mean over replicates epoch by epoch, as far as all of them go."""
    return [statistics.fmean(values) for values in zip(*curves, strict=False)]


def is_under_trained(curve: Sequence[float], relevant_gain: float) -> bool:
    """Whether a curve of validation scores (one an epoch, higher is better) still climbs when training ends.

    A line is fitted to the last fifth of the epochs, at least four. The curve climbs where the slope exceeds twice its
    standard error, and where as many epochs again would gain more than `relevant_gain` at that slope. A curve of fewer
    than four epochs has shown no plateau, so that it counts as climbing. The schedule itself flattens a curve towards
    its end: the mark says that a row had surely not settled, its absence does not say that more epochs would gain
    nothing.
    """
    if len(curve) < MIN_LAST_EPOCHS:
        return len(curve) > 0
    last = np.array(curve[-max(MIN_LAST_EPOCHS, math.ceil(LAST_PART * len(curve))) :])
    if not np.isfinite(last).all():
        return False
    epochs = np.arange(len(last)) - (len(last) - 1) / 2
    slope = float(epochs @ last / (epochs @ epochs))
    residuals = last - last.mean() - slope * epochs
    error = math.sqrt(float(residuals @ residuals) / (len(last) - 2) / float(epochs @ epochs))
    return slope > 2 * error and slope * len(last) > relevant_gain
