"""Verdicts on a row, and on a claim of the paper."""

from enum import StrEnum

ALPHA = 0.05
"""The probability that any verdict of a table is wrong; its intervals hold together with 1 - ALPHA."""


class Verdict(StrEnum):
    """The verdict of a table on a row against its baseline."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNRESOLVED = "unresolved"


class ClaimVerdict(StrEnum):
    """The verdict of a table on a claim of the paper."""

    REPRODUCED = "reproduced"
    CONTRADICTED = "contradicted"
    UNRESOLVED = "unresolved"


def decide(
    gain: float,
    p: float | None,
    interval: tuple[float, float] | None = None,
    margin: float = 0.0,
    alpha: float = ALPHA,
) -> Verdict:
    """`better` or `worse` where the test rejects equality, `equivalent` where the interval lies within the margin.

    Args:
        gain: the difference in the direction that is better.
        p: adjusted for the whole table; None: there is no test.
        interval: of the difference, at simultaneous level 1 - alpha: two one-sided tests (Schuirmann, 1987) of the
            whole family at alpha / 2 each.
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


def judge_claim(gain: float, p: float | None, alpha: float = ALPHA) -> ClaimVerdict:
    """The verdict on the claim that a gain is positive: a proven gain reproduces it, a proven loss contradicts it."""
    verdicts = {Verdict.BETTER: ClaimVerdict.REPRODUCED, Verdict.WORSE: ClaimVerdict.CONTRADICTED}
    return verdicts.get(decide(gain, p, alpha=alpha), ClaimVerdict.UNRESOLVED)
