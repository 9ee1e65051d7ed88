"""`harness diff` names the cause of every number that differs between two tables."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.commands.changes import Difference, Reason
from harness.commands.diff import diff
from harness.errors import Cause, StoreError
from harness.record import RunStatus
from harness.tracking.record_files import PortableRun, write_runs

TRACE = {"trace": "1:aaaa", "traced_seed": "0"}

Change = Callable[[PortableRun], PortableRun]


@pytest.fixture
def runs(portable_runs: list[PortableRun]) -> list[PortableRun]:
    return [change_record(run, provenance={**run.record.provenance, **TRACE}) for run in portable_runs]


def change_record(run: PortableRun, **changes: Any) -> PortableRun:
    return replace(run, record=replace(run.record, **changes))


def add_to_score(run: PortableRun, gain: float = 0.5) -> PortableRun:
    metrics = {**run.record.metrics, "test/top1": run.record.metrics["test/top1"] + gain}
    return change_record(run, metrics=metrics)


def change_provenance(run: PortableRun, **changes: str) -> PortableRun:
    return change_record(add_to_score(run), provenance={**run.record.provenance, **changes})


@pytest.fixture
def compare(runs: list[PortableRun], tmp_path: Path) -> Callable[..., Difference]:
    """The difference that a change of one row's runs makes; of one seed where it is given."""

    def compare(change: Change, row: str = "Net1", seed: int | None = None) -> Difference:
        chosen = [(run, run.record.row == row and seed in (None, run.record.seed)) for run in runs]
        write_runs(tmp_path / "old.jsonl", runs)
        write_runs(tmp_path / "new.jsonl", [change(run) if is_chosen else run for run, is_chosen in chosen])
        return diff(tmp_path / "old.jsonl", tmp_path / "new.jsonl")

    return compare


def list_causes(found: Difference, seed: int = 0) -> list[tuple[Reason, str, Any, Any]]:
    (row,) = found.tables[0].rows
    return [(cause.reason, cause.name, cause.before, cause.after) for cause in row.causes[seed]]


def test_equal_tables_are_one_line(compare: Callable[..., Difference]) -> None:
    found = compare(lambda run: change_record(run, metrics={**run.record.metrics, "seconds": 99.0}))
    assert found.describe() == "new: equal: 5 rows, 15 runs"
    assert not found.has_unexplained


def test_a_number_shows_its_mean_before_and_after(compare: Callable[..., Difference]) -> None:
    found = compare(lambda run: change_provenance(run, torch="3.0"))
    assert found.describe().splitlines() == [
        "new: 1 of 5 common rows differ; 15 runs before, 15 after",
        "Net1: top-1 83.20 → 83.70",
        "  seeds 0, 1, 2: torch 2.14.1 → 3.0",
    ]


def test_a_small_difference_has_the_digits_that_show_it(compare: Callable[..., Difference]) -> None:
    assert "top-1 83.2000 → 83.2003" in compare(lambda run: add_to_score(run, 0.001), seed=0).describe()


def test_every_field_of_another_configuration_is_listed(compare: Callable[..., Difference]) -> None:
    def retrain(run: PortableRun) -> PortableRun:
        stages = [dict(stage) for stage in run.config["attention"]]
        stages[1]["normalization"] = "identity"
        training = {**run.config["training"], "lr": 0.01}
        config = {**run.config, "attention": stages, "training": training}
        return replace(change_record(add_to_score(run), cell_id="0123456789ab"), config=config)

    found = compare(retrain)
    assert list_causes(found) == [
        (Reason.CONFIGURATION, "attention.normalization", "softmax", ["softmax", "identity"]),
        (Reason.CONFIGURATION, "training.lr", 0.001, 0.01),
    ]
    assert "attention.normalization softmax → [softmax, identity]; training.lr 0.001 → 0.01" in found.describe()


