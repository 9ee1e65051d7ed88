from dataclasses import replace

import pytest

from harness.attestation import ATTESTED_CODE
from harness.environment import ENVIRONMENT, is_same_environment
from harness.record import RunStatus
from harness.table.selection import is_comparable, select_replicates


def select(plan, records, current=None):
    """The replicates of the first row."""
    return select_replicates(plan, records, current or {})[0]


def test_every_planned_row_has_its_replicates_in_order(small_plan, records):
    rows = select_replicates(small_plan, reversed(records), {})
    assert [row.row for row in rows] == list(small_plan.rows)
    assert all(list(row.records) == [0, 1, 2] and row.is_complete for row in rows)


def test_seeds_outside_the_plan_are_left_out(small_plan, make_record):
    beyond = replace(make_record("Swin-T"), seed=7)
    assert select(small_plan, [beyond]).records == {}


def test_of_several_runs_the_newest_counts(small_plan, make_record):
    old, new = (make_record("Swin-T", end_time=time, run_id=str(time)) for time in (10.0, 20.0))
    assert select(small_plan, [new, old]).records[0] is new


def test_a_result_counts_before_a_newer_interruption(small_plan, make_record):
    result = make_record("Swin-T", status=RunStatus.DIVERGED, end_time=10.0)
    later = make_record("Swin-T", status=RunStatus.INTERRUPTED, end_time=20.0)
    assert select(small_plan, [later, result]).records[0] is result


def test_a_row_never_mixes_two_digests(small_plan, make_record):
    old = [make_record("Swin-T", seed, digests=("old", "da7a"), end_time=10.0) for seed in range(3)]
    new = make_record("Swin-T", 1, end_time=20.0)
    row = select(small_plan, [*old, new])
    assert row.records == {1: new}
    assert not row.is_complete


def test_records_of_today_go_before_newer_ones_of_another_day(small_plan, make_record):
    cell_id = small_plan.rows[0].cell.id
    mine = make_record("Swin-T", end_time=10.0)
    foreign = make_record("Swin-T", digests=("newer", "da7a"), end_time=20.0)
    row = select(small_plan, [mine, foreign], {cell_id: ("c0de", "da7a")})
    assert row.records[0] is mine
    assert not row.is_stale


def test_a_row_without_records_of_today_is_stale(small_plan, make_record):
    older = make_record("Swin-T", digests=("older", "da7a"), end_time=10.0)
    newer = make_record("Swin-T", digests=("newer", "da7a"), end_time=20.0)
    row = select(small_plan, [newer, older], {small_plan.rows[0].cell.id: ("c0de", "da7a")})
    assert row.records[0] is newer
    assert row.is_stale


def test_an_interruption_of_today_does_not_hide_older_results(small_plan, make_record):
    old = [make_record("Swin-T", seed, digests=("old", "da7a"), end_time=10.0) for seed in range(3)]
    interrupted = make_record("Swin-T", 0, RunStatus.INTERRUPTED, end_time=20.0)
    row = select(small_plan, [*old, interrupted], {small_plan.rows[0].cell.id: ("c0de", "da7a")})
    assert list(row.records.values()) == old
    assert row.is_stale


def test_rows_on_the_same_images_are_comparable_whatever_their_label_maps(small_plan, make_record):
    digests = {"Swin-T": "da7a", "Net1": "da7a+maps", "Net7-N": "other"}
    records = [make_record(row, digests=("c0de", digest)) for row, digest in digests.items()]
    images, with_maps, others, *_ = select_replicates(small_plan, records, {})
    assert is_comparable(images, with_maps)
    assert not is_comparable(with_maps, others)


def test_seeds_of_two_environments_are_not_compared(small_plan, make_record):
    def run(row, seed, device):
        record = make_record(row, seed)
        return replace(record, provenance={**record.provenance, "device": device})

    baseline = [run("Swin-T", seed, "a CPU") for seed in range(3)]
    one_elsewhere = [run("Net1", 0, "a GPU"), *(run("Net1", seed, "a CPU") for seed in (1, 2))]
    first, other, *_ = select_replicates(small_plan, [*baseline, *one_elsewhere], {})
    assert not is_comparable(other, first)
    first, other, *_ = select_replicates(small_plan, [*baseline, *one_elsewhere[1:]], {})
    assert is_comparable(other, first)


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_every_part_of_an_environment_counts_where_both_runs_state_it(name):
    assert not is_same_environment({name: "1"}, {name: "2"})
    assert is_same_environment({name: "1"}, {})


def test_runs_of_two_codes_that_one_code_attested_stay_together_when_code_changes_again(small_plan, make_record):
    newer = [make_record("Swin-T", seed, digests=("second", "da7a"), end_time=20.0) for seed in (1, 2)]
    old = make_record("Swin-T", 0, digests=("first", "da7a"), end_time=10.0)
    old = replace(old, provenance={**old.provenance, ATTESTED_CODE: "second"})
    row = select(small_plan, [*newer, old], {old.cell_id: ("third", "da7a")})
    assert (sorted(row.records), row.is_stale) == ([0, 1, 2], True)
