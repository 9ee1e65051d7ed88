"""The columns of the table of an experiment, in the order of its csv; custom columns come last."""

from collections.abc import Sequence

from harness.measure import Measure
from harness.spec import ExperimentSpec
from harness.spec.experiment import SCORE
from harness.table.column import Column, Kind, Latex, Note, Place
from harness.table.columns.costs import explain_solutions, make_costs, make_curve
from harness.table.columns.levels import make_levels
from harness.table.columns.origin import make_origin
from harness.table.columns.outcomes import make_outcomes
from harness.table.columns.paper import make_published_curve, make_published_results, make_published_sizes
from harness.table.columns.scores import explain_delta, explain_floors, make_mean, make_scores
from harness.table.comparison import make_comparison_columns
from harness.table.entry import Entry
from harness.tasks import find_measure, list_measures

COLUMNS: dict[str, Column[Entry]] = {}
"""Custom columns by name: a plug-in adds its own here, behind all others."""

MAX_NAME_LENGTH = 30
"""Characters of a row's name in LaTeX; longer ones are broken into lines."""


def list_columns(spec: ExperimentSpec) -> tuple[str, ...]:
    """Names of the frame's and the csv's columns; those of scores have the names of the task's measures in them."""
    return tuple(column.name for column in make_columns(list_measures(spec), baseline=spec.baseline))


def list_shown(spec: ExperimentSpec) -> tuple[str, ...]:
    """What an experiment's `columns` ask for; the deciding measure is `score`, however the file names it."""
    deciding = find_measure(spec).name
    return tuple(SCORE if column == deciding else column for column in spec.columns)


def make_columns(measures: Sequence[Measure], *, baseline: str) -> tuple[Column[Entry], ...]:
    """The columns in order: row, score, difference and verdict first, then sizes and origin.

    The first of `measures` decides.
    """
    measure, *others = measures
    compared = make_comparison_columns(
        measure, title=f"Δ to {baseline} [95 %]", key="delta", note=Note(2, explain_delta)
    )
    mean, std, val_mean, is_best = make_scores(measure)
    name = Column[Entry](
        "row",
        lambda entry: entry.name,
        title="row",
        place=Place.RESULT,
        latex=Latex(width=0.3, max_length=MAX_NAME_LENGTH),
        note=Note(6, explain_solutions),
    )
    return (
        name,
        mean,
        std,
        *(compared.pop(column) for column in ("delta", "delta_low", "delta_high", "verdict")),
        *make_outcomes(),
        *compared.values(),
        is_best,
        Column("image_error", lambda entry: entry.judged.image_error, Kind.NUMBER),
        *map(make_mean, others),
        val_mean,
        *make_published_results(measure),
        Column("is_floor", lambda entry: entry.is_floor, Kind.FLAG, note=Note(6, explain_floors)),
        *make_levels(),
        *make_costs(),
        *make_published_sizes(),
        make_curve(measure),
        make_published_curve(measure),
        *make_origin(),
        *COLUMNS.values(),
    )
