"""`harness verify`: computes every number of committed tables again from the runs beside them, and compares."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from harness.attestation import find_version
from harness.cell import Cell
from harness.errors import StoreError
from harness.execution import write_results
from harness.files import temporary_folder
from harness.plan import Plan, make_plan
from harness.reading import load_spec
from harness.report.files import name_folder
from harness.report.latex import find_markers, to_marker
from harness.tasks import TASKS
from harness.text import count_noun
from harness.tracking import MlflowTracker
from harness.tracking.record_files import PortableRun, list_record_files, read_runs

MAX_SHOWN = 20
"""Maximal number of listed differences per table."""

ROUNDING = 1e-6
"""Relative difference between means over the same images in different dtypes; a change of one image is larger."""

COMPARED = {".csv", ".md", ".tex", ".html", ".svg"}
"""Endings of compared files, which are text; a PNG has the same content as its SVG."""


@dataclass(frozen=True)
class Verification:
    """The verification of one table.

    Attributes:
        name: the experiment and its folder.
        runs: number of runs that were read.
        files: the compared files.
        differences: one line per difference; empty if every number follows from the runs.
        has_runs: whether there is anything to compare the table with.
    """

    name: str
    runs: int
    files: tuple[Path, ...]
    differences: tuple[str, ...]
    has_runs: bool = True

    def describe(self) -> str:
        """One line, and one for each difference."""
        if not self.has_runs:
            return f"{self.name}: not verified, its runs are not beside it"
        counted = f"{count_noun(self.runs, 'run')}, {count_noun(len(self.files), 'file')}"
        if not self.differences:
            return f"{self.name}: {counted}: every number follows from the runs"
        shown = [f"  {line}" for line in self.differences[:MAX_SHOWN]]
        rest = len(self.differences) - MAX_SHOWN
        more = [f"  and {count_noun(rest, 'difference')} more"] if rest > 0 else []
        head = f"{self.name}: {counted}: {count_noun(len(self.differences), 'difference')}"
        return "\n".join([head, *shown, *more])


def verify(paths: Iterable[Path], results: Path) -> Iterator[Verification]:
    """Verify the tables of folders and record files, and tables in LaTeX documents.

    Args:
        paths: folders of tables, files of tables, record files, or `.tex` files.
        results: the folder of all tables, with the runs of tables in LaTeX documents.

    Raises:
        StoreError: a file does not exist, a folder has no record file, or a document has no table of the harness.
        SpecError: an experiment cannot be read.
    """
    for path in paths:
        if path.suffix == ".tex":
            yield from _verify_document(path, results)
        elif path.is_dir():
            yield from map(_verify_table, list_record_files(path))
            for table in _list_tables_without_runs(path):
                yield Verification(_name(_find_runs(table)), 0, (table,), (), has_runs=False)
        else:
            yield _verify_table(path if path.suffix == ".jsonl" else _find_runs(path))


def _find_runs(table: Path) -> Path:
    """The record file of a table."""
    return table.parent / "runs" / f"{table.stem}.jsonl"


def _name(records: Path) -> str:
    """The experiment of a record file and the folder of its tables."""
    return f"{records.stem} in {records.parents[1].name}"


def _list_tables_without_runs(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.glob("**/*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            row = next(csv.DictReader(file), {})
        if row.get("experiment") == path.stem and not _find_runs(path).exists():
            yield path


def _verify_table(path: Path) -> Verification:
    """Verify the files beside the folder of a record file: its csv files, and other files of the table if present."""
    folder, name = path.parents[1], _name(path)
    try:
        runs = _read_runs(path)
    except StoreError as error:
        return Verification(name, 0, (), (str(error),))
    differences = list(_check_runs(runs))
    with temporary_folder() as scratch:
        plan = _load_plan(path.stem, folder.name, runs)
        made = {file.name: file for file in _make_files(plan, runs, scratch) if file.suffix in COMPARED}
        found = {name: folder / name for name in made if (folder / name).exists()}
        differences += [f"{name}: the file is missing" for name in made if name not in found and name.endswith(".csv")]
        for file, stored in found.items():
            differences += _compare_files(stored, made[file])
    return Verification(name, len(runs), tuple(found.values()), tuple(differences))


def _verify_document(path: Path, results: Path) -> Iterator[Verification]:
    """Verify every table of the harness in a LaTeX document."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from None
    markers = find_markers(text)
    if not markers:
        raise StoreError(f"{path} has no table of ours; each starts with a line `% harness: table of NAME in FOLDER`")
    for marker in markers:
        records = results / marker["folder"] / "runs" / f"{marker['name']}.jsonl"
        runs = _read_runs(records)
        with temporary_folder() as scratch:
            plan = _load_plan(marker["name"], marker["folder"], runs)
            (made,) = (file for file in _make_files(plan, runs, scratch) if file.suffix == ".tex")
            expected = made.read_text(encoding="utf-8").splitlines()
        assert expected[0] == to_marker(plan.spec), "the folder names recipe and overrides"
        found = text[marker.start() :].lstrip().splitlines()[: len(expected)]
        differences = tuple(_compare_lines(path.name, found, expected))
        yield Verification(f"{marker['name']} in {path}", len(runs), (path,), differences)


