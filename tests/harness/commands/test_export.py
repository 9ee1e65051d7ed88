"""`harness export`: files for everybody, whatever the images were; `tests/test_examples.py` has plug-ins."""

import os
from pathlib import Path

import pytest
import torch

from harness.build import build_model
from harness.cli import main
from harness.data import fashion_mnist
from harness.plan import Plan, PlannedRun
from harness.provenance import code_digest
from harness.record import Record, RunStatus
from harness.tracking import MlflowTracker


def store(plan: Plan, run: PlannedRun, tracker: MlflowTracker, folder: Path, *, digest: str) -> str:
    """A run with its weights; returns its id."""
    tracker.prepare(plan.spec.name)
    provenance = {"code_digest": digest, "data_digest": "da7a"}
    parent_id = tracker.start_invocation(plan.spec, command="harness run", provenance={})
    run_id = tracker.start_run(run, spec=plan.spec, parent_id=parent_id, provenance=provenance)
    torch.save(build_model(run.row.cell, replicate=0).state_dict(), folder / "weights.pt")
    tracker.log_file(run_id, folder / "weights.pt")
    cell = run.row.cell
    tracker.finish_run(run_id, Record(cell.id, run.row.name, 0, RunStatus.OK, {}, provenance=provenance, run_id=run_id))
    return run_id


@pytest.fixture
def run_id(small_plan: Plan, tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    run = small_plan.runs[0]
    return store(small_plan, run, MlflowTracker(tracking_uri), tmp_path, digest=code_digest(run.row.cell))


def test_an_export_reads_no_images_and_writes_files_for_everybody(
    run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fashion_mnist, "load_data", None)
    before = os.umask(0o022)
    try:
        assert main(["export", run_id, "--output", "model"]) == 0
    finally:
        os.umask(before)
    files = sorted((tmp_path / "model").iterdir())
    assert [path.name for path in files] == ["README.md", "config.json", "model.safetensors"]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}
    assert f"less {[fashion_mnist.MEAN]} and divided by {[fashion_mnist.STD]}" in files[0].read_text()
    assert not capsys.readouterr().err


def test_an_export_of_a_stale_run_says_so(
    small_plan: Plan, run_id: str, tmp_path: Path, tracking_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = store(small_plan, small_plan.runs[0], MlflowTracker(tracking_uri), tmp_path, digest="older")
    assert stale != run_id
    assert main(["export", stale, "--output", "model"]) == 0
    assert f"run {stale} is stale, code has changed since it was trained" in capsys.readouterr().err
