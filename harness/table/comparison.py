"""Verdicts over several comparisons, and the columns that every table of comparisons has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol

import pandas as pd

from harness.measure import Measure
from harness.statistics import ALPHA, Comparison, Decision, Family, Verdict, compare, compare_contrasts, decide
from harness.table.column import Column, Kind, Latex, Note, Place, Row
from harness.table.format import show_in_math, show_number
from harness.table.selection import Runs, is_comparable


@dataclass(frozen=True)
class Judged:
    """A comparison with its verdict.

    Attributes:
        comparison: None if no runs are paired.
        verdict: empty if there is none.
        alpha: the error rate of the table at the look of this comparison.
        image_error: standard error that other test images would add; None if unknown.
        rests_on_images: whether the verdict would not hold with this error.
    """

    comparison: Comparison | None = None
    verdict: str = ""
    alpha: float = ALPHA
    image_error: float | None = None
    rests_on_images: bool = False

    @property
    def is_disputed(self) -> bool:
        """Whether the paired t-test with Holm's correction gives another verdict."""
        if self.comparison is None or self.comparison.p is None or self.comparison.holm_p is None:
            return False
        return (self.comparison.p < self.alpha) != (self.comparison.holm_p < self.alpha)


@dataclass(frozen=True)
class Compared:
    """A row of a table of comparisons: its name, what it is about, and the comparison."""

    name: str
    about: Any
    judged: Judged


class HasJudged(Protocol):
    """An item with a comparison."""

    @property
    def judged(self) -> Judged:
        """The comparison of the row."""


def compare_rows(rows: Mapping[str, Runs], baseline: str, placebo: str | None = None) -> dict[str, Comparison | None]:
    """Compare every row with the baseline; None for rows whose images, code or environment differ from the baseline's.

    A `placebo` is a control, not a hypothesis. It is not part of the family that shares the table's error rate, and its
    runs are used for its own comparison only. Adding a placebo therefore changes no number of another row and costs no
    power. It is compared by the same error model, fitted to all rows and the placebo, with replicate s in block s. It
    shares no random stream with that block. If seeds shift all rows equally, its spread is larger than that of the
    others, and the model accounts for this only in part. In simulations of eight rows, a placebo differs in 5 % of
    tables if seeds do not shift rows, and in 9 % if they shift all rows by one standard deviation of the noise.
    """
    comparable = {name: row.blocks for name, row in rows.items() if is_comparable(row, rows[baseline])}
    tested = {name: blocks for name, blocks in comparable.items() if name != placebo}
    found = compare(tested, baseline) if baseline in comparable else {}
    if placebo in comparable and baseline in comparable:
        (found[placebo],) = compare_contrasts(comparable, [{placebo: 1.0, baseline: -1.0}], Family.DUNNETT)
    return {name: found.get(name) for name in rows}


def find_best(rows: Mapping[str, Runs], measure: Measure) -> frozenset[str]:
    """The row with the best mean, and all rows that Dunnett's test cannot separate from it; empty without a test."""
    means = {name: measure.sign * fmean(row.scores.values()) for name, row in rows.items() if row.scores}
    if not means:
        return frozenset()
    best = max(means, key=means.__getitem__)
    compared = compare_rows(rows, best)
    tested = {name: item for name, item in compared.items() if item is not None and item.p is not None}
    near = {name for name, item in tested.items() if item.p is not None and item.p >= ALPHA}
    return frozenset({best, *near}) if tested else frozenset()


def judge(
    comparisons: Sequence[Comparison | None],
    to_verdict: Callable[[Comparison], str],
    thinned: Sequence[bool] | None = None,
) -> list[Judged]:
    """The verdict on each comparison; fewer than two pairs have no verdict.

    Args:
        comparisons: None if no runs are paired.
        to_verdict: the verdict on a comparison.
        thinned: whether a bad outcome has removed pairs, so that the comparison stays unresolved.
    """
    judged = []
    flags = thinned or [False] * len(comparisons)
    for comparison, is_thinned in zip(comparisons, flags, strict=True):
        if comparison is None or comparison.n == 1:
            judged.append(Judged(comparison))
        else:
            judged.append(Judged(comparison, Verdict.UNRESOLVED if is_thinned else to_verdict(comparison)))
    return judged


