"""Writes a table's files: csv, Markdown and LaTeX; formats it for the terminal."""

import os
import re
import tempfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from tabulate import tabulate

from harness.plan import Plan, PlannedRow
from harness.spec import BackboneSpec, DataSpec, ExperimentSpec, Plot, RecipeSpec
from harness.spec.experiment import SCORE
from harness.statistics import MAX_EXACT_SEEDS
from harness.table.display import (
    NOTHING,
    QUOTED,
    TERM_TITLES,
    TICK,
    count_noun,
    emphasize,
    list_shown,
    name_recipe,
    show_count,
    to_claims,
    to_display,
    to_effects,
)
from harness.table.findings import Findings
from harness.table.frame import FACTORS
from harness.table.latex import to_latex
from harness.table.reason import AT_CHANCE
from harness.table.scores import name_scores
from harness.table.training import to_training_notes
from harness.tasks import TASKS, find_measure
from harness.text import escape_cell, escape_code, escape_markdown, to_csv, to_line

MARKS = {
    "missing": "no run of this row has ended yet.",
    "partial": "some of the planned replicates have no result yet.",
    "stale": "code or data have changed since these runs; `harness run` trains them again.",
    "other environment": "made in another environment (versions, threads, device) than the baseline's run of its seed; "
    "no difference is shown. The csv has these columns.",
    "mixed environments": "its runs were made with different versions, threads or devices; each is compared with the "
    "baseline's run of the same environment.",
    AT_CHANCE: "the last validation of a run looks like guessing ({chance_rule}); nothing was learnt there.",
    "under-trained": "validation {title} still {climbed} when training ended; more epochs may change this row.",
    "at the ceiling": "{ceiling_rule}; differences cannot show here.",
    "quoted": "the paper's number alone; no row of this experiment.",
}

LEFT_TO_THE_FILES = (*FACTORS, *TERM_TITLES.values(), "other", "multiply-adds", "images/s", "sign-flip p", "source")

MAX_NAME_LENGTH = 100

PLOT_TITLES: dict[Plot, str] = {
    "delta": "Differences to the baseline, seed by seed",
    "curve": "Validation {quality} by epoch",
    "size": "{quality} against size",
    "heads": "{quality} by heads",
}

VERSIONS = ("python", "torch", "torchvision", "timm", "mlflow", "numpy")


def write_table(frame: pd.DataFrame, plan: Plan, results: Path, findings: Findings | None = None) -> tuple[Path, ...]:
    """Write `<experiment>.csv`, `.md` and `.tex` to the experiment's folder; returns the paths.

    Claims and effects, where there are any, go to `<experiment>_claims.csv` and `<experiment>_effects.csv`.
    """
    folder = find_folder(plan.spec, results)
    further = {} if findings is None else {"_claims": findings.claims, "_effects": findings.effects}
    files = {
        folder / f"{plan.spec.name}{ending}.csv": to_csv(table)
        for ending, table in {"": frame, **further}.items()
        if not ending or not table.empty
    }
    files[folder / f"{plan.spec.name}.md"] = to_markdown(frame, plan, findings)
    files[folder / f"{plan.spec.name}.tex"] = to_latex(frame, plan.spec)
    for path, content in files.items():
        write_atomically(path, content)
    return tuple(files)


def find_folder(spec: ExperimentSpec, results: Path) -> Path:
    """`<results>/<recipe>`; under `--set` `<recipe>+<overrides>`, so that these results overwrite no others."""
    return results / name_folder(spec)


def to_text(frame: pd.DataFrame, plan: Plan, findings: Findings | None = None) -> str:
    """The tables as plain lines, narrow enough for a terminal; what is left out stands in the files."""
    displays = [to_display(frame, plan.spec), *to_displays(findings, plan.spec).values()]
    narrow = [table.drop(columns=[name for name in LEFT_TO_THE_FILES if name in table.columns]) for table in displays]
    lines = [table.map(to_line).rename(columns=to_line) for table in narrow]
    return "\n\n".join(
        tabulate(table.to_dict("list"), headers="keys", tablefmt="simple", disable_numparse=True) for table in lines
    )