def _read_runs(path: Path) -> list[PortableRun]:
    runs = read_runs(path)
    if not runs:
        raise StoreError(f"{path} has no run")
    return runs


def _load_plan(name: str, folder: str, runs: Iterable[PortableRun]) -> Plan:
    """The plan whose tables go to a folder of this name."""
    for recipe, overrides in {(run.recipe, overrides): None for run in runs for overrides in ((), run.overrides)}:
        spec = load_spec(name, recipe=recipe, overrides=overrides)
        if name_folder(spec) == folder:
            return make_plan(spec)
    raise StoreError(f"no run of {name} belongs to a table in a folder {folder!r}")


def _check_runs(runs: Iterable[PortableRun]) -> Iterator[str]:
    """The contradictions between a run and its own config or predictions."""
    seen: dict[tuple[str, int], str] = {}
    for run in runs:
        record = run.record
        label = f"{record.row} seed {record.seed}"
        if _find_cell_id(run) != record.cell_id:
            yield f"{label}: its configuration is not that of cell {record.cell_id}"
        if (record.cell_id, record.seed) in seen:
            yield f"{label}: the file has this run twice"
        seen[record.cell_id, record.seed] = label
        scores = TASKS[record.task].score(run.per_image) if run.per_image else {}
        for measure, score in scores.items():
            stored = record.metrics.get(f"test/{measure}", math.nan)
            if not math.isclose(stored, score, rel_tol=ROUNDING):
                yield f"{label}: test/{measure} is {stored}, its predictions give {score}"


def _find_cell_id(run: PortableRun) -> str | None:
    """The cell id of the config of a run; None if this installation cannot read the config."""
    try:
        return Cell.from_dict(run.config).id
    except ValueError:
        return None


def _make_files(plan: Plan, runs: Iterable[PortableRun], scratch: Path) -> tuple[Path, ...]:
    """Make the files of the table from these runs, with a store that has no other runs."""
    tracker = MlflowTracker(f"sqlite:///{scratch / 'mlflow.db'}")
    tracker.prepare(plan.spec.name)
    for run in runs:
        tracker.import_run(run)
    versions = {run.record.cell_id: find_version(run.record) for run in runs}  # the versions when they were exported
    return write_results(plan, tracker, versions, scratch / "results").files


def _compare_files(stored: Path, made: Path) -> Iterator[str]:
    texts = [file.read_text(encoding="utf-8") for file in (stored, made)]
    if texts[0] == texts[1]:
        return iter(())
    if stored.suffix == ".csv":
        return _compare_cells(stored.name, *(list(csv.DictReader(text.splitlines())) for text in texts))
    return _compare_lines(stored.name, *(text.splitlines() for text in texts))


def _compare_cells(name: str, stored: list[dict[str, str]], made: list[dict[str, str]]) -> Iterator[str]:
    """Compare csv files cell by cell; rows are identified by their first column."""
    nothing: Mapping[str, str] = {}
    for number, (first, second) in enumerate(zip_longest(stored, made, fillvalue=nothing), start=1):
        label = next(iter({**second, **first}.values()), str(number))
        for column in {**second, **first}:
            if first.get(column) != second.get(column):
                yield f"{name}: {label}, {column}: {first.get(column)!r}, from the runs {second.get(column)!r}"


def _compare_lines(name: str, stored: list[str], made: list[str]) -> Iterator[str]:
    for number, (first, second) in enumerate(zip_longest(stored, made, fillvalue=""), start=1):
        if first.strip() != second.strip():
            at = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 0)
            start = max(0, at - 30)
            yield f"{name}:{number}: {first[start : at + 40]!r}, from the runs {second[start : at + 40]!r}"
