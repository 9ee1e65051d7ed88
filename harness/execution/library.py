"""The Python interface for scripts and notebooks: `run`, `read_records`, `compare`."""

import warnings
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Literal

import pandas as pd

from harness.attestation import attest
from harness.data import fetch_data
from harness.engines import DEFAULT, make_engine
from harness.errors import DataError, HarnessError
from harness.execution.events import Event, TableWritten
from harness.execution.ledger import find_digests, find_rehearsals
from harness.execution.plan import PRELOAD, RunOptions, run_plan
from harness.execution.source import list_stale
from harness.plan import Plan, make_plan
from harness.project import find_root
from harness.provenance import tree_digest
from harness.reading import load_spec
from harness.spec import ExperimentSpec
from harness.table import compare_records, make_records
from harness.tasks import DEFAULT_MEASURE, TASKS, choose_measure, find_measure
from harness.tracking import MlflowTracker, default_tracking_uri

Experiment = ExperimentSpec | Path | str
"""What `load_spec` has read, or a file or a name for it to read."""


def run(  # noqa: PLR0913 - the options of the command `harness run`
    experiment: Experiment,
    *,
    tracking_uri: str | None = None,
    results: Path | str | None = None,
    data_dir: Path | str | None = None,
    workers: int | Literal["auto"] | None = None,
    engine: str = DEFAULT,
    engine_options: Path | str | None = None,
    keep_stale: bool = False,
    retrain: bool = False,
    retry_failed: bool = False,
    show: Callable[[Event], object] = lambda _event: None,
) -> pd.DataFrame:
    """Train the missing and stale runs of an experiment and return its table, as `harness run` does.

    Warns if a row starts from the weights of a stale run. `harness.execution.run_plan` yields single events.

    Args:
        experiment: a spec, a file, or a name: `run("table1")`, `run(load_spec("table1", recipe="smoke"))`.
        tracking_uri: URI of MLflow's store. Default: the store that the commands use.
        results: folder of the table's files. Default: the folder that the commands use.
        data_dir: folder of a dataset that is not included in the package.
        workers: number of parallel runs, or "auto" for as many as fit. Default: the recipe's.
        engine: where the runs execute: "local", "slurm" or "ray".
        engine_options: YAML file with options of the engine.
        keep_stale: whether to keep results of older code or data instead of training them again.
        retrain: whether to train again the results of older code from another environment.
        retry_failed: whether to train again the runs that failed or diverged.
        show: called with every event of `harness.execution` when it happens.

    Returns:
        The table, one line per row. Its columns are those of the csv file (`harness.table.list_columns`). Cells are
        typed. Missing numbers are NaN or NA. `val_curve`, `marks`, `heads`, `overrides` and the provenance are
        tuples. `outcomes` is a tuple of the status and step of each run without a measurement. `reasons` is a
        mapping by seed, `published_curve` a mapping by epoch. `last_run` is a date.

    Raises:
        HarnessError: a mistake in the experiment, missing data, or a store that cannot be used. Also if the project's
            code was edited after the first call, because this process has imported the old code.
    """
    _check_code()
    plan, images = _make_plan(experiment), _to_path(data_dir)
    for _ in fetch_data(plan.spec.recipe.data, images):
        pass
    options = RunOptions(
        results=_to_path(results) or find_root() / "results",
        data_dir=images,
        keep_stale=keep_stale,
        retrain=retrain,
        retry_failed=retry_failed,
        command="harness.run",
    )
    tracker = MlflowTracker(tracking_uri or default_tracking_uri())
    for line in list_stale(plan, tracker, data_dir=images):
        warnings.warn(line, stacklevel=2)
    executing = make_engine(
        engine,
        _to_path(engine_options),
        workers=workers,
        recipe_workers=plan.spec.recipe.workers,
        preload=PRELOAD,
        folder=tracker.checkpoints.parent,
    )
    with closing(run_plan(plan, tracker=tracker, engine=executing, options=options)) as events:
        for event in events:
            show(event)
    assert isinstance(event, TableWritten)
    return event.results.frame


def read_records(
    experiment: Experiment, *, tracking_uri: str | None = None, data_dir: Path | str | None = None
) -> pd.DataFrame:
    """Read the runs that an experiment's table uses, one line per run. Without runs, the frame is empty.

    There is one run per row and seed. All runs of a row were made by the same code from the same data: the current
    version, or else the newest. Columns: `harness.table.list_record_columns`. `val_curve`, `heads` and `overrides` are
    tuples.

    Args:
        experiment: as in `run`.
        tracking_uri: as in `run`.
        data_dir: as in `run`. If the dataset is missing, stale runs cannot be identified, and `stale` is NA.

    Raises:
        HarnessError: a mistake in the experiment, or a store that cannot be used.
    """
    plan = _make_plan(experiment)
    try:
        current = find_digests(plan, data_dir=_to_path(data_dir))
    except DataError:
        current = {}
    tracker = MlflowTracker(tracking_uri or default_tracking_uri())
    curves = [find_measure(plan.spec).val]
    found = tracker.read_records(plan.spec.name, [row.cell.id for row in plan.rows], curves=curves)
    standing = attest(found, current, find_rehearsals(found, current, tracker))
    return make_records(plan, standing, current=current)


def compare(
    records: pd.DataFrame | Experiment,
    *,
    baseline: str | None = None,
    measure: str | None = None,
    tracking_uri: str | None = None,
) -> pd.DataFrame:
    """Compare every row of an experiment with its baseline, seed by seed.

    Each difference has its simultaneous 95 % interval, its p-value by Dunnett's step-down test, the p-value of the
    paired t-test, this p-value after Holm's correction, the exact sign-flip p-value and a verdict. All are computed as
    in a table. Floors are not compared.

    Args:
        records: an experiment, or lines of the frame that `read_records` returns.
        baseline: name of the row that the others are compared with. Default: the experiment's. Required for a frame.
        measure: name of the measure. Default: the experiment's; for a frame, the first measure of `classification`.
        tracking_uri: as in `run`; only for an experiment.

    Returns:
        One line per row except the baseline, with the columns `harness.table.COMPARISON_COLUMNS`.

    Raises:
        ValueError: a frame is given without a baseline, the baseline is not in it, or the measure is unknown.
        HarnessError: as in `read_records`.
    """
    if isinstance(records, pd.DataFrame):
        if baseline is None:
            raise ValueError("records do not state their baseline; give baseline=")
        known = [each for task in TASKS.values() for each in task.measures]
        return compare_records(records, baseline, measure=choose_measure([DEFAULT_MEASURE, *known], measure))
    spec = _to_spec(records)
    chosen = find_measure(spec if measure is None else spec.model_copy(update={"measure": measure}))
    return compare_records(read_records(spec, tracking_uri=tracking_uri), baseline or spec.baseline, measure=chosen)


def _check_code() -> None:
    """What runs are digested by is read from files; what trains them was imported by then."""
    if _digest_code_once() != tree_digest("harness", "paradigms"):
        raise HarnessError("harness or paradigms were edited while this process used them; restart Python")


@cache
def _digest_code_once() -> str:
    return tree_digest("harness", "paradigms")


def _make_plan(experiment: Experiment) -> Plan:
    return make_plan(_to_spec(experiment))


def _to_spec(experiment: Experiment) -> ExperimentSpec:
    return experiment if isinstance(experiment, ExperimentSpec) else load_spec(experiment)


def _to_path(place: Path | str | None) -> Path | None:
    return None if place is None else Path(place)
