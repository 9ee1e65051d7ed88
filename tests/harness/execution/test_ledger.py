from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

from harness.execution.ledger import Standing, find_digests, read_ledger, stands
from harness.plan import Plan
from harness.record import Record, RunStatus
from harness.spec import LimitsSpec
from harness.tracking import Tracker

TODAY, BEFORE = ("new code", "data"), ("old code", "data")


@dataclass(frozen=True)
class Shelf:
    """A tracker that only remembers."""

    records: tuple[Record, ...]
    checkpoints: Path = Path("checkpoints")

    def ledger(self, _cell_ids: object) -> list[Record]:
        return sorted(self.records, key=lambda record: record.end_time, reverse=True)


def make_record(plan: Plan, status: RunStatus = RunStatus.OK, digests: tuple[str, str] = TODAY) -> Record:
    """Of the plan's first run."""
    provenance = {"code_digest": digests[0], "data_digest": digests[1]}
    metrics = {"test/top1": 80.0} if status == RunStatus.OK else {}
    return Record(plan.rows[0].cell.id, "Swin-T", 0, status, metrics=metrics, provenance=provenance, end_time=1.0)


def enter(plan: Plan, *records: Record) -> tuple[Standing, Record | None]:
    """Where the first run of the plan stands."""
    digests = {row.cell.id: TODAY for row in plan.rows}
    entry = read_ledger(plan, cast("Tracker", Shelf(records)), digests)[0]
    return entry.standing, entry.record


def test_without_records_everything_is_to_do(small_plan: Plan) -> None:
    entries = read_ledger(small_plan, cast("Tracker", Shelf(())), {})
    assert [entry.run for entry in entries] == list(small_plan.runs)
    assert {entry.standing for entry in entries} == {Standing.TO_DO}


def test_a_record_belongs_to_its_cell_and_seed(small_plan: Plan) -> None:
    entries = read_ledger(small_plan, cast("Tracker", Shelf((make_record(small_plan),))), {})
    done = [entry.run for entry in entries if entry.standing == Standing.DONE]
    assert [(run.row.name, run.seed) for run in done] == [("Swin-T", 0)]


def test_a_run_that_saw_no_test_image_is_done_for_a_search_alone(small_plan: Plan) -> None:
    trial = replace(make_record(small_plan), metrics={"val/top1": 80.0})
    shelf, digests = cast("Tracker", Shelf((trial,))), {row.cell.id: TODAY for row in small_plan.rows}
    assert read_ledger(small_plan, shelf, digests)[0].standing == Standing.TO_DO
    assert read_ledger(small_plan, shelf, digests, tests=False)[0].standing == Standing.DONE


@pytest.mark.parametrize(
    ("status", "standing"),
    [
        (RunStatus.OK, Standing.DONE),
        (RunStatus.DIVERGED, Standing.DONE),
        (RunStatus.OUT_OF_MEMORY, Standing.DONE),
        (RunStatus.TIMED_OUT, Standing.DONE),
        (RunStatus.FAILED, Standing.FAILED),
        (RunStatus.INTERRUPTED, Standing.TO_DO),
    ],
)
def test_interruptions_are_done_again_and_bugs_on_demand(
    small_plan: Plan, status: RunStatus, standing: Standing
) -> None:
    record = make_record(small_plan, status)
    assert enter(small_plan, record) == (standing, record)


def test_a_bug_of_other_code_is_done_again(small_plan: Plan) -> None:
    record = make_record(small_plan, RunStatus.FAILED, digests=BEFORE)
    assert enter(small_plan, record) == (Standing.TO_DO, record)


def test_a_result_of_other_code_is_stale(small_plan: Plan) -> None:
    record = make_record(small_plan, digests=BEFORE)
    assert enter(small_plan, record) == (Standing.STALE, record)


def test_a_result_of_todays_code_counts_although_a_newer_one_is_stale(small_plan: Plan) -> None:
    record = make_record(small_plan)
    newer = replace(make_record(small_plan, digests=BEFORE), end_time=2.0)
    assert enter(small_plan, record, newer) == (Standing.DONE, record)


def test_a_bug_does_not_hide_an_older_result(small_plan: Plan) -> None:
    record = make_record(small_plan)
    assert enter(small_plan, record, replace(make_record(small_plan, RunStatus.FAILED), end_time=2.0))[1] == record


@pytest.mark.parametrize(
    ("now", "expected"), [(5.0, True), (4.0, True), (6.0, False), (None, False)], ids=["same", "less", "more", "none"]
)
@pytest.mark.parametrize(
    ("status", "limit"),
    [(RunStatus.TIMED_OUT, "time_limit_minutes"), (RunStatus.OUT_OF_MEMORY, "memory_limit_gb")],
)
def test_a_limit_that_was_hit_is_tried_again_when_it_is_wider(
    small_plan: Plan, status: RunStatus, limit: str, now: float | None, expected: bool
) -> None:
    record = replace(make_record(small_plan, status), limits={limit: 5.0})
    assert stands(record, LimitsSpec.model_validate({limit: now})) is expected


def test_running_out_of_the_machines_own_memory_stands(small_plan: Plan) -> None:
    assert stands(make_record(small_plan, RunStatus.OUT_OF_MEMORY), LimitsSpec())


def test_every_cell_has_its_digests(small_plan: Plan) -> None:
    digests = find_digests(small_plan, data_dir=None)
    assert set(digests) == {row.cell.id for row in small_plan.rows}
