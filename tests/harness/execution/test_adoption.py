"""Runs of the record file beside the tables are used as if they had been trained here."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.attestation import Standing
from harness.errors import StoreError
from harness.execution import read_results, write_results
from harness.execution.adoption import adopt_runs, gather_records, preview_ledger
from harness.plan import Plan
from harness.report.files import find_records
from harness.trace import FORMAT, TRACE, TRACED_SEED
from harness.tracking import PREDICTIONS, MlflowTracker
from harness.tracking.record_files import PortableRun, write_runs
from tests.harness.tracking.test_record_files import make_run


def test_without_a_record_file_nothing_is_adopted(plan: Plan, tracker: MlflowTracker, tmp_path: Path) -> None:
    assert adopt_runs(plan, tracker, tmp_path) == 0


def test_each_run_is_adopted_once(plan: Plan, tracker: MlflowTracker, tmp_path: Path) -> None:
    runs = [make_run(plan, number) for number in range(2)]
    write_runs(find_records(plan.spec, tmp_path), runs)
    assert [adopt_runs(plan, tracker, tmp_path) for _ in range(2)] == [2, 0]
    stored = tracker.read_records(plan.spec.name, [row.cell.id for row in plan.rows])
    assert {(record.row, record.seed) for record in stored} == {(run.record.row, run.record.seed) for run in runs}


def test_each_run_is_gathered_once_from_store_and_file(plan: Plan, tracker: MlflowTracker, tmp_path: Path) -> None:
    runs = [make_run(plan, number) for number in range(3)]
    assert tracker.import_run(runs[0])
    write_runs(find_records(plan.spec, tmp_path), runs[:2])
    for _ in range(2):  # nothing is stored
        gathered = gather_records(plan, tracker, tmp_path)
        assert [(each.row, each.seed) for each in gathered] == [(run.record.row, run.record.seed) for run in runs[:2]]
        assert [each.run_id is None for each in gathered] == [False, True]


def test_a_preview_of_the_ledger_has_the_runs_that_would_be_imported_and_stores_nothing(
    plan: Plan, tracker: MlflowTracker, tmp_path: Path
) -> None:
    runs = [make_run(plan, number) for number in range(3)]
    assert tracker.import_run(replace(runs[0], experiment="another"))
    write_runs(find_records(plan.spec, tmp_path), runs)
    for _ in range(2):
        entries = preview_ledger(plan, tracker, {}, tmp_path)
        found = [entry.record for entry in entries if entry.record is not None]
        assert {entry.standing for entry in entries} == {Standing.DONE, Standing.TO_DO}
        assert [(record.row, record.seed) for record in found] == [(run.record.row, run.record.seed) for run in runs]
        assert [record.run_id is None for record in found] == [False, True, True]
    assert len(tracker.find_runs()) == 1
    assert adopt_runs(plan, tracker, tmp_path) == 3
    adopted = preview_ledger(plan, tracker, {}, tmp_path)
    assert [entry.standing for entry in adopted] == [entry.standing for entry in entries]
    assert all(entry.record is None or entry.record.run_id for entry in adopted)


def test_a_run_of_another_experiment_becomes_a_copy_once(plan: Plan, tracker: MlflowTracker, tmp_path: Path) -> None:
    run = make_run(plan)
    write_runs(find_records(plan.spec, tmp_path), [run])
    other = Plan(plan.spec.model_copy(update={"name": "other"}), plan.rows, plan.runs, stated=plan.stated)
    write_runs(find_records(other.spec, tmp_path), [run])
    assert adopt_runs(plan, tracker, tmp_path) == 1
    tracker.prepare("other")
    (record,) = tracker.ledger([run.record.cell_id])
    parent = tracker.start_invocation(other.spec, command="harness run", provenance={})
    tracker.copy_run(record, plan.runs[0], spec=other.spec, parent_id=parent)
    assert run.origin in tracker.list_origins("other")


def test_a_damaged_record_file_is_one_message(plan: Plan, tracker: MlflowTracker, tmp_path: Path) -> None:
    path = find_records(plan.spec, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text("{broken\n")
    with pytest.raises(StoreError, match=r"small\.jsonl:1: not a run"):
        adopt_runs(plan, tracker, tmp_path)


def test_a_damaged_file_of_predictions_costs_the_table_its_error_of_images_alone(
    small_plan: Plan, portable_runs: list[PortableRun], tracker: MlflowTracker, tmp_path: Path
) -> None:
    rng, labels = np.random.default_rng(0), np.zeros(50, dtype=int)
    kept = [{"predictions": rng.integers(0, 2, 50), "labels": labels} for _ in portable_runs]
    runs = [replace(run, per_image=arrays) for run, arrays in zip(portable_runs, kept, strict=True)]
    write_runs(find_records(small_plan.spec, tmp_path), runs)

    def count_errors() -> int:
        return int(write_results(small_plan, tracker, {}, tmp_path).results.frame["image_error"].notna().sum())

    assert count_errors() == 2
    (tmp_path / PREDICTIONS).write_bytes(b"half a file")
    for stored in tracker.find_runs():
        tracker.log_file(stored.run_id, tmp_path / PREDICTIONS)
    assert count_errors() == 0


def test_a_table_of_older_code_is_as_it_was_until_a_rehearsal_tells(
    small_plan: Plan, portable_runs: list[PortableRun], tracker: MlflowTracker, tmp_path: Path
) -> None:
    traced = {TRACE: f"{FORMAT}:{'a' * 16}", TRACED_SEED: "0"}
    runs = [
        replace(run, record=replace(run.record, provenance={**run.record.provenance, **traced}))
        for run in portable_runs
    ]
    write_runs(find_records(small_plan.spec, tmp_path), runs)
    today = {row.cell.id: ("newer code", "da7a") for row in small_plan.rows}
    results = read_results(small_plan, tracker, today, tmp_path)
    assert results.undecided == tuple(row.name for row in small_plan.rows)
    assert list(results.frame["n"]) == list(results.frame["seeds"])
    assert not any("stale" in marks for marks in results.frame["marks"])
