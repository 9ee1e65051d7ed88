"""The tables of claims of the paper and of effects of factors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from harness.plan import Plan
from harness.rows import SUBSETS, list_combinations, list_levels, name_level
from harness.spec import FactorsSpec
from harness.statistics import (
    ClaimVerdict,
    Effect,
    Family,
    Verdict,
    compare_contrasts,
    decide,
    estimate_effects,
)
from harness.table.claims import Answers, JudgedClaim, answer_questions, judge_claims
from harness.table.column import Column, Grid, Kind, Place, make_frame, make_lines, select_shown, to_rows
from harness.table.comparison import Compared, judge, make_comparison_columns, take_over
from harness.table.format import join
from harness.table.looks import Course
from harness.table.selection import Replicates, is_comparable, is_thinned
from harness.tasks import find_measure
from paradigms.config import TERMS

DIRECTIONS = {Verdict.BETTER: "raises", Verdict.WORSE: "lowers", Verdict.UNRESOLVED: "unresolved"}
"""The words for an effect on the value of the measure, whichever direction is better."""

OFF, ON = "off", "on"


@dataclass(frozen=True)
class Finding:
    """A further table; the name of its csv ends in `stem`."""

    title: str
    stem: str
    columns: tuple[Column[Any], ...]
    frame: pd.DataFrame

    @cached_property
    def grid(self) -> Grid:
        """The table as texts for reports."""
        shown = select_shown(self.columns, self.frame, ())
        return Grid(shown, make_lines(shown, to_rows(self.frame)))


@dataclass(frozen=True)
class Findings:
    """Both tables; a table is empty if the experiment states no claims or no factors.

    Attributes:
        claims: one row per claim.
        effects: one row per main effect or interaction of two factors.
        left_out: combinations that are not used for effects: a bad outcome, or other code or data.
    """

    claims: Finding
    effects: Finding
    left_out: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[Finding, ...]:
        """The tables that are not empty."""
        return tuple(table for table in (self.claims, self.effects) if not table.frame.empty)


def make_findings(plan: Plan, rows: Mapping[str, Replicates], course: Course | None = None) -> Findings:
    """Judge claims and estimate effects from the replicates of the table, given by the names of their rows.

    If rows get seeds until they are resolved, the verdicts on claims come from the looks of the `course`.
    """
    answers = answer_questions(plan, rows) if course is None else _take_over(course)
    claims = _make_claims(plan, judge_claims(plan, rows, answers))
    if plan.spec.factors is None or plan.spec.baseline not in rows:
        return Findings(claims, _make_effects(plan, []))
    combined = list_combinations(plan.spec.factors)
    present = {name: rows[name] for name in combined if name in rows}
    kept = _select_kept(present, rows[plan.spec.baseline])
    factors, points = _make_design(plan.spec.factors, kept)
    effects = _make_effects(plan, _judge_effects(factors, points, list(kept.values())))
    return Findings(claims, effects, tuple(name for name in combined if name not in kept))


def _take_over(course: Course) -> Answers:
    return {question: take_over(decision) for question, decision in course.claims.items()}


def _make_claims(plan: Plan, claims: list[JudgedClaim]) -> Finding:
    proven = (ClaimVerdict.SUPPORTED, ClaimVerdict.REFUTED, ClaimVerdict.CONFOUNDED)
    compared = _count_pairs(make_comparison_columns(find_measure(plan.spec), proven=proven))
    hidden = {name: compared[name] if name == "verdict" else replace(compared[name], title="") for name in compared}
    columns: tuple[Column[JudgedClaim], ...] = (
        Column("claim", lambda judged: judged.claim.text, title="claim", place=Place.RESULT),
        Column("source", lambda judged: judged.claim.source, title="source", place=Place.SOURCE, on_terminal=False),
        Column("evidence", lambda judged: judged.evidence, title="evidence", place=Place.COUNT),
        *hidden.values(),
    )
    return Finding("Claims", "claims", columns, make_frame(columns, claims))


def _make_effects(plan: Plan, effects: list[Compared]) -> Finding:
    measure, proven = find_measure(plan.spec), (DIRECTIONS[Verdict.BETTER], DIRECTIONS[Verdict.WORSE])
    compared = _count_pairs(make_comparison_columns(measure, title=f"{measure.difference} [95 %]", proven=proven))
    compared["sign_flip_p"] = replace(compared["sign_flip_p"], title="")
    columns: tuple[Column[Compared], ...] = (
        Column("effect", lambda effect: effect.name, title="effect", place=Place.RESULT),
        Column("factors", lambda effect: effect.about, Kind.LIST, join(" × ")),
        *compared.values(),
    )
    return Finding("Effects", "effects", columns, make_frame(columns, effects))


def _count_pairs(columns: dict[str, Column[Any]]) -> dict[str, Column[Any]]:
    """Show the number of pairs of seeds; 0 without a comparison."""
    pairs = replace(
        columns["pairs"],
        value=lambda item: 0 if item.judged.comparison is None else item.judged.comparison.n,
        title="n",
        place=Place.COUNT,
    )
    return {**columns, "pairs": pairs}


def _select_kept(rows: Mapping[str, Replicates], baseline: Replicates) -> dict[str, Replicates]:
    """The combinations without a bad outcome whose code and data are those of the baseline."""
    return {name: row for name, row in rows.items() if is_comparable(row, baseline) and not is_thinned(row)}


def _make_design(stated: FactorsSpec, rows: Iterable[str]) -> tuple[dict[str, tuple[str, ...]], list[dict[str, str]]]:
    """The factors with their levels, and the levels of each row; subsets of terms become four factors, off or on."""
    levels = {name: tuple(map(name_level, values)) for name, values in list_levels(stated).items() if len(values) > 1}
    combined = list_combinations(stated)
    points = [{name: name_level(combined[row][name]) for name in levels} for row in rows]
    if levels.get("parameterization") != tuple(map(name_level, SUBSETS)):
        return levels, points
    terms: dict[str, tuple[str, ...]] = dict.fromkeys(TERMS, (OFF, ON))
    del levels["parameterization"]
    switches = [{term: ON if term in combined[row]["parameterization"] else OFF for term in TERMS} for row in rows]
    return {**terms, **levels}, [{**on, **point} for on, point in zip(switches, points, strict=True)]


def _judge_effects(
    factors: Mapping[str, tuple[str, ...]], points: Sequence[Mapping[str, str]], rows: Sequence[Replicates]
) -> list[Compared]:
    names = [row.row.name for row in rows]
    effects = estimate_effects(factors, points, np.eye(len(rows)))
    contrasts = [_to_contrast(effect, names) for effect in effects]
    known = [contrast for contrast in contrasts if contrast is not None]
    compared = iter(compare_contrasts({row.row.name: row.blocks for row in rows}, known, Family.HOLM))
    comparisons = [None if contrast is None else next(compared) for contrast in contrasts]
    judged = judge(comparisons, lambda item: DIRECTIONS[decide(item.delta, item.p)])
    return [
        Compared(
            " × ".join(_name(factors[factor], level, factor) for factor, level in effect.parts),
            tuple(factor for factor, _ in effect.parts),
            verdict,
        )
        for effect, verdict in zip(effects, judged, strict=True)
    ]


def _name(levels: Sequence[str], level: str, factor: str) -> str:
    """The name of an effect: a term that is on by its name, any other level as `level vs first level`."""
    return factor if level == ON else f"{level} vs {levels[0]}"


def _to_contrast(effect: Effect, rows: Sequence[str]) -> dict[str, float] | None:
    """An effect as weights of all rows; None if the measured combinations do not determine it."""
    return None if effect.values is None else dict(zip(rows, effect.values, strict=True))
