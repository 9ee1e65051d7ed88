"""The texts around the tables of every report, in Markdown: title, summary, notes, origin of the numbers."""

from collections.abc import Iterable, Iterator

import pandas as pd

from harness.plan import PlannedRow
from harness.report.training import to_training_notes
from harness.spec import BackboneSpec, DataSpec, ExperimentSpec, Plot, RecipeSpec
from harness.statistics import ClaimVerdict
from harness.table.columns import list_shown
from harness.table.columns.origin import show_date
from harness.table.columns.paper import to_source
from harness.table.findings import Findings
from harness.table.format import show_count
from harness.table.results import Results
from harness.tasks import TASKS
from harness.text import NOTHING, count_noun, escape_code, escape_markdown

PLOT_TITLES: dict[Plot, str] = {
    "delta": "Differences to the baseline, seed by seed",
    "curve": "Validation {quality} by epoch",
    "size": "{quality} against size",
    "heads": "{quality} by heads",
}

VERSIONS = ("python", "torch", "torchvision", "timm", "mlflow", "numpy")


def to_title(spec: ExperimentSpec) -> str:
    """The title of the experiment, and its place in the paper."""
    return spec.title if spec.source is None else f"{spec.title} ({to_source(spec)})"


def name_recipe(spec: ExperimentSpec) -> str:
    """The name of the recipe with the overrides of `--set`: `imagenet with training.epochs=1`."""
    return " ".join([spec.recipe.name, *(["with", ", ".join(spec.overrides)] if spec.overrides else [])])


def name_figure(spec: ExperimentSpec, plot: Plot) -> str:
    """The title of a figure."""
    title = PLOT_TITLES[plot].format(quality=TASKS[spec.recipe.data.task].quality)
    return title[:1].upper() + title[1:]


def to_summary(results: Results) -> str:
    """The number of runs, the data, the recipe and the sizes of the models."""
    plan = results.plan
    recipe, rows = plan.spec.recipe, [row for row in plan.rows if not row.is_floor]
    return (
        f"{count_noun(len(rows), 'row')}, each trained with {_count_seeds(results)} under the recipe "
        f"{escape_code(name_recipe(plan.spec))}: {_to_budget(recipe)}.{_to_sizes(results)} "
        f"{results.measure.phrase} on {_to_test_set(recipe.data)}, measured once with the weights of the last epoch."
    )


def _count_seeds(results: Results) -> str:
    if results.course is None:
        return count_noun(results.plan.spec.seeds, "seed")
    looks = results.course.looks
    return f"{looks[0].seeds} to {looks[-1].seeds} seeds"


def _to_sizes(results: Results) -> str:
    """The size of the first row of each backbone, since names of rows are the paper's under every recipe."""
    params = dict(zip(results.frame["row"], results.frame["params"], strict=True))
    first: dict[str, PlannedRow] = {}
    for row in results.plan.rows:
        if pd.notna(params.get(row.name, pd.NA)):
            first.setdefault(row.cell.backbone, row)
    sizes = [
        f"{row.cell.sizes.label}, {show_count(params[row.name])} parameters (row {escape_markdown(row.name)})"
        for row in first.values()
        if isinstance(row.cell.sizes, BackboneSpec)
    ]
    return f" Models: {'; '.join(sizes)}." if sizes else ""


def _to_budget(recipe: RecipeSpec) -> str:
    images = recipe.data.train_images
    amount = "all training images" if images is None else f"{images:,} training images"
    drawn = ", drawn anew for each seed" if recipe.data.resample_train else ""
    return f"{amount} of `{recipe.data.name}`{drawn}, {count_noun(recipe.training.total_epochs, 'epoch')}"


def _to_test_set(data: DataSpec) -> str:
    return "the whole test set" if data.test_images is None else f"{data.test_images:,} test images"


def to_notes(results: Results) -> Iterator[str]:
    """The notes that explain the columns and marks of the table."""
    asked = {"", *list_shown(results.plan.spec)}
    noted = [column.note for column in results.columns if column.note is not None and column.key in asked]
    for note in sorted(noted, key=lambda note: note.place):
        yield from note.text(results)
    yield from map(escape_markdown, to_training_notes(results.plan))
    if results.plan.spec.recipe.note:
        yield escape_markdown(results.plan.spec.recipe.note)
    yield from _to_finding_notes(results.findings, has_looks=results.course is not None)


