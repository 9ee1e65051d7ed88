"""Seeds until resolved: the looks at a table that its records allow, and the seeds that each row gets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from harness.plan import Plan, PlannedRow, PlannedRun
from harness.statistics import Decision, Family, Look, Reason, Rule, decide_look, plan_looks
from harness.statistics.error_model import Scores
from harness.table.claims import Question, group_questions, list_questions, read_scores
from harness.table.selection import Replicates, is_comparable, is_thinned
from harness.tasks import find_margin, find_measure

Key = TypeVar("Key", str, Question)


@dataclass(frozen=True)
class Course:
    """The progress of a table whose rows get seeds until they are resolved.

    Attributes:
        looks: the planned looks.
        seeds: the number of seeds that each row needs for its next look, or needed for its last one.
        rows: the decision on each row except the baseline, its placebo and floors; empty before the first look.
        claims: the decision on each question of the claims.
        last: the last look that was taken.
        placebo: the judgment of the placebo at the last look.
    """

    looks: tuple[Look, ...]
    seeds: Mapping[str, int]
    rows: Mapping[str, Decision]
    claims: Mapping[Question, Decision]
    last: Look | None
    placebo: Decision | None = None

    def find(self, row: PlannedRow) -> Decision | None:
        """The decision on a row; None before the first look, and for the baseline and floors."""
        return self.placebo if row.is_placebo else self.rows.get(row.name)

    def limit(self, row: Replicates) -> Replicates:
        """The row with the seeds of its looks only: runs for another table must not change this one."""
        count = self.seeds[row.row.name]
        records = {replicate: record for replicate, record in row.records.items() if replicate < count}
        return replace(row, records=records, planned=tuple(range(count)))

    def needs(self, run: PlannedRun) -> bool:
        """Whether a look that was taken, or the next one, needs a run."""
        return run.replicate < self.seeds[run.row.name]


def follow_looks(plan: Plan, replicates: Iterable[Replicates]) -> Course:
    """Take one look after the other, as long as every open row has all runs that the look needs.

    A look uses only the runs that it would have had if they had been trained look by look. The decisions therefore
    depend neither on the time at which they are computed nor on further runs in the store.

    A placebo is not a hypothesis: it gets the seeds of the baseline, and every look judges it again at its level. It
    does not affect the decisions on the rows.
    """
    spec, all_rows = plan.spec, {row.row.name: row for row in replicates}
    assert spec.until_resolved is not None
    looks = plan_looks(spec.until_resolved)
    rows = {name: row for name, row in all_rows.items() if not (row.row.is_floor or row.row.is_placebo)}
    placebo = next((row for row in all_rows.values() if row.row.is_placebo), None)
    seeds = {name: spec.seeds if row.row.is_floor else looks[0].seeds for name, row in all_rows.items()}
    course = Course(looks, seeds, {}, {}, None)
    pairs = {name: (name, spec.baseline) for name in rows if name != spec.baseline and spec.baseline in rows}
    questions = list_questions(plan, rows)
    for look in looks:
        open_pairs = [pair for name, pair in pairs.items() if name not in course.rows or course.rows[name].is_open]
        open_questions = [each for each in questions if each not in course.claims or course.claims[each].is_open]
        open_rows = {name for pair in (*open_pairs, *(each.rows for each in open_questions)) for name in pair}
        if not open_rows:
            break
        followers = {placebo.row.name} if placebo is not None and spec.baseline in open_rows else set()
        course = replace(course, seeds={**course.seeds, **dict.fromkeys(open_rows | followers, look.seeds)})
        seen = {name: course.limit(row) for name, row in rows.items()}
        if not all(course.limit(all_rows[name]).is_complete for name in open_rows | followers):
            break
        claims = _decide_claims(look, seen, questions, course.claims)
        still_open = [question.rows for question, decision in claims.items() if decision.is_open]
        kept = [name for name in pairs if any(name in pair for pair in still_open)]
        if followers:
            seen_too = {**seen, **{name: course.limit(all_rows[name]) for name in followers}}
            alone = {name: (name, spec.baseline) for name in followers}
            (judged,) = _decide_rows(plan, look, seen_too, alone, {}, []).values()
            course = replace(course, placebo=judged)
        rows_now = _decide_rows(plan, look, seen, pairs, course.rows, kept)
        course = replace(course, rows=rows_now, claims=claims, last=look)
    return course


def _decide_claims(
    look: Look, rows: Mapping[str, Replicates], questions: Sequence[Question], past: Mapping[Question, Decision]
) -> dict[Question, Decision]:
    """The decisions on all questions after a look; they are one family, whatever they compare."""
    before = {**{question: Decision(Reason.OPEN, look, None) for question in questions}, **past}
    decided = dict(before)
    for (quantity, rule), group in group_questions(questions).items():
        pairs = {question: question.rows for question in group}
        decided |= _decide(look, rows, pairs, before, rule, read_scores(rows, quantity))
    return decided


def _decide_rows(
    plan: Plan,
    look: Look,
    rows: Mapping[str, Replicates],
    pairs: Mapping[str, tuple[str, str]],
    past: Mapping[str, Decision],
    kept: Sequence[str],
) -> dict[str, Decision]:
    """The decisions on all rows after a look; only rows that are comparable with the baseline estimate the noise."""
    base, rule = plan.spec.baseline, Rule(Family.DUNNETT, find_measure(plan.spec).sign, find_margin(plan.spec))
    alike = {name: row.blocks for name, row in rows.items() if base not in rows or is_comparable(row, rows[base])}
    return {**past, **_decide(look, rows, pairs, past, rule, alike, kept)}


def _decide(
    look: Look,
    rows: Mapping[str, Replicates],
    pairs: Mapping[Key, tuple[str, str]],
    past: Mapping[Key, Decision],
    rule: Rule,
    scores: Scores,
    kept: Sequence[Key] = (),
) -> dict[Key, Decision]:
    """The decisions on open pairs of rows after a look; a difference is the first row minus the second."""
    comparable = {key: pair for key, pair in pairs.items() if is_comparable(*(rows[name] for name in pair))}
    open_keys = [key for key in pairs if key not in past or past[key].is_open]
    barred = {key: Decision(Reason.INCOMPARABLE, look, None) for key in open_keys if key not in comparable}
    decided = decide_look(
        look,
        scores,
        {key: {first: 1.0, second: -1.0} for key, (first, second) in comparable.items()},
        past,
        rule,
        kept=kept,
        thinned=[key for key, pair in comparable.items() if is_thinned(*(rows[name] for name in pair))],
    )
    return {**barred, **decided}
