"""`harness diff`: explains each number that differs between two tables, from the runs of both."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.cell import CONTENT, Cell
from harness.commands.changes import Cause, Difference, Number, Reason, RowChange, TableChange
from harness.errors import StoreError
from harness.record import Record, RunStatus
from harness.table.reason import explain
from harness.table.selection import get_images
from harness.tasks import TASKS
from harness.trace import PLACE, TRACE, TRACED_SEED, find_place
from harness.tracking.record_files import PortableRun, list_record_files, read_scores
from paradigms.facts import unknown_name

Runs = Mapping[int, PortableRun]
"""The runs of a row, by seed."""

SHORT = 12
"""Number of characters of a data digest that are shown."""


def diff(old: Path, new: Path) -> Difference:
    """Explain each number that differs between two record files, or between files of the same name in two folders.

    The numbers are scores on test and validation images, parameters and multiply-adds. The runs of a row are those of
    the cell that it had last: the newest result of each seed.

    Raises:
        StoreError: a file is missing, damaged or empty, a folder is compared with a file, or two folders have no table
            in common.
    """
    if old.is_dir() != new.is_dir() and old.exists() and new.exists():
        raise StoreError(f"{old} and {new} cannot be compared: one is a folder, the other a file")
    if not old.is_dir():
        return Difference((_diff_files(new.stem, old, new),))
    before, after = _find_files(old), _find_files(new)
    common = [name for name in before if name in after]
    if not common:
        raise StoreError(f"no table is in both {old} and {new}; tables are compared by the names of their record files")
    return Difference(
        tuple(_diff_files(name, before[name], after[name]) for name in common),
        tuple(name for name in before if name not in after),
        tuple(name for name in after if name not in before),
    )


def _find_files(folder: Path) -> dict[str, Path]:
    """The record files in a folder by the names of their tables: `laptop/table1`."""
    paths = {file: file.relative_to(folder).with_suffix("") for file in list_record_files(folder)}
    return {"/".join(part for part in path.parts if part != "runs"): file for file, path in paths.items()}


def _diff_files(name: str, old: Path, new: Path) -> TableChange:
    before, after = _read_rows(old), _read_rows(new)
    common = [row for row in after if row in before]
    compared = [_diff_rows(row, before[row], after[row]) for row in common]
    return TableChange(
        name,
        (sum(map(len, before.values())), sum(map(len, after.values()))),
        len(common),
        tuple(change for change in compared if change is not None),
        tuple(row for row in before if row not in after),
        tuple(row for row in after if row not in before),
    )


def _read_rows(path: Path) -> dict[str, Runs]:
    """The runs of each row by seed, all of one cell; results have priority over bugs, newer runs over older ones."""
    runs = read_scores(path)
    if not runs:
        raise StoreError(f"{path} has no run")
    ranked = sorted(runs, key=lambda run: (run.record.status.is_result, run.record.end_time))
    cells = {run.record.row: run.record.cell_id for run in ranked}
    rows: dict[str, dict[int, PortableRun]] = {run.record.row: {} for run in runs}
    for run in ranked:
        record = run.record
        if record.task not in TASKS:
            raise StoreError(f"{path}: {record.row}: {unknown_name('task', record.task, tuple(TASKS))}")
        if record.cell_id == cells[record.row]:
            rows[record.row][record.seed] = run
    return {row: dict(sorted(own.items())) for row, own in rows.items()}


def _diff_rows(row: str, before: Runs, after: Runs) -> RowChange | None:
    """The change of a row; None if every seed has the same numbers."""
    causes: dict[int, tuple[Cause, ...]] = {}
    for seed in sorted({*before, *after}):
        if seed not in before or seed not in after:
            causes[seed] = (_explain_seed(before.get(seed), after.get(seed)),)
        elif own := _explain_run(before[seed], after[seed]):
            causes[seed] = own
    if not causes:
        return None
    records = ([run.record for run in runs.values()] for runs in (before, after))
    return RowChange(row, tuple(_compare_numbers(*records)), causes)


def _compare_numbers(before: Sequence[Record], after: Sequence[Record]) -> Iterator[Number]:
    """The metrics whose values differ; times and memory differ in every run and are left out."""
    measures = TASKS[(after or before)[0].task].measures
    metrics = {
        **{measure.test: (measure.title, measure.format) for measure in measures},
        **{measure.val: (f"validation {measure.title}", measure.format) for measure in measures},
        "params": ("parameters", ",.0f"),
        "macs": ("multiply-adds", ",.0f"),
    }
    for metric, (name, form) in metrics.items():
        first, second = (
            {r.seed: r.metrics[metric] for r in records if r.status == RunStatus.OK and metric in r.metrics}
            for records in (before, after)
        )
        before_mean, after_mean = (fmean(values.values()) if values else None for values in (first, second))
        if before_mean != after_mean or any(first[seed] != second[seed] for seed in first.keys() & second.keys()):
            yield Number(name, before_mean, after_mean, form)


def _explain_seed(before: PortableRun | None, after: PortableRun | None) -> Cause:
    """The cause for a seed that only one table has."""
    if after is None:
        assert before is not None
        return Cause(Reason.SEEDS, "seed", before.record.seed, None, "removed")
    status = after.record.status
    ended = "" if status == RunStatus.OK else f", {_show_status(status)}"
    return Cause(Reason.SEEDS, "seed", None, after.record.seed, f"added{ended}")


def _explain_run(before: PortableRun, after: PortableRun) -> tuple[Cause, ...]:
    """The causes for a difference between two runs of a seed; empty if numbers and status are the same."""
    old, new = before.record, after.record
    numbers = list(_compare_numbers([old], [new]))
    if not numbers and old.status == new.status:
        return ()
    causes = [*_compare_status(old, new), *_compare_configurations(before, after), *_compare_provenance(old, new)]
    if not any(cause.is_effective for cause in causes):
        shown = ", ".join(number.describe() for number in numbers)
        causes.insert(0, Cause(Reason.UNEXPLAINED, "", note=f"unexplained: {shown}"))
    return tuple(causes)


def _compare_status(old: Record, new: Record) -> Iterator[Cause]:
    if old.status != new.status:
        before, after = _show_status(old.status), _show_status(new.status)
        yield Cause(Reason.STATUS, "status", before, after, explain(new))


def _compare_configurations(before: PortableRun, after: PortableRun) -> Iterator[Cause]:
    """The fields of the resolved config that differ."""
    if before.record.cell_id == after.record.cell_id:
        return
    old, new = _flatten(_find_content(before.config)), _flatten(_find_content(after.config))
    names = [name for name in {**new, **old} if old.get(name) != new.get(name)]
    for name in names:
        yield Cause(Reason.CONFIGURATION, name, old.get(name), new.get(name))
    if not names:
        yield Cause(Reason.CONFIGURATION, "cell", before.record.cell_id, after.record.cell_id)


def _compare_provenance(old: Record, new: Record) -> Iterator[Cause]:
    """The differences in code, data and environment, as far as both runs state them."""
    first, second = old.provenance, new.provenance

    def differs(name: str) -> bool:
        return name in first and name in second and first[name] != second[name]

    if differs("code_digest"):
        note, is_effective = ("", True) if old.cell_id != new.cell_id else _compare_traces(first, second)
        before, after = first["code_digest"], second["code_digest"]
        yield Cause(Reason.CODE, "code", before, after, note, is_effective)
    if differs("data_digest"):
        digests = first["data_digest"], second["data_digest"]
        images = [get_images(digest) for digest in digests]
        labels = [digest.removeprefix(own).removeprefix("+") for digest, own in zip(digests, images, strict=True)]
        name, parts = ("label map", labels) if images[0] == images[1] else ("images", images)
        yield Cause(Reason.DATA, name, parts[0][:SHORT] or None, parts[1][:SHORT] or None)
    if differs("init_from"):
        yield Cause(Reason.DATA, "init_from", first["init_from"], second["init_from"])
    for name in PLACE:
        if differs(name):
            yield Cause(Reason.ENVIRONMENT, name, first[name], second[name])


def _compare_traces(first: Mapping[str, str], second: Mapping[str, str]) -> tuple[str, bool]:
    """What the rehearsals of two versions of the code show, and whether the versions can give different numbers."""
    if TRACE not in first or TRACE not in second or first.get(TRACED_SEED) != second.get(TRACED_SEED):
        return "no rehearsals to compare", True
    if first[TRACE] == second[TRACE]:
        return "rehearsals are equal, bit for bit", False
    return "rehearsals differ" + ("" if find_place(first) == find_place(second) else ", in other environments"), True


def _find_content(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The content of a cell; fields that an older version did not write have their defaults."""
    try:
        return Cell.from_dict(config).to_dict()
    except ValueError:  # a level of a plug-in that is not loaded
        return {name: config[name] for name in (*CONTENT, "init_from") if name in config}


def _flatten(value: object, path: str = "") -> dict[str, Any]:
    """Nested fields by their path, such as `training.lr`; equal stages have one value."""
    if isinstance(value, Mapping):
        start = f"{path}." if path else ""
        return {name: leaf for key, part in value.items() for name, leaf in _flatten(part, f"{start}{key}").items()}
    if isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        stages = [_flatten(part, path) for part in value]
        lists = {name: [stage.get(name) for stage in stages] for stage in stages for name in stage}
        return {name: own[0] if all(part == own[0] for part in own) else own for name, own in lists.items()}
    return {path: value}


def _show_status(status: RunStatus) -> str:
    return status.value.replace("_", " ")