def _to_finding_notes(findings: Findings, *, has_looks: bool) -> Iterator[str]:
    claims, effects = findings.claims.frame, findings.effects.frame
    if not claims.empty:
        level = "the level of its look" if has_looks else "5 %"
        yield (
            "**Claims** are the paper's. *better*, *ahead*, *faster*: supported or refuted where the t-test with the "
            f"table's error rejects equality at {level} after Holm's correction over all pairs of rows that claims "
            "compare; of several pairs each has to be proven. *equal*: supported where the interval lies within the "
            "margin, refuted where it lies beyond. An outcome needs every run, multiply-adds no test. Otherwise claims "
            "are undecided. Intervals hold together with 95 % (Bonferroni)."
        )
        if ClaimVerdict.CONFOUNDED in set(claims["verdict"]):
            yield "*confounded by size*: the verdict is another one with a control of matched size."
    if not effects.empty:
        yield (
            "**Effects**: what a level adds over its factor's first level (a term: switched on, over off) on average "
            "over all levels of the other factors; of two, by how much the one changes what the other adds. Estimated "
            "by a linear model of all factors and pairs of factors with effect coding, with the error of all rows; "
            "intervals hold together with 95 % (Bonferroni), verdicts are by Holm over all effects. `—`: what was "
            "measured does not tell it."
        )
    if findings.left_out and not effects.empty:
        left_out = escape_markdown("; ".join(findings.left_out))
        yield f"The effects leave out, for a bad outcome or older code or data: {left_out}."


def to_origin(results: Results) -> dict[str, str]:
    """The origin of the numbers: experiment, seeds, commits, digests, versions and devices."""
    spec, frame = results.plan.spec, results.frame
    last_run, replicates = frame["last_run"].max(), max(len(row.planned) for row in results.replicates.values())
    return {
        "experiment": f"{escape_code(spec.name)}, recipe {escape_code(spec.recipe.name)}",
        "overrides": ", ".join(map(escape_code, spec.overrides)) or "none",
        "replicates": f"seeds {', '.join(map(str, range(replicates)))}",
        "commit": _to_commits(frame),
        "code digest": _list_by_row(frame, "code_digest"),
        "data digest": _list_by_row(frame, "data_digest"),
        "versions": ", ".join(f"{name} {_list(frame, name)}" for name in VERSIONS),
        "device": f"{_list(frame, 'device')}, torch threads a run: {_list(frame, 'threads')}",
        "kernels": f"{_list(frame, 'kernels')}, torch's instructions: {_list(frame, 'instructions')}",
        "last run": NOTHING if pd.isna(last_run) else show_date(last_run),
    }


def _to_commits(frame: pd.DataFrame) -> str:
    """Every commit of the runs, and whether there were uncommitted changes."""
    marks = {"false": "", "true": " (+ uncommitted changes)"}
    shown = [
        f"{escape_markdown(commit)}{mark}"
        for state, mark in marks.items()
        for commit in _distinct(frame.loc[[state in states for states in frame["dirty"]], "commit"])
    ]
    return ", ".join(shown) or NOTHING


def _list(frame: pd.DataFrame, column: str) -> str:
    return escape_markdown(", ".join(_distinct(frame[column]))) or NOTHING


def _distinct(cells: Iterable[tuple[str, ...]]) -> list[str]:
    return list(dict.fromkeys(value for values in cells for value in values))


def _list_by_row(frame: pd.DataFrame, column: str) -> str:
    """One value if all rows share it, else each value with its rows."""
    values = _distinct(frame[column])
    if len(values) < 2:
        return escape_code(values[0]) if values else NOTHING
    rows = {value: ", ".join(frame["row"][[value in own for own in frame[column]]]) for value in values}
    return "; ".join(f"{escape_code(value)} ({escape_markdown(names)})" for value, names in rows.items())
