"""How a run that is trained again compares with the committed one."""

from dataclasses import replace

import numpy as np
import pytest

from harness.commands.reproduce import Match, Reproduced, choose_runs, describe, read_committed
from harness.errors import StoreError
from harness.record import RunStatus
from harness.report.files import find_records
from harness.tasks.classification import TOP1
from harness.tracking.record_files import write_runs

INTERVAL = (83.0, 85.0)


def change(run, **changes):
    metrics = {**run.record.metrics, **changes.pop("metrics", {})}
    per_image = changes.pop("per_image", run.per_image)
    return replace(run, origin="again", record=replace(run.record, metrics=metrics, **changes), per_image=per_image)


@pytest.fixture
def committed(portable_runs):
    """Of the baseline, 84 % top-1."""
    return replace(portable_runs[0], per_image={"predictions": np.array([1, 2, 3])})


def match(committed, again, interval=INTERVAL):
    return Reproduced("Swin-T", committed, again, interval, TOP1).match


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"metrics": {"seconds": 1e3, "train/images_per_second": 1.0}}, Match.EQUAL, id="other speed"),
        pytest.param({"metrics": {"test/top5": 98.0}}, Match.WITHIN, id="another score, the deciding one is equal"),
        pytest.param({"per_image": {"predictions": np.array([1, 2, 4])}}, Match.WITHIN, id="another prediction"),
        pytest.param({"metrics": {"test/top1": 84.9}}, Match.WITHIN, id="within"),
        pytest.param({"metrics": {"test/top1": 85.1}}, Match.DIFFERENT, id="beyond"),
        pytest.param({"metrics": {"test/top1": float("nan")}}, Match.DIFFERENT, id="not a number"),
        pytest.param({"curve": ()}, Match.WITHIN, id="another curve"),
    ],
)
def test_a_run_is_equal_within_the_spread_or_different(committed, changes, expected):
    assert match(committed, change(committed, **changes)) == expected


def test_a_bad_outcome_is_equal_to_the_same_one_alone(committed):
    metrics = {name: value for name, value in committed.record.metrics.items() if not name.startswith("test/")}
    diverged = replace(committed, record=replace(committed.record, status=RunStatus.DIVERGED, step=9, metrics=metrics))
    assert match(diverged, change(diverged)) == Match.EQUAL
    assert match(diverged, change(diverged, step=10)) == Match.DIFFERENT
    assert match(diverged, committed) == match(committed, diverged) == match(committed, None) == Match.DIFFERENT


def test_one_committed_run_has_no_spread(committed):
    assert match(committed, change(committed, metrics={"test/top1": 84.5}), None) == Match.UNKNOWN
    assert match(committed, change(committed), None) == Match.EQUAL


def test_the_first_committed_seed_of_every_row_is_chosen(small_plan, portable_runs, tmp_path):
    kept = [
        run for run in portable_runs if run.record.row != "Net1" and (run.record.row, run.record.seed) != ("Swin-T", 0)
    ]
    write_runs(find_records(small_plan.spec, tmp_path), kept)
    chosen = choose_runs(small_plan, read_committed(small_plan, tmp_path))
    seeds = {(run.row.name, run.seed) for run in chosen.runs}
    assert seeds == {("Swin-T", 1), ("Net7-N", 0), ("Linear classifier", 0), ("One hidden layer", 0)}


def test_without_committed_runs_there_is_nothing_to_reproduce(small_plan, portable_runs, tmp_path):
    with pytest.raises(StoreError, match=r"nothing to reproduce: .*small\.jsonl does not exist"):
        read_committed(small_plan, tmp_path)
    other = [replace(run, record=replace(run.record, cell_id="another")) for run in portable_runs]
    write_runs(find_records(small_plan.spec, tmp_path), other)
    with pytest.raises(StoreError, match="has no run of these rows"):
        read_committed(small_plan, tmp_path)


def test_the_report_has_a_line_for_each_row_and_tells_the_environments(committed):
    moved = change(committed, provenance={**committed.record.provenance, "device": "another CPU"})
    committed = change(committed, provenance={**committed.record.provenance, "device": "a CPU"})
    text = describe([Reproduced("Swin-T", committed, moved, INTERVAL, TOP1)])
    assert "83.00 to 85.00" in text
    assert text.endswith("1 row: 1 equal bit for bit\nother environment: device a CPU then, another CPU now")
