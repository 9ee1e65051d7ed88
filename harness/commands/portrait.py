"""The output of `harness show` as text."""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from statistics import fmean
from typing import Any

from tabulate import tabulate

from harness.attestation import Standing
from harness.commands.estimate import to_duration
from harness.commands.show import Place, Shown, ShownRun
from harness.reading import list_experiments
from harness.spec.data import DEFAULT_TASK
from harness.table.reason import describe_outcome, explain
from harness.tasks import DEFAULT_MEASURE, TASKS
from harness.text import NOTHING

STANDINGS = {
    Standing.ATTESTED: "attested: code has changed since, and a rehearsal under today's code computed the same",
    Standing.UNATTESTED: "unattested: code has changed since, {reason}",
    Standing.UNDECIDED: "code has changed since; `harness rehearse` finds out whether it computes the same",
    Standing.STALE: "stale: code or data have changed since; `harness run` trains it again",
}

NUM_EPOCHS = 12
"""Number of epochs that are shown; longer curves show evenly spaced epochs, including the last."""

NUM_EARLIER = 5
BAR_WIDTH = 30
WIDTH = 84
"""Width of the text beside a name, so that a line has at most 100 columns."""


def describe_shown(shown: Shown, *, store: str) -> str:
    """Everything about a run or a cell; a cell has one column or line per seed."""
    sections = {
        "": _describe_runs(shown),
        "metrics": _list_metrics(shown.runs),
        "curve": _draw_curve(shown.runs, _find_metric(shown.config)),
        "config, where it differs from the defaults": _to_lines(
            [[name, text] for name, part in shown.config.items() if (text := _to_text(part))]
        ),
        "provenance": _list_provenance(shown.runs),
        "artifacts": _list_artifacts(shown.runs),
        "reproduce": _format_command(shown),
    }
    parts = [_describe_head(shown, store)]
    parts += [f"{title}\n{text}" if title else text for title, text in sections.items() if text]
    return "\n\n".join(parts)


def _describe_head(shown: Shown, store: str) -> str:
    lines = [f"cell {shown.cell_id}: {shown.places[0].row}"]
    lines += [f"  in {_to_place(place)}" for place in shown.places]
    lines += [f"  {name}: {level}" for name, level in shown.levels.items() if level]
    if not shown.runs:
        lines.append(f"  never trained: {store} has no run of it")
    return "\n".join(lines)


def _to_place(place: Place) -> str:
    overrides = f" with {shlex.join(place.overrides)}" if place.overrides else ""
    return f"{place.experiment}, recipe {place.recipe}{overrides}, as {place.row!r}"


def _describe_runs(shown: Shown) -> str:
    rows = [
        [
            str(run.run.seed),
            run.run.run_id,
            run.status,
            _to_seconds(run),
            f"{datetime.fromtimestamp(run.run.started):%Y-%m-%d %H:%M}",
        ]
        for run in shown.runs
    ]
    lines = [tabulate(rows, ["seed", "run", "status", "took", "started"], disable_numparse=True)] if rows else []
    for run in shown.runs:
        lines += [f"seed {run.run.seed}: {reason}" for reason in _list_reasons(run)]
    if shown.earlier:
        listed = ", ".join(f"{run.run_id[:8]} (seed {run.seed})" for run in shown.earlier[:NUM_EARLIER])
        more = len(shown.earlier) - NUM_EARLIER
        lines.append(f"further attempts: {listed}{f' and {more} more' if more > 0 else ''}")
    return "\n".join(lines)


def _list_reasons(run: ShownRun) -> Iterator[str]:
    record, process = run.run.record, run.run.process
    if record is None:
        yield f"{run.status} by process {process.pid} on {process.host}"
    elif explain(record):
        yield describe_outcome(record)
    if run.checkpoint is not None:
        yield f"resumable: `harness run` continues {run.checkpoint.place}"
    if run.standing in STANDINGS:
        yield STANDINGS[run.standing].format(reason=run.standing_reason)
    if run.run.reused_from:
        yield f"a copy of run {run.run.reused_from}, which another experiment trained"


def _to_seconds(run: ShownRun) -> str:
    record = run.run.record
    return NOTHING if record is None or "seconds" not in record.metrics else to_duration(record.metrics["seconds"])


def _list_metrics(runs: Sequence[ShownRun]) -> str:
    measured = [{} if run.run.record is None else run.run.record.metrics for run in runs]
    names = sorted({name for metrics in measured for name in metrics}, key=lambda name: ("/" not in name, name))
    rows = [[name, *(_to_number(metrics.get(name)) for metrics in measured)] for name in names]
    return _to_columns(rows, ["", *_name_seeds(runs)])


def _name_seeds(runs: Sequence[ShownRun]) -> list[str]:
    return [f"seed {run.run.seed}" for run in runs]


def _to_number(value: float | None) -> str:
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:.4g}"


def _to_columns(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    if not rows:
        return ""
    aligned = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, colalign=aligned, disable_numparse=True, tablefmt="simple")


