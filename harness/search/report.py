"""The report of a search: a csv of its trials, figures and one HTML page."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from matplotlib.figure import Figure

from harness.files import write_atomically
from harness.measure import Measure
from harness.plan import SkippedRow
from harness.report.figures.figure import write_figure
from harness.report.figures.study import (
    Scale,
    draw_front,
    draw_history,
    draw_importances,
    draw_parallel,
    draw_slice,
    draw_surface,
)
from harness.report.files import name_folder
from harness.report.markdown import Section, to_markdown_grid, to_markdown_table
from harness.report.page import to_page
from harness.search.space import Parameter
from harness.search.spec import Objective, to_label
from harness.search.study import Study
from harness.search.trial import TrialResult, TrialState
from harness.table.column import Grid, Text
from harness.text import count_noun, escape_markdown, to_csv

LABELS: dict[Objective, str] = {
    "macs": "multiply-adds an image",
    "throughput": "training images/s",
}

PAGE = "report.html"

MIN_MEASURED = 4
"""The minimal number of trials for importances."""


@dataclass(frozen=True)
class WinnerTables:
    """The results on the test set.

    Attributes:
        table: the winner, its controls and the stated rows, as texts.
        controls: the frame of `judge_controls`.
        skipped: controls that are impossible for this winner.
    """

    table: Grid
    controls: pd.DataFrame
    skipped: Sequence[SkippedRow]


@dataclass(frozen=True)
class StudyFigure:
    """A figure with the title of its section."""

    title: str
    figure: Figure


def write_report(study: Study, results: Path, *, winner: WinnerTables | None = None) -> tuple[Path, ...]:
    """Write `<results>/<recipe>/<search>/`: `trials.csv`, each figure as PNG and SVG, and `report.html`.

    If the tables of the winner are given, the page shows them, and `controls.csv` has the comparisons with its
    controls. Returns the paths, the page first.
    """
    spec = study.spec
    folder = results / name_folder(spec) / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    frame = to_frame(study)
    figures = draw_figures(study, frame)
    tables = {"trials.csv": frame}
    tables |= {"controls.csv": winner.controls} if winner is not None and study.spec.controls else {}
    for name, table in tables.items():
        write_atomically(folder / name, to_csv(label_choices(study, table)))
    page = folder / PAGE
    pictures = [path for stem, drawn in figures.items() for path in write_figure(drawn.figure, folder, stem)]
    write_atomically(page, _to_page(study, frame, figures.values(), winner))
    return page, *(folder / name for name in tables), *pictures


def label_choices(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Format a table for csv: values null and lists become JSON; an empty cell has no value."""
    written = table.copy()
    for parameter in study.space.parameters:
        if parameter.dimension.choices is not None and parameter.name in written:
            cells = [value if value is pd.NA else to_label(value) for value in written[parameter.name]]
            written[parameter.name] = pd.Series(cells, dtype=object)
    return written


def to_description(study: Study) -> str:
    """Title and best trial in Markdown, shown in the store beside the runs."""
    title, best = escape_markdown(study.spec.title), escape_markdown(_describe_best(study))
    return f"**{title}**\n\n{best}\n\nFigures and all trials: artifact `{PAGE}`."


def to_frame(study: Study) -> pd.DataFrame:
    """One line per ended trial: state, objectives, values of the fields, reason for no measurement, run.

    `value` is the first objective; `is_best` marks the trials of the Pareto front. The columns of fields have Python
    objects, since pandas would convert 1 beside 2.5 to 1.0, and None to NaN.
    """
    names, objectives = [parameter.name for parameter in study.space.parameters], study.spec.study.objectives
    with study.guarded():
        best = {trial.number for trial in study.optuna.best_trials}
    columns = ["trial", "state", "value", "is_best", *objectives[1:], *names]
    columns += ["reason", "is_reused", "cell_id", "run_id", "digests"]
    ended = study.ended()
    lines = [_to_line(result, result.number in best) for result in ended]
    frame = pd.DataFrame(lines, columns=columns)
    for name in names:
        frame[name] = pd.Series([result.values.get(name, pd.NA) for result in ended], dtype=object)
    return frame


def _to_line(result: TrialResult, is_best: bool) -> dict[str, Any]:
    return {
        "trial": result.number,
        "state": result.state.value,
        "value": result.objectives.get("val"),
        "is_best": is_best,
        **result.objectives,
        "reason": result.reason,
        "is_reused": result.is_reused,
        "cell_id": result.cell_id,
        "run_id": result.run_id,
        "digests": result.digests,
    }


def name_first_objective(measure: Measure) -> str:
    """The name of the first objective, which is measured on the validation images."""
    return f"validation {measure.label}"


def draw_figures(study: Study, frame: pd.DataFrame) -> dict[str, StudyFigure]:
    """Draw every figure for which there are enough trials, by the stem of its files."""
    measured = frame[frame["value"].notna()]
    measure = study.measure
    label = name_first_objective(measure)
    figures = {"history": StudyFigure("History", draw_history(frame, measure, label))}
    if measured.empty:
        return figures
    scales = [_to_scale(parameter) for parameter in study.space.parameters]
    importances = find_importances(study)
    if importances:
        figures["importances"] = StudyFigure("Importance of each parameter", draw_importances(importances))
    if len(scales) == 1:
        figures["slice"] = StudyFigure("Response", draw_slice(measured, scales[0], label))
    for x, y in combinations(scales, 2):
        stem, title = "surface", "Response surface"
        if len(scales) > 2:
            stem, title = f"surface_{x.name}_{y.name}", f"Response surface of {x.name} and {y.name}"
        figures[stem] = StudyFigure(title, draw_surface(measured, x, y, measure, label))
    figures["parallel"] = StudyFigure("Parallel coordinates", draw_parallel(measured, scales, measure, label))
    for other in study.spec.study.objectives[1:]:
        figures["front"] = StudyFigure("Pareto front", draw_front(measured, label, other, LABELS[other]))
    return figures


