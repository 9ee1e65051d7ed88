import json
import logging
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness import build
from harness.cli import main
from harness.commands.doctor import describe_findings
from harness.commands.doctor.finding import Finding, Level
from harness.commands.doctor.machine import check_disk, check_machine
from harness.commands.doctor.software import check_software
from harness.commands.doctor.storage import check_data, check_searches, check_store
from harness.data import fashion_mnist
from harness.plan import Plan
from harness.spec import ExperimentSpec
from harness.tracking import MlflowTracker
from harness.tracking.process import ProcessIdentity

PROJECT = """\
[project]
name = "elsa-ablation"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["numpy>=2", "pandas>=3"]
[project.scripts]
harness = "harness.cli:main"
[project.optional-dependencies]
"""


def find(findings: Any, topic: str) -> Finding:
    return next(finding for finding in findings if finding.topic == topic)


@pytest.mark.parametrize(
    ("old", "new", "topic", "expected"),
    [
        (">=3.11", "<3", "python", "<3 is required"),
        ("numpy>=2", "numpy>=2000", "packages", "numpy>=2000 is required, found 2."),
        ("numpy>=2", "no-such-package", "packages", "no-such-package is missing"),
    ],
    ids=["python", "old package", "missing package"],
)
def test_software_that_does_not_fit_is_a_problem(tmp_path: Path, old: str, new: str, topic: str, expected: str) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    assert find(check_software(tmp_path), topic).level == Level.OK
    (tmp_path / "pyproject.toml").write_text(PROJECT.replace(old, new))
    found = find(check_software(tmp_path), topic)
    assert found.level == Level.PROBLEM
    assert expected in found.found
    assert found.advice


def test_a_journal_with_an_incomplete_end_is_a_warning_and_a_damaged_one_a_problem(tmp_path: Path) -> None:
    uri, journal = f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "optuna.journal"
    line = b'{"op_code": 0, "worker_id": "a"}\n'
    assert list(check_searches(uri)) == []
    for content, level in ((line, Level.OK), (line + line[:9], Level.WARNING), (b"{}\n" + line, Level.PROBLEM)):
        journal.write_bytes(content)
        (finding,) = check_searches(uri)
        assert finding.level == level
        assert str(journal) in finding.found
        assert journal.read_bytes() == content


def test_versions_that_results_were_not_made_with_are_a_warning(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "constraints.txt").write_text("# a comment\nnumpy==1.0\nnot-installed==3\n")
    found = find(check_software(tmp_path), "versions")
    assert found.level == Level.WARNING
    assert "numpy" in found.found and "(not 1.0)" in found.found
    assert "not-installed" not in found.found


def test_another_folder_than_the_installed_one_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    assert find(check_software(tmp_path), "installation").level == Level.WARNING


def test_kernels_that_are_not_compiled_are_a_warning_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def describe(_device: object) -> str:
        logging.getLogger("paradigms.kernels.cpu").warning("no compiled kernels")
        return "torch"

    monkeypatch.setattr(build, "describe_kernels", describe)
    found = find(check_machine(), "kernels")
    assert (found.level, found.found) == (Level.WARNING, "torch: no compiled kernels")


@pytest.mark.parametrize(("free", "level"), [(1e8, Level.PROBLEM), (1e9, Level.WARNING), (1e11, Level.OK)])
def test_little_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, level: Level) -> None:
    class Usage(NamedTuple):
        free: float

    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage(free))
    (found,) = check_disk([tmp_path / "not yet", tmp_path])
    assert found.level == level


def test_a_store_of_another_mlflow_is_a_problem(tracking_uri: str) -> None:
    with closing(sqlite3.connect(tracking_uri.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'older'")
    (found,) = check_store(tracking_uri)
    assert found.level == Level.PROBLEM
    assert "schema" in found.found
    assert "mlflow db upgrade" in found.advice


def test_runs_that_were_left_open_are_a_warning(
    tracking_uri: str, small_spec: ExperimentSpec, small_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = MlflowTracker(tracking_uri)
    tracker.prepare("small")
    parent = tracker.start_invocation(small_spec, command="harness run", provenance={})
    tracker.start_run(small_plan.runs[0], spec=small_spec, parent_id=parent, provenance={})
    assert "1 run, 1 of them running" in next(check_store(tracking_uri)).found
    monkeypatch.setattr(ProcessIdentity, "is_alive", property(lambda _self: False))
    _, left = check_store(tracking_uri)
    assert (left.level, left.found) == (Level.WARNING, "1 run left open by processes that have ended")


def test_shipped_images_that_are_damaged_are_a_problem_others_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find(check_data(None), "data of laptop").level == Level.OK
    assert find(check_data(None), "data of imagenet").level == Level.WARNING
    monkeypatch.setattr(fashion_mnist, "SHA256", dict.fromkeys(fashion_mnist.SHA256, "another"))
    found = find(check_data(None), "data of laptop")
    assert found.level == Level.PROBLEM
    assert "install it again" in found.advice


def test_findings_are_a_line_each_with_what_to_do() -> None:
    findings = [Finding(Level.OK, "python", "3.11"), Finding(Level.PROBLEM, "store", "it is locked", "wait")]
    assert describe_findings(findings).splitlines() == [
        "ok       python  3.11",
        "problem  store   it is locked",
        "                 → wait",
        "",
        "1 problem",
    ]


def test_a_problem_is_the_exit_code(
    tmp_path: Path, tracking_uri: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--json", "--tracking-uri", tracking_uri]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    assert all(set(found) == {"level", "topic", "found", "advice"} for found in document["findings"])
    assert main(["doctor", "--tracking-uri", "./mlruns"]) == 1
    assert "problem  store" in capsys.readouterr().out