def take_over(decision: Decision | None) -> Judged:
    """The comparison and verdict of a look; empty before the first look."""
    if decision is None or decision.comparison is None:
        return Judged()
    return Judged(decision.comparison, decision.reason.verdict, decision.look.alpha)


def judge_gains(
    measure: Measure, comparisons: Sequence[Comparison | None], thinned: Sequence[bool], margin: float
) -> list[Judged]:
    """Whether the rows are better, worse or equivalent by a measure; see `judge`."""

    def to_verdict(item: Comparison) -> str:
        return decide(measure.sign * item.delta, item.p, item.interval, margin)

    return judge(comparisons, to_verdict, thinned)


def make_comparison_columns(
    measure: Measure,
    *,
    title: str = "Δ [95 %]",
    proven: Sequence[str] = (Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT),
    key: str = "",
    note: Note | None = None,
) -> dict[str, Column[HasJudged]]:
    """The columns of pairs, difference, interval, p-values and verdict, by name.

    Args:
        measure: the measure that is compared.
        title: title of the difference.
        proven: verdicts that are emphasized.
        key: key of the columns in reports.
        note: note below the table.
    """
    delta = Column[HasJudged](
        "delta",
        _read(lambda comparison: comparison.delta),
        Kind.NUMBER,
        title=title,
        key=key,
        place=Place.RESULT,
        text=lambda row: show_delta(row, measure),
        latex=Latex("r@{ }l", r"$\Delta$ [95\,\%]", lambda row: _show_delta_parts(row, measure)),
        note=note,
    )
    verdict = Column[HasJudged](
        "verdict",
        lambda item: item.judged.verdict,
        title="verdict",
        key=key,
        place=Place.VERDICT,
        is_proven=lambda row: row["verdict"] in proven,
        latex=Latex(),
    )
    sign_flip = Column[HasJudged](
        "sign_flip_p",
        _read(lambda comparison: comparison.sign_flip_p),
        Kind.NUMBER,
        title="sign-flip p",
        key=key,
        place=Place.TEST,
        form=".2f",
        on_terminal=False,
    )
    columns: tuple[Column[HasJudged], ...] = (
        Column("pairs", _read(lambda comparison: comparison.n), Kind.COUNT),
        delta,
        Column("delta_low", _read(lambda comparison: comparison.low), Kind.NUMBER),
        Column("delta_high", _read(lambda comparison: comparison.high), Kind.NUMBER),
        Column("standard_error", _read(lambda comparison: comparison.error), Kind.NUMBER),
        Column("df", _read(lambda comparison: comparison.df), Kind.NUMBER),
        Column("p", _read(lambda comparison: comparison.p), Kind.NUMBER),
        Column("t_p", _read(lambda comparison: comparison.t_p), Kind.NUMBER),
        Column("holm_p", _read(lambda comparison: comparison.holm_p), Kind.NUMBER),
        sign_flip,
        verdict,
    )
    return {column.name: column for column in columns}


def _read(get: Callable[[Comparison], float | None]) -> Callable[[HasJudged], float | None]:
    """Read a value of the comparison of an item; None without a comparison."""
    return lambda item: None if item.judged.comparison is None else get(item.judged.comparison)


def show_delta(row: Row, measure: Measure) -> str:
    """A difference with its interval."""
    low, high, form = row["delta_low"], row["delta_high"], f"+{measure.format}"
    interval: str = "" if pd.isna(low) else f" [{low:{form}}, {high:{form}}]"
    return show_number(row["delta"], form) + interval


def _show_delta_parts(row: Row, measure: Measure) -> Sequence[str]:
    low, high, form = row["delta_low"], row["delta_high"], f"+{measure.format}"
    interval: str = f"[{show_in_math(low, form)}, {show_in_math(high, form)}]" if pd.notna(low) else ""
    return [show_in_math(row["delta"], form), interval]
