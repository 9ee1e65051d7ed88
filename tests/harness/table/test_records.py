from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

from harness.plan import Plan, make_plan
from harness.record import Record, RunStatus
from harness.table import COMPARISON_COLUMNS, compare_records, list_record_columns, make_records, make_results

MakeRecord = Callable[..., Record]

TODAY = ("c0de", "da7a")


def read(plan: Plan, records: list[Record]) -> pd.DataFrame:
    return make_records(plan, records, current={row.cell.id: TODAY for row in plan.rows})


def test_a_run_is_one_line_in_the_order_of_rows_and_seeds(small_plan: Plan, records: list[Record]) -> None:
    frame = read(small_plan, records[::-1])
    assert tuple(frame.columns) == list_record_columns(small_plan.spec)
    assert list(zip(frame["row"], frame["seed"], strict=True))[:4] == [
        ("Swin-T", 0),
        ("Swin-T", 1),
        ("Swin-T", 2),
        ("Net1", 0),
    ]
    line = frame.iloc[3]
    assert (line["top1"], line["status"], line["stale"], line["data_digest"]) == (83.0, "ok", False, "da7a")
    assert line["val_curve"][0] == pytest.approx(83.0 - 0.9)


def test_without_any_run_there_are_columns_of_the_same_types(small_plan: Plan, records: list[Record]) -> None:
    empty, full = read(small_plan, []), read(small_plan, records)
    assert tuple(empty.columns) == list_record_columns(small_plan.spec)
    assert len(empty) == 0
    numbers = ["is_floor", "seed", "stale", "top1", "params", "seconds", "ended"]
    assert (empty[numbers].dtypes == full[numbers].dtypes).all()
    assert tuple(compare_records(empty, "Swin-T").columns) == COMPARISON_COLUMNS


def test_what_is_stale_is_told_where_it_is_known(small_plan: Plan, make_record: MakeRecord) -> None:
    old = [make_record("Net1", digests=("01d", "da7a"))]
    assert list(read(small_plan, old)["stale"]) == [True]
    assert make_records(small_plan, old, current={})["stale"].isna().all()


def test_records_of_two_environments_are_not_compared(small_plan: Plan, make_record: MakeRecord) -> None:
    def move(record: Record, device: str) -> Record:
        return replace(record, provenance={**record.provenance, "device": device})

    made = [move(make_record("Swin-T", seed), "a CPU") for seed in range(3)]
    for device, pairs in (("a CPU", 3), ("a GPU", 0)):
        rows = read(small_plan, [*made, *(move(make_record("Net1", seed), device) for seed in range(3))])
        assert compare_records(rows, "Swin-T").set_index("row")["pairs"].fillna(0).to_dict() == {"Net1": pairs}


NUMBERS = ["delta", "delta_low", "delta_high", "pairs", "t_p", "holm_p", "sign_flip_p", "verdict"]


OTHERS = {
    "one row is stale": ("01d", "da7a"),
    "one row has label maps": ("c0de", "da7a+1abe1"),
    "one row has other images": ("c0de", "07e4"),
}


@pytest.mark.parametrize("case", ["all good", "one diverged", *OTHERS])
def test_comparisons_are_those_of_the_table(
    case: str, small_plan: Plan, records: list[Record], make_record: MakeRecord
) -> None:
    if case == "one diverged":
        records = [*records[1:], make_record("Swin-T", status=RunStatus.DIVERGED, step=4)]
    current = {row.cell.id: TODAY for row in small_plan.rows}
    if case in OTHERS:
        kept = [record for record in records if record.row != "Net1"]
        records = [*kept, *(make_record("Net1", seed, digests=OTHERS[case]) for seed in range(3))]
        if case != "one row is stale":
            current |= {row.cell.id: OTHERS[case] for row in small_plan.rows if row.name == "Net1"}
    table = make_results(small_plan, records, current=current).frame.set_index("row")
    found = compare_records(make_records(small_plan, records, current=current), "Swin-T").set_index("row")
    assert list(found.index) == ["Net1", "Net7-N"]
    pd.testing.assert_frame_equal(found[NUMBERS], table.loc[found.index, NUMBERS])


def test_any_row_may_be_the_baseline(small_plan: Plan, records: list[Record]) -> None:
    other = make_plan(small_plan.spec.model_copy(update={"baseline": "Net1"}))
    table = make_results(other, records).frame.set_index("row")
    found = compare_records(read(small_plan, records), "Net1").set_index("row")
    pd.testing.assert_frame_equal(found[NUMBERS], table.loc[found.index, NUMBERS])
    with pytest.raises(ValueError, match="did you mean 'Net1'"):
        compare_records(read(small_plan, records), "Net2")


def test_records_without_a_measurement_have_none(small_plan: Plan, make_record: MakeRecord) -> None:
    failed = replace(make_record("Net1", status=RunStatus.FAILED), metrics={}, curve=())
    line = read(small_plan, [failed]).iloc[0]
    assert pd.isna(line["top1"])
    assert line["val_curve"] == ()