@pytest.mark.parametrize(
    ("provenance", "note"),
    [
        ({"trace": "1:bbbb"}, "rehearsals differ"),
        ({"trace": "1:bbbb", "kernels": "default"}, "rehearsals differ, in other environments"),
        ({"traced_seed": "1"}, "no rehearsals to compare"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_code_is_a_cause_unless_its_rehearsals_are_equal(
    compare: Callable[..., Difference], provenance: dict[str, str], note: str
) -> None:
    found = compare(lambda run: change_provenance(run, code_digest="0ther", **provenance))
    assert list_causes(found)[0] == (Reason.CODE, "code", "c0de", "0ther")
    assert f"code c0de → 0ther ({note})" in found.describe()
    assert not found.has_unexplained


def test_code_with_equal_rehearsals_explains_nothing(compare: Callable[..., Difference]) -> None:
    found = compare(lambda run: change_provenance(run, code_digest="0ther"))
    assert found.has_unexplained
    assert "code c0de → 0ther (rehearsals are equal, bit for bit)" in found.describe()


def test_other_images_and_label_maps_are_a_cause(compare: Callable[..., Difference]) -> None:
    assert list_causes(compare(lambda run: change_provenance(run, data_digest="0ther"))) == [
        (Reason.DATA, "images", "da7a", "0ther")
    ]
    assert list_causes(compare(lambda run: change_provenance(run, data_digest="da7a+maps"))) == [
        (Reason.DATA, "label map", None, "maps")
    ]


@pytest.mark.parametrize("name", ["torch", "device", "instructions", "threads", "kernels"])
def test_another_environment_is_a_cause(compare: Callable[..., Difference], name: str) -> None:
    found = compare(lambda run: change_provenance(run, **{name: "other"}))
    assert [(cause[0], cause[1], cause[3]) for cause in list_causes(found)] == [(Reason.ENVIRONMENT, name, "other")]


def test_added_and_removed_seeds_are_a_cause(compare: Callable[..., Difference]) -> None:
    found = compare(lambda run: change_record(run, seed=3), seed=0)
    assert list_causes(found, 0) == [(Reason.SEEDS, "seed", 0, None)]
    assert list_causes(found, 3) == [(Reason.SEEDS, "seed", None, 3)]
    assert found.describe().splitlines()[-2:] == ["  seed 0: removed", "  seed 3: added"]


def test_a_run_that_diverged_is_a_cause(compare: Callable[..., Difference]) -> None:
    ended = {"status": RunStatus.DIVERGED, "cause": Cause.LOSS, "status_detail": "the loss is nan"}
    found = compare(lambda run: change_record(run, **ended), seed=1)
    assert list_causes(found, 1) == [(Reason.STATUS, "status", "ok", "diverged")]
    assert "seed 1: status ok → diverged (the loss is nan)" in found.describe()
    assert not found.has_unexplained


def test_a_number_that_differs_for_no_reason_is_unexplained(compare: Callable[..., Difference], tmp_path: Path) -> None:
    found = compare(add_to_score, seed=2)
    assert found.has_unexplained
    assert "  seed 2: unexplained: top-1 83.10 → 83.60" in found.describe().splitlines()
    assert main(["diff", str(tmp_path / "old.jsonl"), str(tmp_path / "new.jsonl")]) == 1


def test_a_cause_of_one_seed_does_not_explain_another(compare: Callable[..., Difference]) -> None:
    def change(run: PortableRun) -> PortableRun:
        return change_provenance(run, torch="3.0") if run.record.seed == 0 else add_to_score(run)

    found = compare(change)
    assert [cause[0] for cause in list_causes(found, 0)] == [Reason.ENVIRONMENT]
    assert [cause[0] for cause in list_causes(found, 1)] == [Reason.UNEXPLAINED]


def test_exchanged_seeds_are_found_although_the_mean_stays(compare: Callable[..., Difference]) -> None:
    found = compare(lambda run: add_to_score(run, {0: 0.5, 1: -0.5, 2: 0.0}[run.record.seed]))
    assert "top-1 83.20 (same mean, other values)" in found.describe()


def test_the_newest_run_of_a_seed_counts(runs: list[PortableRun], tmp_path: Path) -> None:
    older = replace(change_record(add_to_score(runs[1]), end_time=1.0), origin="f" * 32)
    write_runs(tmp_path / "old.jsonl", runs)
    write_runs(tmp_path / "new.jsonl", [*runs, older])
    assert diff(tmp_path / "old.jsonl", tmp_path / "new.jsonl").tables[0].rows == ()


def test_json_has_the_same_as_plain_values(
    compare: Callable[..., Difference], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(lambda run: change_provenance(run, torch="3.0"), seed=0)
    assert main(["diff", str(tmp_path / "old.jsonl"), str(tmp_path / "new.jsonl"), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    (table,) = plain["tables"]
    (row,) = table["rows"]
    ((cause,),) = row["causes"].values()
    assert [set(part) for part in (plain, table, row, row["numbers"][0], cause)] == [
        {"unexplained", "tables", "removed", "added"},
        {"name", "runs", "num_rows", "rows", "removed", "added"},
        {"row", "numbers", "causes"},
        {"name", "before", "after", "form"},
        {"reason", "name", "before", "after", "note", "is_effective"},
    ]
    assert (cause["name"], cause["before"], cause["after"]) == ("torch", "2.14.1", "3.0")


def test_rows_and_tables_of_one_side_are_listed(runs: list[PortableRun], tmp_path: Path) -> None:
    for folder, row in (("old", "Net1"), ("new", "Net7-N")):
        kept = [run for run in runs if run.record.row != row]
        write_runs(tmp_path / folder / "laptop" / "runs" / "small.jsonl", kept)
        write_runs(tmp_path / folder / "laptop" / "runs" / f"{folder}.jsonl", kept)
    assert diff(tmp_path / "old", tmp_path / "new").describe().splitlines() == [
        "laptop/small: 0 of 3 common rows differ; 12 runs before, 12 after",
        "Net7-N: only in the old table",
        "Net1: only in the new table",
        "laptop/old: only in the old folder",
        "laptop/new: only in the new folder",
    ]


def test_predictions_are_not_needed(
    runs: list[PortableRun], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_runs(tmp_path / "old.jsonl", runs)[0]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(f"{json.dumps({**line, 'per_image': {'labels': 'ab'}})}\n" for line in lines))
    assert main(["diff", str(path), str(path), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["unexplained"] is False
    assert plain["tables"][0]["num_rows"] == 5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("missing.jsonl", "old.jsonl", "missing.jsonl cannot be read: No such file"),
        ("damaged.jsonl", "old.jsonl", "damaged.jsonl:1: not a run"),
        ("empty.jsonl", "old.jsonl", "has no run"),
        ("old.jsonl", ".", "one is a folder, the other a file"),
        ("folder", ".", "no record file is below"),
        ("other", ".", "no table is in both"),
    ],
)
def test_what_cannot_be_compared_is_one_message(
    runs: list[PortableRun], tmp_path: Path, old: str, new: str, message: str
) -> None:
    write_runs(tmp_path / "old.jsonl", runs)
    (tmp_path / "damaged.jsonl").write_text('{"row": "Net1"}\n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "folder").mkdir()
    write_runs(tmp_path / "other" / "else.jsonl", runs)
    with pytest.raises(StoreError, match=message):
        diff(tmp_path / old, tmp_path / new)