def to_markdown(frame: pd.DataFrame, plan: Plan, findings: Findings | None = None) -> str:
    """Title, what is compared, the table, its plots, claims, effects, how to read it, where it comes from."""
    further = to_displays(findings, plan.spec)
    parts = [
        f"# {escape_markdown(to_title(plan.spec))}",
        to_summary(frame, plan),
        _to_grid(to_display(frame, plan.spec)),
        *(f"![{name_figure(plan.spec, plot)}]({quote(name_plot(plan.spec, plot))}.png)" for plot in plan.spec.plots),
        *(f"## {title}\n\n{_to_grid(table)}" for title, table in further.items()),
        "## How to read it",
        "\n".join(f"* {note}" for note in to_notes(frame, plan, findings)),
        "## Where it comes from",
        tabulate(
            [(name, escape_cell(fact)) for name, fact in to_origin(frame, plan).items()],
            headers=["", ""],
            tablefmt="github",
            disable_numparse=True,
        ),
    ]
    return "\n\n".join(parts) + "\n"


def name_figure(spec: ExperimentSpec, plot: Plot) -> str:
    """The title of a figure."""
    title = PLOT_TITLES[plot].format(quality=TASKS[spec.recipe.data.task].quality)
    return title[:1].upper() + title[1:]


def name_plot(spec: ExperimentSpec, plot: Plot) -> str:
    """The stem of a plot's files, which lie beside the table."""
    return f"{spec.name}-{plot}"


def to_displays(findings: Findings | None, spec: ExperimentSpec) -> dict[str, pd.DataFrame]:
    """What there is beside the table, by title."""
    if findings is None:
        return {}
    measure = find_measure(spec)
    displays = {"Claims": to_claims(findings.claims, measure), "Effects": to_effects(findings.effects, measure)}
    return {title: table for title, table in displays.items() if not table.empty}


def _to_finding_notes(findings: Findings | None) -> Iterable[str]:
    if findings is None:
        return
    if not findings.claims.empty:
        tests = int(findings.claims["holm_p"].notna().sum())
        yield (
            "**Claims** are the paper's: reproduced or contradicted only where the paired t-test rejects equality at "
            f"5 % after Holm's correction over the {count_noun(tests, 'claim')} that could be tested, otherwise "
            "unresolved."
        )
    if not findings.effects.empty:
        yield (
            "**Effects**: what a level adds over its factor's first level (a term: switched on, over off) on average "
            "over all levels of the other factors; of two, by how much the one changes what the other adds. Estimated "
            "seed by seed by a linear model of all factors and pairs of factors with effect coding; the interval is "
            "Student's t over seeds, the verdict by Holm over all effects. `—`: what was measured does not tell it."
        )
    if findings.left_out and not findings.effects.empty:
        left_out = escape_markdown("; ".join(findings.left_out))
        yield f"The effects leave out, for a bad outcome or older code or data: {left_out}."


def to_title(spec: ExperimentSpec) -> str:
    """What is asked, and where the paper asks it."""
    return spec.title if spec.source is None else f"{spec.title} ({_to_source(spec)})"


def _to_source(spec: ExperimentSpec) -> str:
    assert spec.source is not None
    places = {"Table": spec.source.table, "Figure": spec.source.figure}
    return ", ".join([spec.source.paper, *(f"{kind} {n}" for kind, n in places.items() if n is not None)])


def to_summary(frame: pd.DataFrame, plan: Plan) -> str:
    """How many runs, on what, under which recipe, with models of which size; in Markdown."""
    recipe, rows = plan.spec.recipe, [row for row in plan.rows if not row.is_floor]
    return (
        f"{count_noun(len(rows), 'row')}, each trained with {count_noun(plan.spec.seeds, 'seed')} under the recipe "
        f"{escape_code(name_recipe(plan.spec))}: {_to_budget(recipe)}.{_to_sizes(frame, plan)} "
        f"{find_measure(plan.spec).phrase} on {_to_test_set(recipe.data)}, measured once with the weights of the last "
        "epoch."
    )


def _to_sizes(frame: pd.DataFrame, plan: Plan) -> str:
    """Names of rows are the paper's, whatever the recipe: of each backbone the size of its first row is stated."""
    params = dict(zip(frame["row"], frame["params"], strict=True))
    first: dict[str, PlannedRow] = {}
    for row in plan.rows:
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
    return f"{amount} of `{recipe.data.name}`, {count_noun(recipe.training.total_epochs, 'epoch')}"


