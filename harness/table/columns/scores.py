"""Columns of scores: the deciding measure and the others, with the notes on differences and floors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from harness.measure import Measure
from harness.spec import ExperimentSpec
from harness.spec.experiment import SCORE
from harness.statistics import MAX_EXACT_SEEDS, MAX_SEEDS, Decision, Outlook, Verdict, summarize
from harness.table.column import Column, Kind, Latex, Note, Place, Row
from harness.table.entry import Entry
from harness.table.format import show_in_math, show_number
from harness.table.looks import Course
from harness.tasks import find_margin
from harness.text import count_noun, escape_code, escape_markdown

if TYPE_CHECKING:
    from harness.table.results import Results


CHANGED = "Whoever changes a rule after seeing data can choose what it proves: the error rates below do not hold."


@dataclass(frozen=True)
class ScoreColumns:
    """Names of the columns of a measure.

    Attributes:
        mean: mean on the test set over the replicates.
        std: its standard deviation; only for the deciding measure.
        val_mean: mean of the last validation; only for the deciding measure.
        published: the printed number; only for the deciding measure.
    """

    mean: str
    std: str
    val_mean: str
    published: str


def name_scores(measure: Measure) -> ScoreColumns:
    """The names of the columns of a measure: `NAME_mean` and others, with the name of the measure."""
    name = measure.name
    return ScoreColumns(f"{name}_mean", f"{name}_std", f"val_{name}_mean", f"published_{name}")


def make_scores(measure: Measure) -> tuple[Column[Entry], ...]:
    """The columns of mean and standard deviation on the test set, of the last validation, and of the best row."""
    names = name_scores(measure)

    def show_spread(row: Row, spread: str) -> str:
        return "" if pd.isna(row[names.std]) else f"{spread} {row[names.std]:{measure.format}}"

    mean = Column[Entry](
        names.mean,
        lambda entry: summarize(list(entry.runs.scores.values())).mean,
        Kind.NUMBER,
        title=measure.title,
        unit=measure.unit,
        key=SCORE,
        place=Place.RESULT,
        text=lambda row: show_number(row[names.mean], measure.format) + show_spread(row, " ±"),
        latex=Latex("r@{}l", cells=lambda row: [_show_mean(row, names.mean, measure), show_spread(row, r" $\pm$")]),
        note=Note(0, _explain_score),
    )
    std = Column[Entry](names.std, lambda entry: summarize(list(entry.runs.scores.values())).std, Kind.NUMBER)
    best = Column[Entry]("is_best", lambda entry: entry.is_best, Kind.FLAG)
    return mean, std, Column(names.val_mean, lambda entry: entry.average(measure.val), Kind.NUMBER), best


def _show_mean(row: Row, name: str, measure: Measure) -> str:
    """Show a mean, in bold if no row is known to be better."""
    shown = show_in_math(row[name], measure.format)
    return rf"\textbf{{{show_number(row[name], measure.format)}}}" if row["is_best"] else shown


def make_mean(measure: Measure) -> Column[Entry]:
    """The column of a measure that does not decide."""
    return Column(
        name_scores(measure).mean,
        lambda entry: entry.average(measure.test),
        Kind.NUMBER,
        title=measure.title,
        unit=measure.unit,
        key=measure.name,
        place=Place.COUNT,
        form=measure.format,
        latex=Latex("r"),
    )


def _explain_score(results: Results) -> Iterator[str]:
    """The note on the mean and the spread of scores."""
    yield f"**{results.measure.title}** is the mean ± the standard deviation over the n measured replicates."


def explain_delta(results: Results) -> Iterator[str]:
    """The note on differences, intervals and verdicts."""
    frame, spec = results.frame, results.plan.spec
    if results.plan.placebo is not None:
        yield f"**Placebo**: {escape_markdown(describe_placebo(results))}"
    tests, baseline = results.num_tests, escape_markdown(spec.baseline)
    if frame.loc[frame["row"] == spec.baseline, "skipped"].any():
        yield f"There is no **Δ**: the baseline, {baseline}, is skipped."
        return
    if results.changes:
        yield f"**Changed after the first of these runs**: {'; '.join(results.changes)}. {CHANGED}"
    if tests == 0:
        yield f"**Δ** is the row less {baseline}. One pair of seeds has no interval and resolves nothing."
        return
    alike = "augmentation and initial weights" if spec.recipe.init_recipe is None else "augmentation"
    yield (
        f"**Δ** is the row less {baseline} over equal seeds (the same split, order, {alike}). All intervals of the "
        "table hold together with 95 %. Their error is estimated from all rows: a block design with seeds as blocks "
        "(docs/statistics.md)."
    )
    margin = find_margin(spec)
    equivalent = f", equivalent where its interval lies within ±{margin:g}" if margin else ""
    if results.course is not None:
        yield from _explain_looks(results.course, spec, equivalent)
        yield from _explain_images(frame, results.measure)
        return
    yield (
        f"**verdict**: better or worse where Dunnett's step-down test over the {count_noun(tests, 'comparison')} of "
        f"this table rejects equality at 5 %{equivalent}, otherwise unresolved."
        f"{_to_sign_flip_note(int(frame['pairs'].max()))}"
    )
    yield from _explain_images(frame, results.measure)
    if results.outlook is not None:
        yield from _explain_outlook(results.outlook, measure=results.measure)


def describe_placebo(results: Results) -> str:
    """The note on the placebo and its verdict; empty without a placebo."""
    placebo = results.plan.placebo
    if placebo is None:
        return ""
    seeds = [run.seed for run in results.plan.runs if run.row == placebo]
    verdict = next(iter(results.frame.loc[results.frame["row"] == placebo.name, "verdict"]), "")
    found = {
        "": "it has no verdict yet",
        Verdict.UNRESOLVED: "it is unresolved, as it should be",
        Verdict.EQUIVALENT: "it is equivalent, as it should be",
    }.get(verdict, f"it is {verdict}: do not trust this table's verdicts")
    return (
        f"{placebo.name} is the baseline, {results.plan.spec.baseline}, with seeds {seeds[0]} to {seeds[-1]}: the same "
        f"model with other random streams; {found}. Its test and interval are its own, outside of the correction for "
        "several rows."
    )


def _explain_looks(course: Course, spec: ExperimentSpec, equivalent: str) -> Iterator[str]:
    """The note on the rule by which rows got their seeds, and where each row stopped."""
    levels = ", ".join(f"{100 * look.alpha:.2g} %" for look in course.looks)
    bounds = ", ".join(f"{look.futile_t:.2g}" for look in course.looks if not look.is_last)
    seeds = ", ".join(str(look.seeds) for look in course.looks)
    yield (
        f"**Seeds until resolved**: the table is looked at after {seeds} seeds, at the levels {levels}, which keep the "
        "probability of any wrong verdict at 5 % over all looks (docs/decisions/0016-seeds-until-resolved.md). "
        f"**Δ** is the row less {escape_markdown(spec.baseline)} over equal seeds; intervals hold together with 95 %, "
        "over all rows and looks. "
        f"**verdict**: better or worse where Dunnett's step-down test of a look rejects equality{equivalent}. A row "
        f"stops there, or as futile where |t| is below {bounds}, and no claim on it is open. Δ, interval and verdict "
        "are those of the look at which the row stopped; the difference of an early stop is overestimated on average."
    )
    yield f"Rows: {_list_stops(course.rows)}."
    if course.claims:
        yield f"Claims: {_list_stops({question.text: item for question, item in course.claims.items()})}."


def _list_stops(decisions: Mapping[str, Decision]) -> str:
    """`Net1: better after 5 seeds`."""
    return "; ".join(
        f"{escape_markdown(name)}: {item.reason} after {item.look.seeds} seeds" for name, item in decisions.items()
    )


def _to_sign_flip_note(pairs: int) -> str:
    if pairs > MAX_EXACT_SEEDS:
        return ""
    return f" The exact sign-flip p-value uses a row's own pairs; with {pairs} it cannot be below {2 / 2**pairs:.2g}."


def _explain_images(frame: pd.DataFrame, measure: Measure) -> Iterator[str]:
    """The note on how much another test set would change the differences."""
    errors = frame["image_error"].dropna()
    if not errors.empty:
        yield (
            "Verdicts are about training, on these test images. Another test set of the same size would move a "
            f"difference by a standard error of {errors.median():{measure.format}} (median of the rows)."
        )


def _explain_outlook(outlook: Outlook, *, measure: Measure) -> Iterator[str]:
    """The note on the detectable difference, and on the seeds that open rows need."""
    text = f"These seeds detect a difference of {outlook.detectable:{measure.format}} with 80 % power."
    if outlook.seeds:
        counts = [f"{escape_markdown(row)} {n or f'over {MAX_SEEDS:,}'}" for row, n in outlook.seeds.items()]
        text += f" Seeds needed to settle the open rows if their differences do not change: {', '.join(counts)}."
    if outlook.variance_ratio is not None:
        text += f" Variance of paired differences over that of unpaired ones: {outlook.variance_ratio:.2f}."
    yield text


def explain_floors(results: Results) -> Iterator[str]:
    """The note on floors, with a warning if the baseline is not above all of them."""
    frame, spec, measure = results.frame, results.plan.spec, results.measure
    if not frame["is_floor"].any():
        yield f"The recipe {escape_code(spec.recipe.name)} trains no floors (models without attention)."
        return
    scores = measure.sign * frame[name_scores(measure).mean]
    is_below = scores[frame["row"] == spec.baseline].max() <= scores[frame["is_floor"]].max()
    baseline = escape_markdown(spec.baseline)
    warning = f" {baseline} is not above them: this table shows early optimization, not quality." if is_below else ""
    yield f"**Floors** have no attention.{warning}"
