"""Portable record files: runs that leave their store, to be committed, sent and merged.

`NAME.jsonl` has a line of JSON for each run with digests of its arrays per test image. `NAME.npz` has each array once,
called by its digest: all runs of a table share their labels. They are read without MLflow.
"""

import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from harness.errors import Cause, StoreError
from harness.files import write_arrays, write_atomically
from harness.record import EpochMetrics, Record, RunStatus

Arrays = Mapping[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class PortableRun:
    """A run with all that another store needs.

    Attributes:
        origin: the id of the run in the store where it was trained: two runs of the same origin are one.
        experiment: name of the experiment whose table has the run.
        title: title of that experiment.
        recipe: name of the recipe.
        overrides: the `--set` pairs.
        levels: the level of each factor, as text.
        config: the resolved config, as in the artifact `config.json`.
        started: seconds since the epoch.
        record: with its whole curve and without an id.
        per_image: arrays with one entry per test image.
    """

    origin: str
    experiment: str
    title: str
    recipe: str
    overrides: tuple[str, ...]
    levels: Mapping[str, str]
    config: Mapping[str, Any]
    started: float
    record: Record
    per_image: Arrays = field(default_factory=dict)


def write_runs(path: Path, runs: Iterable[PortableRun]) -> tuple[Path, ...]:
    """Write both files; equal runs give equal bytes, in whatever order they come."""
    ordered = sorted(runs, key=lambda run: (run.record.seed, run.record.end_time, run.origin))
    lines = [json.dumps(_to_line(run), ensure_ascii=False, allow_nan=False, sort_keys=True) for run in ordered]
    arrays = {_digest(values): _downcast(values) for run in ordered for values in run.per_image.values()}
    beside = write_arrays(path.with_suffix(".npz"), dict(sorted(arrays.items())))
    write_atomically(path, "".join(f"{line}\n" for line in lines))
    return path, beside


def list_record_files(folder: Path) -> list[Path]:
    """The record files below a folder of tables, or in a folder of such files.

    Raises:
        StoreError: there is none.
    """
    files = sorted(folder.glob("**/runs/*.jsonl")) or sorted(folder.glob("*.jsonl"))
    if not files:
        raise StoreError(f"no record file is below {folder}; `harness records export` writes them")
    return files


def read_runs(path: Path) -> list[PortableRun]:
    """Read the runs of a file.

    Raises:
        StoreError: a file is missing or damaged; the message names it and the line.
    """
    beside = path.with_suffix(".npz")
    return _read_lines(path, read_arrays(beside) if beside.exists() else {})


def read_scores(path: Path) -> list[PortableRun]:
    """Read the runs of a file without their arrays per test image, for which no `.npz` is needed.

    Raises:
        StoreError: the file is missing or damaged; the message names it and the line.
    """
    return _read_lines(path, None)


def _read_lines(path: Path, arrays: Arrays | None) -> list[PortableRun]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # names may have other line breaks
    except (OSError, UnicodeDecodeError) as error:
        other = "" if path.suffix == ".jsonl" else f"; the runs are in {path.stem}.jsonl"
        reason = error.strerror if isinstance(error, OSError) else f"it is not UTF-8{other}"
        raise StoreError(f"the record file {path} cannot be read: {reason}") from None
    runs = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            runs.append(_to_run(json.loads(line), arrays))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path}:{number}: not a run: {type(error).__name__}: {error}") from None
    return runs


def merge_runs(groups: Iterable[Iterable[PortableRun]]) -> list[PortableRun]:
    """All runs of several files, each once; of two runs of one cell and seed the one that ended last.

    Raises:
        StoreError: two files disagree about the numbers of one run.
    """
    by_origin: dict[str, PortableRun] = {}
    for run in (run for group in groups for run in group):
        known = by_origin.setdefault(run.origin, run)
        if _to_measured(known) != _to_measured(run):
            raise StoreError(f"run {run.origin} ({run.record.row} seed {run.record.seed}) differs between two files")
    newest: dict[tuple[str, int], PortableRun] = {}
    for run in sorted(by_origin.values(), key=lambda run: (run.record.end_time, run.origin)):
        newest[run.record.cell_id, run.record.seed] = run
    return list(newest.values())


def _to_measured(run: PortableRun) -> str:
    return json.dumps(_to_json([run.record.status, run.record.metrics, run.record.curve]), sort_keys=True)


def _to_line(run: PortableRun) -> dict[str, Any]:
    head = {name: value for name, value in vars(run).items() if name not in ("record", "per_image")}
    record = {name: value for name, value in vars(run.record).items() if name != "run_id"}
    digests = {name: _digest(values) for name, values in run.per_image.items()}
    line: dict[str, Any] = _to_json({**head, **record, "per_image": digests})
    return line


def _to_json(value: Any) -> Any:
    """JSON has no infinity and no NaN: they become texts, which `float` reads."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, EpochMetrics):
        return _to_json(asdict(value))
    if isinstance(value, Mapping):
        return {name: _to_json(part) for name, part in value.items()}
    return [_to_json(part) for part in value] if isinstance(value, list | tuple) else value


def _to_run(line: dict[str, Any], arrays: Arrays | None) -> PortableRun:
    origin = line["origin"]
    curve = (EpochMetrics(each["epoch"], each["step"], _to_floats(each["metrics"])) for each in line["curve"])
    record = Record(
        cell_id=line["cell_id"],
        row=line["row"],
        seed=line["seed"],
        status=RunStatus(line["status"]),
        metrics=_to_floats(line["metrics"]),
        curve=tuple(curve),
        provenance=line["provenance"],
        status_detail=line["status_detail"],
        step=line["step"],
        cause=None if line["cause"] is None else Cause(line["cause"]),
        module=line["module"],
        limits=_to_floats(line["limits"]),
        end_time=float(line["end_time"]),
        task=line["task"],
    )
    digests = line["per_image"]
    per_image = {} if arrays is None else {name: arrays[digest] for name, digest in digests.items()}
    for name, values in per_image.items():
        if _digest(values) != digests[name]:
            raise ValueError(f"its array {name} is not the one that was written")
    return PortableRun(
        origin=origin,
        experiment=line["experiment"],
        title=line["title"],
        recipe=line["recipe"],
        overrides=tuple(line["overrides"]),
        levels=line["levels"],
        config=line["config"],
        started=float(line["started"]),
        record=record,
        per_image=per_image,
    )


def _to_floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _downcast(values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Whole numbers in the smallest type that holds them: classes of images take one byte."""
    if values.size == 0 or not np.issubdtype(values.dtype, np.integer):
        return values
    return values.astype(np.promote_types(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))


def _digest(values: "np.ndarray[Any, Any]") -> str:
    """Sixteen hexadecimal digits of the values, whatever type whole numbers have."""
    downcast = np.ascontiguousarray(_downcast(values))
    return hashlib.sha256(f"{downcast.dtype}{downcast.shape}".encode() + downcast.tobytes()).hexdigest()[:16]


def read_arrays(path: Path, name: str = "") -> dict[str, "np.ndarray[Any, Any]"]:
    """The arrays of an `.npz` file, which errors call by `name`.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise StoreError(f"the file {name or path} is damaged: {error}") from None