def _to_test_set(data: DataSpec) -> str:
    return "the whole test set" if data.test_images is None else f"{data.test_images:,} test images"


def _to_grid(display: pd.DataFrame) -> str:
    grid = to_markdown_cells(display)
    return tabulate(grid.to_dict("list"), headers="keys", tablefmt="github", disable_numparse=True)


def to_markdown_cells(display: pd.DataFrame) -> pd.DataFrame:
    """Cells and titles as they stand in a Markdown table, with emphasis."""
    cells = emphasize(display.map(escape_markdown), proven="**{}**", title="*{}*").map(escape_cell)
    return cells.rename(columns=lambda title: escape_cell(escape_markdown(title)))


def to_notes(frame: pd.DataFrame, plan: Plan, findings: Findings | None = None) -> Iterable[str]:
    """What a reader has to know of whatever stands there, a sentence or two each; in Markdown."""
    yield from _to_table_notes(frame, plan)
    yield from _to_finding_notes(findings)


def _to_table_notes(frame: pd.DataFrame, plan: Plan) -> Iterable[str]:
    spec, measure, shown = plan.spec, find_measure(plan.spec), list_shown(plan.spec)
    if SCORE in shown:
        yield f"**{measure.title}** is the mean ± the standard deviation over the n measured replicates."
    if "throughput" in shown:
        yield "**images/s** is the speed of training beside the other workers; it is no benchmark."
    if "delta" in shown:
        yield from _to_delta_notes(frame, spec)
    yield from _to_outcome_notes(frame)
    if "curve" in shown:
        yield f"**val {measure.title} by epoch** is the mean over the replicates; the csv has every epoch."
    published = [name_scores(measure).published, "published_params", "published_macs", "published_throughput"]
    if frame[published].notna().any(axis=None) or frame["published_curve"].any():
        yield from _to_paper_notes(frame, spec)
    if frame["is_floor"].any():
        yield f"**Floors** have no attention.{_to_floor_note(frame, spec)}"
    else:
        yield f"The recipe {escape_code(spec.recipe.name)} trains no floors (models without attention)."
    if frame["expected"].any():
        yield "`paper: ...` is the outcome that the paper reports in words, then whether every replicate agrees."
    present = {mark for marks in frame["marks"] for mark in marks.split("; ")}
    task = TASKS[spec.recipe.data.task]
    climbed = "climbed" if measure.direction == "higher" else "fell"
    words = {"title": measure.title, "climbed": climbed}
    words |= {"chance_rule": task.chance_rule, "ceiling_rule": task.ceiling_rule}
    yield from (f"`{mark}`: {meaning.format(**words)}" for mark, meaning in MARKS.items() if mark in present)
    if "parameterization" in shown:
        titles = ", ".join(f"{title} {term}" for term, title in TERM_TITLES.items())
        yield f"Terms of Eq. 4: {titles}; {TICK} in every stage, a number in that stage alone."
    yield from map(escape_markdown, to_training_notes(plan))
    if spec.recipe.note:
        yield escape_markdown(spec.recipe.note)


def _to_outcome_notes(frame: pd.DataFrame) -> Iterable[str]:
    if frame["outcomes"].any():
        yield (
            "**n** counts measured replicates of planned ones, then every other outcome; `diverged@412` left the "
            "finite numbers at step 412. Means are over the measured replicates; where a bad outcome has thinned out a "
            "comparison, the rest resolves nothing."
        )
    for name, reasons in zip(frame["row"], frame["reasons"], strict=True):
        if reasons:
            yield escape_markdown(f"{name}: {reasons}.")


def _to_delta_notes(frame: pd.DataFrame, spec: ExperimentSpec) -> Iterable[str]:
    tests, baseline = int(frame["holm_p"].notna().sum()), escape_markdown(spec.baseline)
    if frame.loc[frame["row"] == spec.baseline, "skipped"].any():
        yield f"There is no **Δ**: the baseline, {baseline}, is skipped."
        return
    if tests == 0:
        yield f"**Δ** is the row less {baseline}. One pair of seeds has no interval and resolves nothing."
        return
    alike = "augmentation and initial weights" if spec.recipe.init_recipe is None else "augmentation"
    yield (
        f"**Δ** is the row less {baseline}, seed by seed (the same split, order, {alike}), with the 95 % "
        "Student-t interval of the mean difference."
    )
    yield (
        f"**verdict**: better or worse only where the paired t-test rejects equality at 5 % after Holm's correction "
        f"over the {count_noun(tests, 'comparison')} of this table, which is stricter than one interval without zero; "
        f"everything else is unresolved.{_to_sign_flip_note(int(frame['pairs'].max()))}"
    )


