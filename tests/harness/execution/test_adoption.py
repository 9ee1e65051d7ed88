"""Runs of the record file beside the tables are used as if they had been trained here."""

from pathlib import Path

import pytest

from harness.errors import StoreError
from harness.execution.adoption import adopt_runs
from harness.plan import Plan
from harness.report.files import find_records
from harness.tracking import MlflowTracker
from harness.tracking.record_files import write_runs
from tests.harness.tracking.test_record_files import make_run


def test_without_a_record_file_nothing_is_adopted(plan: Plan, tracker: MlflowTracker, tmp_path: Path) -> None:
    assert adopt_runs(plan, tracker, tmp_path) == 0


def test_each_run_is_adopted_once(plan: Plan, tracker: MlflowTracker, tmp_path: Path) -> None:
    runs = [make_run(plan, number) for number in range(2)]
    write_runs(find_records(plan.spec, tmp_path), runs)
    assert [adopt_runs(plan, tracker, tmp_path) for _ in range(2)] == [2, 0]
    stored = tracker.read_records(plan.spec.name, [row.cell.id for row in plan.rows])
    assert {(record.row, record.seed) for record in stored} == {(run.record.row, run.record.seed) for run in runs}


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
