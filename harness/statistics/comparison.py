"""Comparisons of rows: contrasts under one error model, with simultaneous intervals and adjusted p-values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from scipy.special import stdtr, stdtrit

from harness.statistics.error_model import ErrorModel, Estimate, Scores
from harness.statistics.multiplicity import Dunnett, holm
from harness.statistics.pairs import compare_pairs
from harness.statistics.verdict import ALPHA

Contrast = Mapping[str, float]
"""Weights of rows that sum to zero: `{"Net1": 1, "Swin-T": -1}` is a row minus its baseline."""


class Family(Enum):
    """How the comparisons of a table share an error rate."""

    DUNNETT = "one row is part of every comparison"
    HOLM = "any comparisons"


@dataclass(frozen=True)
class Comparison:
    """A contrast of rows.

    Attributes:
        n: number of blocks (seeds) that every row of the contrast has.
        delta: the estimated difference; for one pair of runs, their difference.
        low: lower end of the interval; all intervals of a family are simultaneous at level 1 - alpha.
        high: its upper end.
        p: two-sided p-value, adjusted for the family.
        error: standard error of the difference.
        df: its degrees of freedom.
        t_p: p-value of the paired t-test on these rows only.
        holm_p: the same after Holm's correction over the family.
        sign_flip_p: exact sign-flip p-value.
        has_own_variance: whether a row of the contrast has an outlying variance.
    """

    n: int
    delta: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    error: float | None = None
    df: float | None = None
    t_p: float | None = None
    holm_p: float | None = None
    sign_flip_p: float | None = None
    has_own_variance: bool = False

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def compare(scores: Scores, baseline: str, alpha: float = ALPHA) -> dict[str, Comparison | None]:
    """Compare every other row with the baseline; None if they share no block."""
    others = [name for name in scores if name != baseline]
    compared = compare_contrasts(scores, [{name: 1.0, baseline: -1.0} for name in others], Family.DUNNETT, alpha)
    return dict(zip(others, compared, strict=True))


def compare_contrasts(
    scores: Scores, contrasts: Sequence[Contrast], family: Family, alpha: float = ALPHA, others: int = 0
) -> list[Comparison | None]:
    """Estimate contrasts of rows under one error model, and adjust them for each other.

    Args:
        scores: the scores of all rows that share the error model, including rows in no contrast.
        contrasts: the contrasts to estimate.
        family: `DUNNETT` if one row is part of every contrast.
        alpha: the error rate of the family; its intervals are simultaneous at level 1 - alpha.
        others: number of further comparisons of the family, which reject nothing.

    Returns:
        A comparison for each contrast, rounded to eight digits, since further digits depend on the processor. None if
        its rows share no block. One pair of runs, or scores without any noise, give a difference only.
    """
    paired = [_compare_blocks(scores, contrast) for contrast in contrasts]
    corrected = holm([None if pair is None else pair.t_p for pair in paired], others)
    model = ErrorModel.fit(scores)
    tested = [
        index
        for index, (pair, contrast) in enumerate(zip(paired, contrasts, strict=True))
        if model is not None and pair is not None and pair.n > 1 and contrast.keys() <= {*model.names}
    ]
    compared = [None if pair is None else replace(pair, holm_p=p) for pair, p in zip(paired, corrected, strict=True)]
    if model is None or not tested:
        return compared
    chosen = [contrasts[index] for index in tested]
    estimates = [model.estimate(contrast) for contrast in chosen]
    if family is Family.DUNNETT:
        deltas, df = [item.delta for item in estimates], [item.df for item in estimates]
        dunnett = Dunnett.from_covariance(deltas, model.covariance(chosen), df, others)
        p_values, bounds = dunnett.adjust(), dunnett.find_critical(alpha)
    else:
        p_values, bounds = _adjust_holm(estimates, alpha, others)
    for index, estimate, p, bound in zip(tested, estimates, p_values, bounds, strict=True):
        half_width = bound * estimate.error
        pair = compared[index]
        assert pair is not None
        low, high = _clip(estimate.delta - half_width, estimate.delta + half_width, estimate.delta, p, alpha)
        has_own = not contrasts[index].keys().isdisjoint(model.outlying)
        compared[index] = replace(
            pair,
            delta=trim(_round(estimate.delta)),
            low=trim(_round(low)),
            high=trim(_round(high)),
            p=trim(p),
            error=trim(estimate.error),
            df=trim(estimate.df),
            has_own_variance=has_own,
        )
    return compared


def trim(value: float) -> float:
    """Round to eight significant digits."""
    return float(f"{value:.8g}")


def _round(difference: float) -> float:
    """Round to twelve decimal places, so that differences of equal scores, such as -9e-16, become zero."""
    return round(difference, 12) + 0.0


def _compare_blocks(scores: Scores, contrast: Contrast) -> Comparison | None:
    """The contrast block by block."""
    rows = [scores.get(name, {}) for name in contrast]
    blocks = [block for block in rows[0] if all(block in row for row in rows)]
    if not blocks:
        return None
    test = compare_pairs(
        [math.fsum(weight * scores[name][block] for name, weight in contrast.items()) for block in blocks]
    )
    t_p = None if test.t_p is None else trim(test.t_p)
    return Comparison(test.n, trim(_round(test.mean)), t_p=t_p, sign_flip_p=test.sign_flip_p)


def _adjust_holm(estimates: Sequence[Estimate], alpha: float, others: int) -> tuple[list[float], list[float]]:
    """Holm's p-values, and Bonferroni's bound on |t| for each interval."""
    single = [2 * float(stdtr(item.df, -abs(item.delta) / item.error)) for item in estimates]
    level = 1 - alpha / (2 * (len(estimates) + others))
    return [p for p in holm(single, others) if p is not None], [float(stdtrit(item.df, level)) for item in estimates]


def _clip(low: float, high: float, delta: float, p: float, alpha: float) -> tuple[float, float]:
    """Clip an interval at zero if the step-down test proves a sign, so that it agrees with the p-value."""
    if p >= alpha:
        return low, high
    return (max(low, 0.0), high) if delta > 0 else (low, min(high, 0.0))
