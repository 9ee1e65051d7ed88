"""Judges the claims of an experiment by the runs of its table."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from harness.plan import Plan
from harness.spec import ClaimSpec
from harness.statistics import ClaimVerdict, Family, compare_contrasts
from harness.table.claims.kinds import KINDS, Answers, Conclusion
from harness.table.claims.question import Question, group_questions, read_scores
from harness.table.comparison import Judged, judge
from harness.table.selection import Replicates, is_comparable, is_thinned
from harness.text import NOTHING


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its verdict.

    Attributes:
        evidence: the numbers behind the verdict, or why there is no verdict.
        judged: the deciding comparison, if it compares the measure, and the verdict on the claim.
    """

    claim: ClaimSpec
    evidence: str
    judged: Judged


def list_questions(plan: Plan, rows: Mapping[str, Replicates]) -> list[Question]:
    """The questions of all claims and their controls about these rows, each once: the family of all tests of claims."""
    claims = [stated for claim in plan.spec.claims for stated in (claim, claim.control) if stated is not None]
    testable = [claim for claim in claims if not KINDS[type(claim)].explain_obstacle(claim, plan.spec)]
    asked = (question for claim in testable for question in KINDS[type(claim)].ask(claim, plan.spec))
    return list(dict.fromkeys(question for question in asked if all(name in rows for name in question.rows)))


def answer_questions(plan: Plan, rows: Mapping[str, Replicates]) -> Answers:
    """Test all questions as one family, by all runs."""
    alike = {name: row for name, row in rows.items() if not row.row.is_floor}
    asked, answers = list_questions(plan, alike), dict[Question, Judged]()
    scores = {quantity: read_scores(alike, quantity) for quantity in {question.quantity for question in asked}}
    questions = [
        question
        for question in asked
        if is_comparable(*(rows[name] for name in question.rows))
        and not scores[question.quantity][question.first].keys().isdisjoint(scores[question.quantity][question.second])
    ]
    for (quantity, rule), group in group_questions(questions).items():
        compared = compare_contrasts(
            scores[quantity],
            [question.contrast for question in group],
            Family.HOLM,
            others=len(questions) - len(group),
        )
        thinned = [is_thinned(*(rows[name] for name in question.rows)) for question in group]
        answers.update(zip(group, judge(compared, rule.decide, thinned), strict=True))
    return answers


def judge_claims(plan: Plan, rows: Mapping[str, Replicates], answers: Answers) -> list[JudgedClaim]:
    """The verdict on every claim of the experiment."""
    return [_judge(claim, plan, rows, answers) for claim in plan.spec.claims]


def _judge(claim: ClaimSpec, plan: Plan, rows: Mapping[str, Replicates], answers: Answers) -> JudgedClaim:
    """Judge a claim by its own rows; it is confounded if the controls give another verdict."""
    own, verdict = _conclude(claim, plan, rows, answers), None
    evidence = own.evidence
    if claim.control is not None:
        other = _conclude(claim.control, plan, rows, answers)
        controls = ", ".join(f"{control} for {row}" for row, control in claim.matched.items())
        evidence = (
            f"{own.verdict or NOTHING}: {own.evidence}; with {controls}: {other.verdict or NOTHING}: {other.evidence}"
        )
        if _is_tested(own) and _is_tested(other) and own.verdict != other.verdict:
            verdict = ClaimVerdict.CONFOUNDED
    return JudgedClaim(claim, evidence, replace(own.judged, verdict=verdict or own.verdict or ""))


def _is_tested(conclusion: Conclusion) -> bool:
    return conclusion.verdict is not None and conclusion.verdict.is_of_test


def _conclude(claim: ClaimSpec, plan: Plan, rows: Mapping[str, Replicates], answers: Answers) -> Conclusion:
    kind = KINDS[type(claim)]
    obstacle = kind.explain_obstacle(claim, plan.spec) or _explain_skipped(claim, plan)
    if obstacle:
        return Conclusion(ClaimVerdict.NOT_TESTABLE, obstacle)
    missing = [name for name in claim.rows if not rows[name].records]
    if missing:
        return Conclusion(ClaimVerdict.NOT_TRAINED, f"no run of {', of '.join(missing)}")
    return kind.conclude(claim, plan, rows, answers)


def _explain_skipped(claim: ClaimSpec, plan: Plan) -> str:
    """Why the recipe skips the first skipped row of the claim; empty if it skips none."""
    return next((f"{row.name}: {row.reason}" for row in plan.skipped if row.name in claim.rows), "")
