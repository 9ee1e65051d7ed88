"""`harness checklist` states what the runs of a table say, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import main
from harness.commands.checklist import list_paragraphs, read_paragraphs, to_latex, to_markdown
from harness.errors import StoreError
from harness.plan import Plan, make_plan
from harness.record import Record, RunStatus
from harness.spec import ExperimentSpec
from harness.table.results import make_results
from harness.tracking import MlflowTracker
from harness.tracking.record_files import PortableRun, write_runs

VaryRecipe = Callable[..., ExperimentSpec]


def describe(plan: Plan, records: list[Record]) -> tuple[str, str]:
    """Significance and compute."""
    significance, compute = (" ".join(text) for text in list_paragraphs(make_results(plan, records)).values())
    return significance, compute


def test_significance_says_what_varies_and_how_it_was_tested(small_plan: Plan, records: list[Record]) -> None:
    text, _ = describe(small_plan, records)
    for fact in (
        "3 rows and 2 models without attention, each trained with n = 3 random seeds.",
        "A seed sets the initial weights and the order of the training images.",
        "All seeds share one split",
        "± is the standard deviation of top-1 over the seeds (with n - 1).",
        "baseline Swin-T",
        "simultaneous 95 % intervals",
        "Dunnett's two-sided step-down test over 2 comparisons",
        "family-wise error rate is 5 %",
        "within ±0.2 points of top-1",
        "fashion_mnist is measured once per run, with the weights after the last epoch.",
        "Validation uses 50 images that are not trained on",
        "All 15 runs gave a measurement; none diverged or failed.",
    ):
        assert fact in text


def test_compute_has_hours_hardware_versions_and_commit(small_plan: Plan, records: list[Record]) -> None:
    records = [
        replace(r, metrics={**r.metrics, "seconds": 3600.0 * (1 + r.seed), "peak_memory_gb": 1.25}) for r in records
    ]
    _, text = describe(small_plan, records)
    for fact in (
        "The 15 runs of the table took 30.0 hours in total. One run took 2.0 hours (median; 1.0 hours to 3.0 hours).",
        "Hardware: AMD EPYC; a run used 1 CPU thread and at most 1.2 GB of memory.",
        "torch 2.14.1, timm unknown",
        "Code: commit 8c1f0e2.",
    ):
        assert fact in text


def test_several_environments_and_uncommitted_changes_are_stated(small_plan: Plan, records: list[Record]) -> None:
    other = {"device": "H200", "threads": "4", "torch": "3.0", "commit": "abc", "dirty": "true"}
    records[0] = replace(records[0], provenance={**records[0].provenance, **other})
    _, text = describe(small_plan, records)
    assert "H200, AMD EPYC; a run used 4, 1 CPU threads" in text
    assert "torch 3.0, 2.14.1" in text
    assert "commit abc, 8c1f0e2, with uncommitted changes" in text


def test_bad_and_missing_runs_are_counted(
    small_plan: Plan, records: list[Record], make_record: Callable[..., Record]
) -> None:
    kept = [record for record in records if (record.row, record.seed) not in {("Net1", 0), ("Net1", 1)}]
    text, _ = describe(small_plan, [*kept, make_record("Net1", 1, RunStatus.DIVERGED)])
    assert "n, the seeds with a measurement, is 1 to 3 of 3 planned seeds per row." in text
    assert "Of 15 planned runs, 13 gave a measurement; others: 1 diverged, 1 not finished." in text
    assert "Comparisons that lost runs in this way are left unresolved." in text


def test_one_seed_has_no_spread_and_no_test(small_spec: ExperimentSpec, records: list[Record]) -> None:
    plan = make_plan(small_spec.model_copy(update={"seeds": 1}))
    text, _ = describe(plan, records)
    assert "n = 1 random seed." in text
    assert "No difference between rows is tested." in text
    assert "±" not in text


@pytest.mark.parametrize(
    ("part", "changes", "fact"),
    [
        ("augmentation", {"hflip": 0.5}, "the order of the training images and their augmentation."),
        ("swin", {"drop_path_rate": 0.1}, "the order of the training images and drop path."),
        ("data", {"val_images": 0}, "no separate validation images"),
        ("training", {"ema_decay": 0.9}, "the moving average of the weights after the last epoch"),
    ],
)
def test_the_recipe_decides_what_is_said(
    small_spec: ExperimentSpec,
    records: list[Record],
    vary_recipe: VaryRecipe,
    part: str,
    changes: dict[str, float],
    fact: str,
) -> None:
    plan = make_plan(vary_recipe(small_spec, part, **changes))
    cells = {row.name: row.cell.id for row in plan.rows}
    text, _ = describe(plan, [replace(record, cell_id=cells[record.row]) for record in records])
    assert fact in text


def test_runs_of_older_code_are_stated(small_plan: Plan, records: list[Record]) -> None:
    today = {row.cell.id: ("c0de", "da7a") for row in small_plan.rows if row.name != "Net1"}
    today |= {row.cell.id: ("new", "da7a") for row in small_plan.rows if row.name == "Net1"}
    sentences = list_paragraphs(make_results(small_plan, records, current=today))["Statistical significance"]
    assert sentences[-1] == "Code or data have changed since the runs of Net1."


def test_each_format_escapes_what_it_has_to() -> None:
    paragraphs = {"Compute": ["50 % of a_b.", "± 1"]}
    assert to_markdown(paragraphs) == "**Compute.** 50 % of a_b. ± 1"
    assert to_latex(paragraphs) == r"\paragraph{Compute.} 50 \% of a\_b. $\pm$ 1"


def test_committed_runs_are_read_and_nothing_is_written(
    small_plan: Plan,
    portable_runs: list[PortableRun],
    tracking_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = write_runs(tmp_path / "tiny" / "runs" / "small.jsonl", portable_runs[:2])
    tracker = MlflowTracker(tracking_uri)
    assert tracker.import_run(portable_runs[0])
    monkeypatch.setattr(MlflowTracker, "read_predictions", None)  # the paragraphs need none
    paragraphs = read_paragraphs(small_plan, tracker, {}, tmp_path)
    assert "Of 15 planned runs, 2 gave a measurement" in to_markdown(paragraphs)
    assert {path for path in tmp_path.glob("tiny/**/*") if path.is_file()} == set(files)
    assert len(tracker.find_runs()) == 1


def test_a_damaged_record_file_and_no_runs_are_one_message(small_plan: Plan, tracking_uri: str, tmp_path: Path) -> None:
    tracker = MlflowTracker(tracking_uri)
    with pytest.raises(StoreError, match="no run of small under recipe tiny is stored"):
        read_paragraphs(small_plan, tracker, {}, tmp_path)
    path = tmp_path / "tiny" / "runs" / "small.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("nothing\n")
    with pytest.raises(StoreError, match=r"small\.jsonl:1: not a run"):
        read_paragraphs(small_plan, tracker, {}, tmp_path)


def test_an_unknown_experiment_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checklist", "tabel1"]) == 2
    assert "unknown experiment 'tabel1'" in capsys.readouterr().err