def find_importances(study: Study) -> Mapping[str, float]:
    """The share of each parameter in the validation score by PED-ANOVA (arXiv:2304.10255).

    Empty if there are too few trials.
    """
    complete = [result for result in study.ended() if result.state == TrialState.COMPLETE]
    if len(complete) < MIN_MEASURED or len({result.objectives["val"] for result in complete}) < 2:
        return {}
    if len(study.spec.study.objectives) == 1:
        with study.guarded():
            return optuna.importance.get_param_importances(study.optuna)
    sign = study.measure.sign
    with study.guarded(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*low `target` values", UserWarning)  # so it is asked for
        return optuna.importance.get_param_importances(study.optuna, target=lambda trial: -sign * trial.values[0])


def _to_scale(parameter: Parameter) -> Scale:
    dimension = parameter.dimension
    if dimension.choices is not None:
        labels = tuple(show_choice(choice) for choice in dimension.choices)
        return Scale(parameter.name, choices=dimension.choices, labels=labels)
    zero_at = parameter.zero_at if dimension.zero else None
    return Scale(parameter.name, dimension.ends, log=dimension.log, zero_at=zero_at)


def _to_page(study: Study, frame: pd.DataFrame, figures: Iterable[StudyFigure], winner: WinnerTables | None) -> str:
    sections = [
        Section("Best trial", escape_markdown(_describe_best(study))),
        *_describe_winner(study, winner),
        *(Section(drawn.title, figures=(drawn.figure,)) for drawn in figures),
        Section("Trials", _to_table(_shorten(study, frame))),
    ]
    return to_page(study.spec.title, sections, footer=_describe_study(study, frame))


def _describe_best(study: Study) -> str:
    best = study.find_best()
    if best is None:
        return "No trial was measured."
    return (
        f"Trial {best.number}: {describe_values(best.values)}; validation {study.measure.title} "
        f"{study.measure.show(best.objectives['val'])}. It is the best of all trials by the very images that chose it: "
        "what it is worth, only other seeds and the test set tell."
    )


def _describe_winner(study: Study, winner: WinnerTables | None) -> Iterator[Section]:
    if winner is None:
        return
    seeds = count_noun(study.spec.seeds, "paired seed")
    note = (
        f"The winner retrained beside the stated rows with {seeds} that no trial had; "
        f"{study.measure.title} of the test set, which the search did not use. Δ is to {study.spec.baseline}, with "
        "its 95 % Student-t interval."
    )
    yield Section("The winner on the test set", f"{to_markdown_grid(winner.table)}\n\n{escape_markdown(note)}")
    if study.spec.controls:
        yield Section("Beyond rescaling", _describe_controls(winner, study.measure))


def _describe_controls(winner: WinnerTables, measure: Measure) -> str:
    note = (
        "Each control is the winner with some values replaced. Δ is the winner less the control, seed by seed, in "
        f"{measure.difference}; better or worse only where the paired t-test rejects equality at 5 % after Holm's "
        "correction over the controls. Unresolved: there is no evidence that what the control removes matters."
    )
    skipped = [f"{row.name}: not possible with this winner: {row.reason}" for row in winner.skipped]
    table = _to_table(winner.controls.map(show_value))
    return "\n\n".join([table, *map(escape_markdown, [note, *skipped])])


def _to_table(texts: pd.DataFrame) -> str:
    return to_markdown_table(list(texts.columns), [map(Text, line) for line in texts.to_numpy()])


def _describe_study(study: Study, frame: pd.DataFrame) -> str:
    """Describe the study: its trials, settings, and versions of code and data."""
    spec, counts = study.spec, frame["state"].value_counts()
    states = ", ".join(f"{counts[state]} {state.value}" for state in TrialState if state in counts)
    lines = [
        f"Study {study.name}: {count_noun(len(frame), 'trial')} ({states or 'none'}) around row {spec.row}, "
        f"recipe {spec.recipe.name}; sampler {spec.study.sampler}, pruner {spec.study.pruner}. "
        f"Every trial is replicate {spec.study.seed}: the same images, order and initial values.",
        "The value 0 of a parameter is drawn below its range, where the search samples it.",
    ]
    versions = sorted({digests for digests in frame["digests"] if digests})
    if len(versions) > 1:
        lines.append(f"The trials are of {len(versions)} versions of code or data: {'; '.join(versions)}.")
    else:
        lines += [f"Code and data: {version}." for version in versions]
    return "\n\n".join(map(escape_markdown, lines))


def _shorten(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that the page shows; the csv has all."""
    shown = frame.drop(columns=["is_best", "cell_id", "digests"])
    names = [parameter.name for parameter in study.space.parameters]
    shown = shown.assign(
        **{name: shown[name].map(lambda value: "" if value is pd.NA else show_choice(value)) for name in names}
    )
    return shown.map(show_value).rename(columns={"value": name_first_objective(study.measure)})


def describe_values(values: Mapping[str, Any]) -> str:
    """`ghost_lambda = 1.25, ghost_gamma = 0`."""
    return ", ".join(f"{name} = {show_choice(value)}" for name, value in values.items())


def show_choice(value: Any) -> str:
    """Format the value of a field; `null` and lists as in the file."""
    return show_value(to_label(value))


def show_value(value: Any) -> str:
    """Format a number with four digits and anything else as text; missing values are empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.4g}"
    return str(value)