def _to_sign_flip_note(pairs: int) -> str:
    if pairs > MAX_EXACT_SEEDS:
        return ""
    return f" The exact sign-flip p-value stands beside it; with {pairs} pairs it cannot be below {2 / 2**pairs:.2g}."


def _to_floor_note(frame: pd.DataFrame, spec: ExperimentSpec) -> str:
    """A warning where the baseline is not above every floor."""
    measure = find_measure(spec)
    scores = measure.sign * frame[name_scores(measure).mean]
    is_above = not scores[frame["row"] == spec.baseline].max() <= scores[frame["is_floor"]].max()
    return (
        ""
        if is_above
        else f" {escape_markdown(spec.baseline)} is not above them: this table shows early optimization, not quality."
    )


def _to_paper_notes(frame: pd.DataFrame, spec: ExperimentSpec) -> Iterable[str]:
    printed = "the paper's numbers" if spec.source is None else f"as printed in {escape_markdown(_to_source(spec))}"
    yield (
        f"**paper**: {printed}. Those are of other data, sizes and schedules than the recipe "
        f"{escape_code(spec.recipe.name)}, "
        "unless it is the paper's own: compare the sign and the order of differences, not the values."
    )
    if frame["published_quoted"].any():
        yield f"{QUOTED} quoted there from another paper, not trained by the authors."


def to_origin(frame: pd.DataFrame, plan: Plan) -> dict[str, str]:
    """Where the numbers come from; in Markdown."""
    spec = plan.spec
    return {
        "experiment": f"{escape_code(spec.name)}, recipe {escape_code(spec.recipe.name)}",
        "overrides": ", ".join(map(escape_code, spec.overrides)) or "none",
        "replicates": f"seeds {', '.join(str(seed) for seed in range(spec.seeds))}",
        "commit": _to_commits(frame),
        "code digest": _list_by_row(frame, "code_digest"),
        "data digest": _list_by_row(frame, "data_digest"),
        "versions": ", ".join(f"{name} {_list(frame, name)}" for name in VERSIONS),
        "device": f"{_list(frame, 'device')}, torch threads a run: {_list(frame, 'threads')}",
        "kernels": f"{_list(frame, 'kernels')}, torch's instructions: {_list(frame, 'instructions')}",
        "last run": max(frame["last_run"]) or NOTHING,
    }


def _to_commits(frame: pd.DataFrame) -> str:
    """Every commit that runs were made at; uncommitted changes are said."""
    marks = {"false": "", "true": " (+ uncommitted changes)"}
    shown = [
        f"{escape_markdown(commit)}{mark}"
        for state, mark in marks.items()
        for commit in _split(frame.loc[frame["dirty"].str.contains(state), "commit"])
    ]
    return ", ".join(shown) or NOTHING


def _list(frame: pd.DataFrame, column: str) -> str:
    return escape_markdown(", ".join(_split(frame[column]))) or NOTHING


def _split(values: Iterable[str]) -> list[str]:
    """The distinct values; a row may hold several."""
    return list(dict.fromkeys(value for joined in values for value in joined.split(" | ") if value))


def _list_by_row(frame: pd.DataFrame, column: str) -> str:
    """One value for all, or each with its rows."""
    known = frame[frame[column] != ""]
    values = _split(known[column])
    if len(values) < 2:
        return escape_code(values[0]) if values else NOTHING
    rows = {value: ", ".join(known["row"][known[column] == value]) for value in values}
    return "; ".join(f"{escape_code(value)} ({escape_markdown(names)})" for value, names in rows.items())


def name_folder(spec: ExperimentSpec) -> str:
    """The recipe, with what `--set` changed of it, in characters and a length that every file system has."""
    full = "+".join([spec.recipe.name, *spec.overrides])
    name = re.sub(r"[^\w.,=+-]", "_", full)
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[:MAX_NAME_LENGTH]}~{sha256(full.encode()).hexdigest()[:8]}"


def write_atomically(path: Path, content: str) -> None:
    """Write a file at once or not at all, and the folder that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
