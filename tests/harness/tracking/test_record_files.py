import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.errors import Cause, StoreError
from harness.plan import Plan
from harness.record import EpochMetrics, Record, RunStatus
from harness.tracking import PREDICTIONS, MlflowTracker
from harness.tracking.process import ProcessIdentity
from harness.tracking.record_files import PortableRun, merge_runs, read_runs, read_scores, write_runs
from harness.tracking.translation import to_config


def make_run(plan: Plan, number: int = 0, origin: str = "", ended: float = 1_000.5, **changes: object) -> PortableRun:
    run = plan.runs[number]
    curve = (EpochMetrics(1, 4, {"val/top1": 40.0, "val/loss": 0.1}), EpochMetrics(2, 8, {"val/top1": 50.0}))
    provenance = {"code_digest": "code", "data_digest": "data", "commit": "abc", "trace": "1:a", "traced_seed": "0"}
    metrics = {"val/top1": 50.0, "test/top1": 1 / 3, "seconds": 2.5}
    record = Record(run.row.cell.id, run.row.name, run.seed, RunStatus.OK, metrics, curve, provenance, end_time=ended)
    return PortableRun(
        origin=origin or f"{number:032x}",
        experiment=plan.spec.name,
        title=plan.spec.title,
        recipe=plan.spec.recipe.name,
        overrides=("seeds=3",),
        levels={name: level for name, level in run.row.cell.factors().items() if level},
        config=to_config(run, plan.spec),
        started=900.25,
        record=replace(record, **changes),
        per_image={"predictions": np.array([3, 1, 9]), "labels": np.array([3, 1, 2])},
    )


def diverge(plan: Plan) -> PortableRun:
    curve = (EpochMetrics(1, 4, {"val/loss": math.inf}),)
    known = {"step": 7, "cause": Cause.GRADIENT, "module": "head", "limits": {"memory_limit_gb": 2.0}}
    run = make_run(plan, 1, status=RunStatus.DIVERGED, metrics={"train/loss": math.nan}, curve=curve, **known)
    return replace(run, per_image={})


def assert_equal(first: PortableRun, second: PortableRun) -> None:
    for name in vars(first):
        if name not in ("record", "per_image"):
            assert getattr(first, name) == getattr(second, name), name
    assert first.record == second.record
    assert first.per_image.keys() == second.per_image.keys()
    assert all(np.array_equal(first.per_image[name], second.per_image[name]) for name in first.per_image)


def test_runs_come_back_from_their_file_as_they_were(small_plan: Plan, tmp_path: Path) -> None:
    runs = [make_run(small_plan), diverge(small_plan)]
    path, _ = write_runs(tmp_path / "folder" / "small.jsonl", reversed(runs))
    first, second = read_runs(path)
    assert_equal(first, runs[0])
    assert math.isnan(second.record.metrics["train/loss"])
    assert second.record.curve[0].metrics["val/loss"] == math.inf
    assert (second.record.step, second.record.cause, second.record.module) == (7, Cause.GRADIENT, "head")


def test_equal_runs_give_equal_bytes_in_whatever_order(small_plan: Plan, tmp_path: Path) -> None:
    runs = [make_run(small_plan, number) for number in range(3)]
    first = write_runs(tmp_path / "a.jsonl", runs)
    second = write_runs(tmp_path / "b.jsonl", read_runs(first[0])[::-1])
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_arrays_that_runs_share_are_stored_once(small_plan: Plan, tmp_path: Path) -> None:
    path, arrays = write_runs(tmp_path / "a.jsonl", [make_run(small_plan, number) for number in range(3)])
    with np.load(arrays) as stored:
        assert len(stored.files) == 2
    assert all(run.per_image.keys() == {"predictions", "labels"} for run in read_runs(path))


def test_no_runs_and_unusual_names_come_back(small_plan: Plan, tmp_path: Path) -> None:
    assert read_runs(write_runs(tmp_path / "none.jsonl", [])[0]) == []
    run = make_run(small_plan, row="a\u2028b\x85c", status_detail="two\nlines")
    (known,) = read_runs(write_runs(tmp_path / "names.jsonl", [run])[0])
    assert_equal(known, run)


def test_a_run_in_two_files_counts_once_and_the_newest_of_a_seed_stays(small_plan: Plan) -> None:
    old, other = make_run(small_plan), make_run(small_plan, 1)
    new = make_run(small_plan, origin="f" * 32, ended=2_000.0)
    assert {run.origin for run in merge_runs([[old, other], [other, new, old]])} == {new.origin, other.origin}


