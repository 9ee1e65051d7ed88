"""Seeds until resolved: looks at a growing table, with levels that control its error rate, and rules to stop a row."""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from harness.statistics.comparison import Comparison, Contrast, Family, compare_contrasts
from harness.statistics.error_model import Scores
from harness.statistics.verdict import ALPHA, Verdict, decide, decide_equality

Key = TypeVar("Key", bound=Hashable)

LOOKS = (3, 5, 7, 9, 12)
"""Numbers of seeds at which a look is taken; fixed before the first run."""

LAST_ALPHA = {5: 0.044, 7: 0.039, 9: 0.037, 12: 0.0365}
"""The level of the last look by the maximal number of seeds; docs/decisions/0016-seeds-until-resolved.md derives it."""

FUTILE_T = 1.8
"""A comparison is futile if |t| is below this number times the share of the maximal number of seeds."""


@dataclass(frozen=True)
class Look:
    """A look at a table.

    Attributes:
        seeds: number of seeds that every open row has.
        alpha: level of the tests and intervals of this look.
        futile_t: a comparison with a smaller |t| stops; 0 at the last look, at which all stop.
        is_last: whether no more seeds follow.
    """

    seeds: int
    alpha: float
    futile_t: float
    is_last: bool


class Reason(StrEnum):
    """Why a comparison gets no more seeds, or that it gets more."""

    OPEN = "open"
    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    FUTILE = "futile"
    EXHAUSTED = "seeds exhausted"
    THINNED = "runs without a measurement"
    INCOMPARABLE = "not comparable"

    @property
    def is_proof(self) -> bool:
        """Whether equality is rejected."""
        return self in (Reason.BETTER, Reason.WORSE)

    @property
    def verdict(self) -> Verdict:
        """The verdict on a comparison that stopped for this reason."""
        return Verdict(self.value) if self.is_proof or self == Reason.EQUIVALENT else Verdict.UNRESOLVED


@dataclass(frozen=True)
class Decision:
    """The decision on a comparison at a look.

    Attributes:
        reason: why it stopped, or that it is open.
        look: the look at which it stopped; for an open comparison, the last look.
        comparison: the comparison at this look; None if the runs allow none.
    """

    reason: Reason
    look: Look
    comparison: Comparison | None

    @property
    def is_open(self) -> bool:
        """Whether it gets more seeds."""
        return self.reason == Reason.OPEN


@dataclass(frozen=True)
class Rule:
    """The rule by which a family of comparisons is judged at every look.

    Attributes:
        family: as in `compare_contrasts`.
        sign: 1 if larger scores are better, else -1.
        margin: the largest difference that does not matter; 0: nothing is equivalent.
    """

    family: Family
    sign: int = 1
    margin: float = 0.0

    def decide(self, comparison: Comparison, alpha: float = ALPHA) -> Verdict:
        """The verdict on a comparison, whose interval and p-value are at level alpha."""
        return decide(self.sign * comparison.delta, comparison.p, comparison.interval, self.margin, alpha)

    def find_reason(self, look: Look, comparison: Comparison | None) -> Reason:
        """Why a comparison stops at a look, or that it stays open."""
        if comparison is not None:
            verdict = self.decide(comparison, look.alpha)
            if verdict != Verdict.UNRESOLVED:
                return Reason(verdict.value)
        if look.is_last:
            return Reason.EXHAUSTED
        is_futile = comparison is not None and self._is_futile(look, comparison)
        return Reason.FUTILE if is_futile else Reason.OPEN

    def _is_futile(self, look: Look, comparison: Comparison) -> bool:
        return comparison.error is not None and abs(comparison.delta) < look.futile_t * comparison.error


@dataclass(frozen=True)
class EqualityRule(Rule):
    """The rule for claims that two rows are equal within the margin; a small difference is never futile."""

    def decide(self, comparison: Comparison, alpha: float = ALPHA) -> Verdict:  # noqa: ARG002 - the interval has it
        """`equivalent` if the rows are equal, `better` or `worse` if they differ by more than the margin."""
        return decide_equality(self.sign * comparison.delta, comparison.interval, self.margin)

    def _is_futile(self, _look: Look, _comparison: Comparison) -> bool:
        return False


def plan_looks(max_seeds: int) -> tuple[Look, ...]:
    """The looks up to a maximal number of seeds.

    The level of a look is proportional to the cube of its share of the seeds, so that most of the error rate is left
    for the last look. The bound of futility is proportional to the share.

    Raises:
        ValueError: there is no look at this number of seeds, or it is the first look.
    """
    if max_seeds not in LAST_ALPHA:
        raise ValueError(f"seeds until resolved end at one of {', '.join(map(str, LAST_ALPHA))}, got {max_seeds}")
    shares = [(seeds, seeds / max_seeds) for seeds in LOOKS if seeds <= max_seeds]
    return tuple(
        Look(seeds, LAST_ALPHA[max_seeds] * share**3, FUTILE_T * share if share < 1 else 0.0, share == 1)
        for seeds, share in shares
    )


def decide_look(
    look: Look,
    scores: Scores,
    contrasts: Mapping[Key, Contrast],
    past: Mapping[Key, Decision],
    rule: Rule,
    *,
    kept: Collection[Key] = (),
    thinned: Collection[Key] = (),
) -> dict[Key, Decision]:
    """Decide on the open comparisons at a look.

    The tests of a look are those of a table with a fixed number of seeds, at the level of the look. The family is all
    contrasts that are not proven yet, including those that have stopped for another reason: futility does not reduce
    the correction. The error rate is therefore controlled even if a futile row is trained further.

    Args:
        look: one of `plan_looks`.
        scores: the scores of all rows up to this look. Rows that have stopped still contribute to the error model.
        contrasts: all comparisons of the family that use these scores and this rule, by any key.
        past: the decisions of earlier looks on the family; a decision to stop is final.
        rule: the same at every look.
        kept: contrasts that do not stop for futility, since their rows get more seeds in any case.
        thinned: contrasts whose rows lost runs by a bad outcome: they stop without a verdict.
    """
    tested = [key for key in contrasts if key not in past or past[key].is_open]
    others = sum(key not in tested and not decision.reason.is_proof for key, decision in past.items())
    compared = compare_contrasts(scores, [contrasts[key] for key in tested], rule.family, look.alpha, others)
    decided = {}
    for key, comparison in zip(tested, compared, strict=True):
        reason = Reason.THINNED if key in thinned else rule.find_reason(look, comparison)
        if reason == Reason.FUTILE and key in kept:
            reason = Reason.OPEN
        decided[key] = Decision(reason, look, comparison)
    return decided
