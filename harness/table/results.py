"""The results of a plan: its table, claims and effects, from which every file and figure is written."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from harness.attestation import Digests
from harness.measure import Measure
from harness.plan import Plan
from harness.record import Record
from harness.statistics import Outlook, Verdict, find_outlook, predict_runs
from harness.table.column import Column, Emphasis, Grid, Row, Text, make_frame, make_lines, select_shown, to_rows
from harness.table.columns import list_shown, make_columns
from harness.table.columns.scores import ScoreColumns, name_scores
from harness.table.comparison import Judged, compare_rows, find_best, judge_gains, take_over
from harness.table.entry import QUOTED, SKIPPED, Entry, find_size, list_marks, list_test_marks
from harness.table.findings import Findings, make_findings
from harness.table.image_noise import ReadPredictions, judge_by_images
from harness.table.looks import Course, follow_looks
from harness.table.protocol import find_changes
from harness.table.selection import Replicates, Runs, is_thinned, select_replicates
from harness.tasks import find_margin, find_measure, list_measures

FLOORS_TITLE = "floors:"

Sizes = Mapping[str, tuple[int, int]]
"""Parameters and multiply-adds of cells, by cell id."""


@dataclass(frozen=True)
class Results:
    """The results of a plan, computed from its records.

    Attributes:
        columns: the columns of the frame, with their formats.
        frame: one row per row of the experiment, floors last; its cells have the types of the columns.
        findings: claims and effects.
        replicates: the records of each planned row, by its name.
        outlook: what the seeds of the table could detect; None without a test, or if the number of seeds depends on the
            results.
        course: the looks at a table whose rows get seeds until they are resolved; None: all have the same seeds.
        changes: changes of the experiment after its first run; see `find_changes`.
        undecided: rows whose code has changed since they were trained, and that no rehearsal has checked.
    """

    plan: Plan
    columns: tuple[Column[Entry], ...]
    frame: pd.DataFrame
    findings: Findings
    replicates: Mapping[str, Replicates]
    outlook: Outlook | None
    course: Course | None = None
    changes: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()

    @property
    def measure(self) -> Measure:
        """The deciding measure."""
        return find_measure(self.plan.spec)

    @property
    def score(self) -> ScoreColumns:
        """The columns of that measure."""
        return name_scores(self.measure)

    @cached_property
    def rows(self) -> list[Row]:
        """The rows of the frame, floors left out."""
        return to_rows(self.frame[~self.frame["is_floor"]])

    @cached_property
    def floors(self) -> list[Row]:
        """The rows of models without attention."""
        return to_rows(self.frame[self.frame["is_floor"]])

    @cached_property
    def grid(self) -> Grid:
        """The table for reports: the columns that the experiment selects, and those of the paper; floors last."""
        shown = select_shown(self.columns, self.frame, list_shown(self.plan.spec))
        lines = make_lines(shown, self.rows)
        if self.floors:
            title = Text(FLOORS_TITLE, Emphasis.TITLE), *[Text("")] * (len(shown) - 1)
            lines = *lines, title, *make_lines(shown, self.floors)
        return Grid(shown, lines)

    @property
    def num_tests(self) -> int:
        """The number of tested comparisons that share the error rate of the table; a placebo does not."""
        placebo = self.plan.placebo
        tested = self.frame.loc[self.frame["p"].notna(), "row"]
        return int((tested != (None if placebo is None else placebo.name)).sum())

    def select(self, names: Collection[str]) -> "Results":
        """The same with a selection of rows."""
        return replace(self, frame=self.frame[self.frame["row"].isin(names)])


def make_results(
    plan: Plan,
    records: Iterable[Record],
    *,
    current: Mapping[str, Digests] | None = None,
    sizes: Sizes | None = None,
    read_predictions: ReadPredictions | None = None,
) -> Results:
    """Select the records of each row and compute the table.

    Args:
        plan: the plan of the table; records of other cells and seeds are left out.
        records: may contain several records of one run: results have priority over bugs, newer ones over older ones.
        current: the present digests of code and data of each cell. A row uses other records only if it has none with
            these digests, and is then marked `stale`. A row never has records of two versions.
        sizes: parameters and multiply-adds of rows without runs.
        read_predictions: reads the predictions of a record; None: the noise of the test images is not computed.
    """
    known = list(records)
    rows = select_replicates(plan, known, current or {})
    course = None if plan.spec.until_resolved is None else follow_looks(plan, rows)
    if course is not None:
        rows = [course.limit(row) for row in rows]
    columns = make_columns(list_measures(plan.spec), baseline=plan.spec.baseline)
    by_name = {row.row.name: row for row in rows}
    tested = {name: row for name, row in by_name.items() if not row.row.is_placebo}
    judged = _judge(plan, rows) if course is None else [take_over(course.find(row.row)) for row in rows]
    if read_predictions is not None:
        judged = judge_by_images(rows, judged, plan.spec.baseline, find_margin(plan.spec), read_predictions)
    entries = _list_entries(plan, rows, judged, by_name.get(plan.spec.baseline), sizes or {})
    frame = make_frame(columns, entries)
    outlook = _find_outlook(plan, rows, judged) if course is None else None
    findings, changes = make_findings(plan, tested, course), find_changes(plan.spec, known)
    return Results(plan, columns, frame, findings, by_name, outlook, course, changes)


def _judge(plan: Plan, rows: list[Replicates]) -> list[Judged]:
    """The verdict on each row, by all its seeds."""
    spec, baseline = plan.spec, next((row for row in rows if row.row.name == plan.spec.baseline), None)
    thinned = [baseline is not None and is_thinned(row, baseline) for row in rows]
    others = {row.row.name: row for row in rows if not row.row.is_floor}
    placebo = None if plan.placebo is None else plan.placebo.name
    compared = {} if baseline is None else compare_rows(others, spec.baseline, placebo)
    return judge_gains(find_measure(spec), [compared.get(row.row.name) for row in rows], thinned, find_margin(spec))


def _list_entries(
    plan: Plan, rows: list[Replicates], judged: list[Judged], baseline: Replicates | None, sizes: Sizes
) -> list[Entry]:
    """The entries of planned rows with skipped ones in between, then those that are only quoted, then floors."""
    spec, stated, measure = plan.spec, plan.names, find_measure(plan.spec)
    base_params = None if baseline is None else find_size(baseline, sizes)[0]
    best = find_best({row.row.name: row for row in rows if not (row.row.is_floor or row.row.is_placebo)}, measure)
    predicted = predict_runs({row.row.name: row.blocks for row in rows if not row.row.is_floor})
    planned = [
        Entry(
            row.row.name,
            spec,
            row,
            row.row,
            row.planned,
            verdict,
            find_size(row, sizes),
            base_params,
            predicted.get(row.row.name),
            row.row.name in best,
            marks=(*list_marks(row, baseline, spec), *list_test_marks(verdict, is_placebo=row.row.is_placebo)),
        )
        for row, verdict in zip(rows, judged, strict=True)
    ]
    shown, none = [entry for entry in planned if not entry.is_floor], Runs({}, measure)
    if plan.skipped:
        shown += [Entry(row.name, spec, none, skipped=row.reason, marks=(SKIPPED,)) for row in plan.skipped]
        shown.sort(key=lambda entry: stated.index(entry.name))
    quoted = [name for name, printed in spec.published.items() if printed.quoted and name not in stated]
    shown += [Entry(name, spec, none, marks=(QUOTED,)) for name in quoted]
    return [*shown, *(entry for entry in planned if entry.is_floor)]


def _find_outlook(plan: Plan, rows: list[Replicates], judged: list[Judged]) -> Outlook | None:
    """What the runs of the table could detect, and the seeds that open rows need."""
    of_rows = {
        row.row.name: own
        for row, own in zip(rows, judged, strict=True)
        if own.comparison is not None and not row.row.is_placebo
    }
    compared = {name: own.comparison for name, own in of_rows.items() if own.comparison is not None}
    verdicts = {name: Verdict(own.verdict) for name, own in of_rows.items() if own.verdict}
    scores = {row.row.name: row.blocks for row in rows}
    return find_outlook(scores, plan.spec.baseline, compared, verdicts, find_margin(plan.spec))