def test_files_that_disagree_about_a_run_are_refused(small_plan: Plan) -> None:
    changed = make_run(small_plan, metrics={"test/top1": 99.0})
    with pytest.raises(StoreError, match=r"run 0+ \(Swin-T seed 0\) differs"):
        merge_runs([[make_run(small_plan)], [changed]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "small.jsonl:1: not a run", id="half a line"),
        pytest.param("[]", "small.jsonl:1: not a run", id="a list"),
        pytest.param('{"origin": "a"}', "small.jsonl:1: not a run: KeyError", id="keys are missing"),
    ],
)
def test_a_damaged_file_is_reported_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "small.jsonl").write_text(f"{text}\n")
    with pytest.raises(StoreError, match=message):
        read_runs(tmp_path / "small.jsonl")


def test_damaged_arrays_and_a_missing_file_are_reported(small_plan: Plan, tmp_path: Path) -> None:
    path, arrays = write_runs(tmp_path / "small.jsonl", [make_run(small_plan)])
    with np.load(arrays) as stored:
        kept = dict(stored)
    name = json.loads(path.read_text())["per_image"]["predictions"]
    np.savez_compressed(arrays, **{**kept, name: kept[name] ^ 1})
    with pytest.raises(StoreError, match=r"small\.jsonl:1: .*array predictions is not the one that was written"):
        read_runs(path)
    arrays.write_bytes(arrays.read_bytes()[:-40])
    with pytest.raises(StoreError, match=r"small\.npz is damaged"):
        read_runs(path)
    arrays.unlink()
    with pytest.raises(StoreError, match="KeyError"):
        read_runs(path)
    with pytest.raises(StoreError, match="No such file"):
        read_runs(tmp_path / "none.jsonl")


def test_a_store_takes_a_run_once_with_all_that_is_known_of_it(tracking_uri: str, small_plan: Plan) -> None:
    tracker, run = MlflowTracker(tracking_uri), make_run(small_plan)
    assert [tracker.import_run(run), tracker.import_run(run)] == [True, False]
    (record,) = tracker.ledger([run.record.cell_id], curves=["val/top1", "val/loss"])
    assert record.run_id is not None
    assert dict(record.metrics) == {**run.record.metrics, "val/loss": 0.1}
    assert record.curve == run.record.curve
    assert (record.provenance, record.end_time) == (run.record.provenance, run.record.end_time)
    (stored,) = tracker.find_runs()
    assert (stored.origin, stored.title, stored.recipe) == (run.origin, run.title, run.recipe)
    assert (stored.overrides, stored.levels, stored.started) == (run.overrides, run.levels, run.started)
    assert tracker.read_details(record.run_id).config == json.loads(json.dumps(run.config))
    assert list(tracker.read_predictions(record.run_id)["predictions"]) == [3, 1, 9]


def test_predictions_that_are_missing_or_damaged(tracking_uri: str, small_plan: Plan, tmp_path: Path) -> None:
    tracker, run = MlflowTracker(tracking_uri), make_run(small_plan)
    tracker.import_run(replace(run, per_image={}))
    (record,) = tracker.ledger([run.record.cell_id])
    assert record.run_id is not None
    assert tracker.read_predictions(record.run_id) == {}
    (tmp_path / PREDICTIONS).write_bytes(b"PK\x03\x04 half a file")
    tracker.log_file(record.run_id, tmp_path / PREDICTIONS)
    with pytest.raises(StoreError, match=rf"predictions.npz of run {record.run_id} is damaged"):
        tracker.read_predictions(record.run_id)


def test_an_import_that_is_interrupted_is_made_again(
    tracking_uri: str, small_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, run = MlflowTracker(tracking_uri), make_run(small_plan)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(tracker._artifacts, "log_text", interrupt)
        tracker.import_run(run)
    assert tracker.ledger([run.record.cell_id]) == []
    monkeypatch.setattr(ProcessIdentity, "is_gone", property(lambda _: True))
    tracker.close_dead_runs()
    assert tracker.import_run(run)
    assert [record.status for record in tracker.ledger([run.record.cell_id])] == [RunStatus.OK]


def test_a_run_in_the_table_of_a_second_experiment_is_stored_as_a_copy(tracking_uri: str, small_plan: Plan) -> None:
    tracker, run = MlflowTracker(tracking_uri), make_run(small_plan)
    again = replace(run, experiment="second", record=replace(run.record, row="another name"))
    assert [tracker.import_run(each) for each in (run, again, again)] == [True, True, False]
    assert len(tracker.ledger([run.record.cell_id])) == 1
    (copied,) = tracker.read_records("second", [run.record.cell_id])
    assert (copied.row, copied.metrics["test/top1"]) == ("another name", 1 / 3)


@pytest.mark.parametrize(
    ("name", "end"), [("mine.npz", "not UTF-8; the runs are in mine.jsonl"), ("mine.jsonl", "not UTF-8")]
)
def test_a_file_that_is_no_text_is_told_with_the_one_that_has_the_runs(name: str, end: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\xff")
    with pytest.raises(StoreError, match=f"{end}$"):
        read_scores(tmp_path / name)
