"""Verdicts on a row, and on a claim of the paper."""

from collections.abc import Sequence
from enum import StrEnum

ALPHA = 0.05
"""The probability that any verdict of a table is wrong; its intervals are simultaneous at level 1 - ALPHA."""


class Verdict(StrEnum):
    """The verdict of a table on a row against its baseline."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNRESOLVED = "unresolved"


class ClaimVerdict(StrEnum):
    """The verdict of a table on a claim of the paper."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    CONFOUNDED = "confounded by size"
    NOT_TESTABLE = "not testable"
    NOT_TRAINED = "not trained"

    @property
    def is_of_test(self) -> bool:
        """Whether it is the result of a test."""
        return self in (ClaimVerdict.SUPPORTED, ClaimVerdict.REFUTED, ClaimVerdict.UNDECIDED)


def decide(
    gain: float,
    p: float | None,
    interval: tuple[float, float] | None = None,
    margin: float = 0.0,
    alpha: float = ALPHA,
) -> Verdict:
    """`better` or `worse` if the test rejects equality, `equivalent` if the interval lies within the margin.

    Args:
        gain: the difference in the direction that is better.
        p: p-value, adjusted for the whole table; None: there is no test.
        interval: simultaneous interval of the difference at level 1 - alpha. It implies two one-sided tests
            (Schuirmann, 1987) of the whole family, at alpha / 2 each.
        margin: the largest difference that does not matter; 0: no row is equivalent.
        alpha: the error rate of the whole table.
    """
    if p is None:
        return Verdict.UNRESOLVED
    if p < alpha:
        return Verdict.BETTER if gain > 0 else Verdict.WORSE
    if interval is not None and -margin < interval[0] and interval[1] < margin:
        return Verdict.EQUIVALENT
    return Verdict.UNRESOLVED


def decide_equality(gain: float, interval: tuple[float, float] | None, margin: float) -> Verdict:
    """`equivalent` if the interval lies within the margin, `better` or `worse` if it lies beyond the margin.

    Args:
        gain: the difference in the direction that is better.
        interval: simultaneous interval of the difference; it implies two one-sided tests against the margin.
        margin: the largest difference at which rows are equal.
    """
    if interval is None:
        return Verdict.UNRESOLVED
    if -margin < interval[0] and interval[1] < margin:
        return Verdict.EQUIVALENT
    if margin < interval[0] or interval[1] < -margin:
        return Verdict.BETTER if gain > 0 else Verdict.WORSE
    return Verdict.UNRESOLVED


def judge_order(verdicts: Sequence[Verdict]) -> ClaimVerdict:
    """The verdict on the claim that each row is better than the next, from the verdicts on all pairs of neighbors.

    Every pair has to be proven (an intersection-union test); one pair that is proven the other way refutes the claim.
    """
    if Verdict.WORSE in verdicts:
        return ClaimVerdict.REFUTED
    return ClaimVerdict.SUPPORTED if set(verdicts) == {Verdict.BETTER} else ClaimVerdict.UNDECIDED


def judge_equality(verdict: Verdict) -> ClaimVerdict:
    """The verdict on the claim that two rows are equal, from the result of `decide_equality`."""
    verdicts = {Verdict.EQUIVALENT: ClaimVerdict.SUPPORTED, Verdict.UNRESOLVED: ClaimVerdict.UNDECIDED}
    return verdicts.get(verdict, ClaimVerdict.REFUTED)


def judge_outcome(num_expected: int, num_runs: int) -> ClaimVerdict:
    """The verdict on the claim that every run has the same outcome; `num_expected` runs have it."""
    if 0 < num_expected < num_runs:
        return ClaimVerdict.UNDECIDED
    return ClaimVerdict.SUPPORTED if num_expected else ClaimVerdict.REFUTED