def _find_metric(config: Mapping[str, Any]) -> str:
    """The validation metric of the first measure of a cell's task; defaults may be missing in the config."""
    task = TASKS.get(config.get("data", {}).get("task", DEFAULT_TASK))
    return (DEFAULT_MEASURE if task is None else task.measures[0]).val


def _draw_curve(runs: Sequence[ShownRun], metric: str) -> str:
    """Three metrics of one run, or the validation score of several; bars show this score or its mean."""
    scores = [_get_curve(run, metric) for run in runs]
    columns = dict(zip(_name_seeds(runs), scores, strict=True))
    if len(runs) == 1:
        named = {name: _get_curve(runs[0], name) for name in ("train/loss", "val/loss", metric)}
        columns = {name: curve for name, curve in named.items() if curve}
    epochs = sorted({epoch for column in columns.values() for epoch in column})
    step = max(1, math.ceil(len(epochs) / NUM_EPOCHS))
    shown = epochs[::-1][::step][::-1]
    means = [fmean(values) if (values := [c[epoch] for c in scores if epoch in c]) else math.nan for epoch in shown]
    rows = [
        [str(epoch), *(_to_number(column.get(epoch)) for column in columns.values()), bar]
        for epoch, bar in zip(shown, _draw_bars(means), strict=True)
    ]
    name, (low, high) = metric if len(runs) == 1 else f"mean {metric}", _find_range(means)
    headers = ["epoch", *columns, f"{name}, {_to_number(low)} to {_to_number(high)}"]
    aligned = (*["right"] * (len(headers) - 1), "left")
    return tabulate(rows, headers, colalign=aligned, disable_numparse=True) if rows else ""


def _get_curve(run: ShownRun, metric: str) -> dict[int, float]:
    return {epoch.epoch: epoch.metrics[metric] for epoch in run.details.curve if metric in epoch.metrics}


def _draw_bars(values: Sequence[float]) -> list[str]:
    """Bars from one block for the smallest value to the longest for the largest."""
    low, high = _find_range(values)
    blocks = (BAR_WIDTH - 1) / ((high - low) or 1.0)
    return ["█" * (1 + round(blocks * (value - low))) if math.isfinite(value) else "" for value in values]


def _find_range(values: Sequence[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)]
    return (min(finite), max(finite)) if finite else (0.0, 0.0)


def _to_text(value: object) -> str:
    """Format a value; mappings have no brackets, and stages get one line each."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_to_value(part)}" for name, part in value.items())
    if isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        stages = [_to_text(part) or ("timm's own" if part is None else "all at its default") for part in value]
        return stages[0] if len(stages) == 1 else "\n".join(f"stage {n}: {s}" for n, s in enumerate(stages, start=1))
    return _to_value(value)


def _to_value(value: object) -> str:
    if isinstance(value, Mapping):
        return f"({_to_text(value)})"
    if isinstance(value, list | tuple):
        return " + ".join(map(str, value)) if all(isinstance(part, str) for part in value) else str(list(value))
    return "" if value is None else str(value)


def _to_lines(rows: Sequence[Sequence[str]]) -> str:
    return tabulate(rows, tablefmt="plain", disable_numparse=True, maxcolwidths=[None, WIDTH])


def _list_provenance(runs: Sequence[ShownRun]) -> str:
    """The provenance; once if all seeds agree."""
    records = [run.run.record for run in runs if run.run.record is not None]
    names = dict.fromkeys(name for record in records for name in record.provenance)
    values = {name: dict.fromkeys(record.provenance.get(name, NOTHING) for record in records) for name in names}
    return _to_lines([[name, " | ".join(found)] for name, found in values.items()])


def _list_artifacts(runs: Sequence[ShownRun]) -> str:
    lines = []
    for run in runs:
        names = ", ".join(run.details.artifacts) or "none, or they were deleted"
        lines.append(f"seed {run.run.seed}: {names}\n  in {run.details.location}")
    return "\n".join(lines)


def _format_command(shown: Shown) -> str:
    """The commands that made the run (or would make it), with their commit, and that evaluate its weights."""
    place = shown.places[0]
    path = place.experiment if place.experiment in list_experiments() else f"{place.experiment}.yaml"
    options = [
        path,
        "--recipe",
        place.recipe,
        *(["--set", *place.overrides] if place.overrides else []),
    ]
    if not shown.runs:
        return f"harness run {shlex.join(options)}"
    made = {_to_origin(run): None for run in shown.runs}
    lines = list(made)
    for run in shown.runs:
        if "weights.pt" in run.details.artifacts:
            weights = ["--weights", f"{run.details.location}/weights.pt"]
            lines.append(shlex.join(["harness", "evaluate", path, place.row, *options[1:], *weights]))
            break
    return "\n".join(lines)


def _to_origin(run: ShownRun) -> str:
    provenance = {} if run.run.record is None else run.run.record.provenance
    commit = provenance.get("commit", "an unknown commit")
    changed = " and changes that were not committed" if provenance.get("dirty") == "true" else ""
    return f"{run.details.command}\n  (at commit {commit}{changed})"
