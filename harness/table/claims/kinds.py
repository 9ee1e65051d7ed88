"""Kinds of claims: their questions, and the conclusions from the answers; a new kind is one entry in `KINDS`."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Generic, TypeVar

from harness.plan import Plan
from harness.record import RunStatus
from harness.spec import (
    BetterSpec,
    ClaimSpec,
    EarlierSpec,
    EqualSpec,
    ExperimentSpec,
    FasterSpec,
    OrderSpec,
    OutcomeSpec,
)
from harness.statistics import (
    ClaimVerdict,
    EqualityRule,
    Family,
    Rule,
    Verdict,
    judge_equality,
    judge_order,
    judge_outcome,
)
from harness.table.claims.question import EarlyValue, FinalLogarithm, FinalValue, Quantity, Question
from harness.table.comparison import Judged
from harness.table.entry import UNCOMPARED, average
from harness.table.format import show_count
from harness.table.reason import LIMIT_OF
from harness.table.selection import Replicates
from harness.tasks import find_margin, find_measure
from harness.text import count_noun

Answers = Mapping[Question, Judged]
"""The comparison and verdict of each question that the runs can answer."""

SPEED, MACS = "train/images_per_second", "macs"

Spec = TypeVar("Spec", bound=ClaimSpec)


@dataclass(frozen=True)
class Conclusion:
    """The conclusion from the runs on a claim.

    Attributes:
        verdict: None if the rows have fewer than two common seeds.
        evidence: the numbers behind the verdict, or why there is no verdict.
        judged: the deciding comparison, if it compares the measure.
    """

    verdict: ClaimVerdict | None
    evidence: str
    judged: Judged = UNCOMPARED


class ClaimKind(Generic[Spec]):
    """A kind of claim. By default, it asks no questions."""

    def ask(self, _claim: Spec, _spec: ExperimentSpec) -> Sequence[Question]:
        """The comparisons that decide the claim."""
        return ()

    def explain_obstacle(self, _claim: Spec, _spec: ExperimentSpec) -> str:
        """Why the claim cannot be tested under the recipe; empty if it can."""
        return ""

    def conclude(self, claim: Spec, plan: Plan, rows: Mapping[str, Replicates], answers: Answers) -> Conclusion:
        """Conclude from the answers; every row of the claim has a run."""
        raise NotImplementedError


class Ranking(ClaimKind[Spec]):
    """Each row is better than the next one, by the measure on the test images."""

    def ask(self, claim: Spec, spec: ExperimentSpec) -> Sequence[Question]:
        """One question for each pair of neighbors."""
        quantity, rule = self.find_quantity(claim, spec), self.make_rule(claim, spec)
        return [Question(*pair, quantity, rule, claim.describe(*pair)) for pair in pairwise(claim.rows)]

    def find_quantity(self, _claim: Spec, spec: ExperimentSpec) -> Quantity:
        """The quantity that is compared."""
        return FinalValue(find_measure(spec).test)

    def make_rule(self, _claim: Spec, spec: ExperimentSpec) -> Rule:
        """The rule that judges a comparison."""
        return Rule(Family.HOLM, find_measure(spec).sign, find_margin(spec))

    def judge(self, verdicts: Sequence[Verdict]) -> ClaimVerdict:
        """The verdict on the claim, from the verdicts on its pairs."""
        return judge_order(verdicts)

    def conclude(self, claim: Spec, plan: Plan, rows: Mapping[str, Replicates], answers: Answers) -> Conclusion:
        """Conclude from the pairs; a refuting comparison decides, or else the one with the largest p-value."""
        judged = [answers.get(question, UNCOMPARED) for question in self.ask(claim, plan.spec)]
        evidence = "; ".join([*(self.show(plan, answer) for answer in judged), *_list_losses(claim.rows, rows)])
        verdicts = [Verdict(answer.verdict) for answer in judged if answer.verdict]
        deciding = max(judged, key=lambda answer: (answer.verdict == Verdict.WORSE, _find_p(answer)))
        if len(verdicts) < len(judged) and Verdict.WORSE not in verdicts:
            return Conclusion(None, evidence, deciding)
        return Conclusion(self.judge(verdicts), evidence, deciding)

    def show(self, plan: Plan, answer: Judged) -> str:
        """A difference with its interval and the number of seeds."""
        form = f"+{find_measure(plan.spec).format}"
        return f"Δ {_show_comparison(answer, lambda value: format(value, form))}"


class Equality(Ranking[EqualSpec]):
    """Two rows differ by no more than a margin."""

    def make_rule(self, claim: EqualSpec, spec: ExperimentSpec) -> Rule:
        """Two one-sided tests against the margin."""
        return EqualityRule(Family.HOLM, find_measure(spec).sign, claim.within or find_margin(spec))

    def explain_obstacle(self, claim: EqualSpec, spec: ExperimentSpec) -> str:
        """The claim needs a margin."""
        return "" if claim.within or find_margin(spec) else "neither claim, experiment nor measure states a margin"

    def judge(self, verdicts: Sequence[Verdict]) -> ClaimVerdict:
        """The verdict on the only pair."""
        return judge_equality(*verdicts)


class Earlier(Ranking[EarlierSpec]):
    """The first row is ahead on the validation images at an early epoch."""

    def find_quantity(self, claim: EarlierSpec, spec: ExperimentSpec) -> Quantity:
        """The validation score at that epoch."""
        at = claim.epoch if claim.share is None else claim.share
        assert at is not None
        return EarlyValue(find_measure(spec).val, at)

    def explain_obstacle(self, claim: EarlierSpec, spec: ExperimentSpec) -> str:
        """The schedule may be shorter than the epoch."""
        epochs = spec.recipe.training.total_epochs
        is_late = claim.epoch is not None and claim.epoch >= epochs
        return f"recipe {spec.recipe.name!r} has {count_noun(epochs, 'epoch')}" if is_late else ""


class Faster(Ranking[FasterSpec]):
    """The first row is faster, by images/s or by multiply-adds."""

    def ask(self, claim: FasterSpec, spec: ExperimentSpec) -> Sequence[Question]:
        """Multiply-adds have no noise and need no test."""
        return () if claim.by == MACS else super().ask(claim, spec)

    def find_quantity(self, _claim: FasterSpec, _spec: ExperimentSpec) -> Quantity:
        """Images/s by ratio."""
        return FinalLogarithm(SPEED)

    def make_rule(self, _claim: FasterSpec, _spec: ExperimentSpec) -> Rule:
        """More is better."""
        return Rule(Family.HOLM)

    def conclude(self, claim: FasterSpec, plan: Plan, rows: Mapping[str, Replicates], answers: Answers) -> Conclusion:
        """Test the ratio of speeds; multiply-adds are compared without a test."""
        if claim.by != MACS:
            return replace(super().conclude(claim, plan, rows, answers), judged=UNCOMPARED)
        first, second = (average(rows[name].records.values(), MACS) for name in claim.rows)
        if first is None or second is None:
            return Conclusion(None, "multiply-adds are not known")
        verdict = ClaimVerdict.SUPPORTED if first < second else ClaimVerdict.REFUTED
        return Conclusion(verdict, f"{show_count(first)} against {show_count(second)} multiply-adds")

    def show(self, _plan: Plan, answer: Judged) -> str:
        """A ratio with its interval and the number of seeds."""
        return f"images/s {_show_comparison(answer, lambda value: f'{math.exp(value):.2f}×')}"


class Outcome(ClaimKind[OutcomeSpec]):
    """Every run of some rows has a certain outcome."""

    def conclude(self, claim: OutcomeSpec, plan: Plan, rows: Mapping[str, Replicates], _answers: Answers) -> Conclusion:
        """Count the outcomes; if the recipe lacks the limit that causes an outcome, its absence shows nothing."""
        status = RunStatus(claim.status)
        ended = [record.status for name in claim.rows for record in rows[name].records.values()]
        results = [each for each in ended if each.is_result]
        expected = results.count(status)
        counted = f"{expected} of {count_noun(len(results), 'run')} {status.value.replace('_', ' ')}"
        limit = LIMIT_OF.get(status)
        if not expected and limit is not None and getattr(plan.spec.recipe.limits, limit) is None:
            return Conclusion(ClaimVerdict.NOT_TESTABLE, f"{counted}; recipe {plan.spec.recipe.name!r} sets no {limit}")
        return Conclusion(judge_outcome(expected, len(results)) if len(results) > 1 else None, counted)


def _show_comparison(answer: Judged, show: Callable[[float], str]) -> str:
    """`+1.07 [+0.63, +1.51], n = 3`."""
    found = answer.comparison
    if found is None:
        return "nothing to compare: no common seed, or other images, code or environments"
    interval = "" if found.interval is None else f" [{', '.join(map(show, found.interval))}]"
    return f"{show(found.delta)}{interval}, n = {found.n}"


def _find_p(answer: Judged) -> float:
    return 1.0 if answer.comparison is None or answer.comparison.p is None else answer.comparison.p


def _list_losses(names: Sequence[str], rows: Mapping[str, Replicates]) -> Iterator[str]:
    """Describe the rows that lost runs by a bad outcome, since the remaining runs decide nothing."""
    for name in names:
        bad = sum(record.status.is_bad for record in rows[name].records.values())
        if bad:
            yield f"{name}: {bad} of {count_noun(len(rows[name].records), 'run')} without a measurement"


KINDS: Mapping[type[ClaimSpec], ClaimKind[Any]] = {
    BetterSpec: Ranking(),
    OrderSpec: Ranking(),
    EqualSpec: Equality(),
    OutcomeSpec: Outcome(),
    FasterSpec: Faster(),
    EarlierSpec: Earlier(),
}
