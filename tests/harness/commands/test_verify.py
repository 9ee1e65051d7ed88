"""`harness verify` finds every change of a table, its runs or their predictions."""

import json
import shutil
from pathlib import Path
from textwrap import indent

import numpy as np
import pandas as pd
import pytest

from harness.cli import main
from harness.commands.verify import verify
from harness.errors import StoreError
from harness.execution import write_results
from harness.plan import Plan, make_plan
from harness.reading import load_spec
from harness.record import Record, RunStatus
from harness.tracking import MlflowTracker
from harness.tracking.record_files import PortableRun, write_runs
from harness.tracking.translation import to_config

EXPERIMENT = """
title: Two rows
recipe: smoke
cell: {parameterization: [query_key], normalization: softmax, neighborhood: local_window}
baseline: Swin
rows:
  Swin: {}
  Net: {parameterization: [query_key, position_bias]}
seeds: 3
plots: [delta]
"""


def make_run(plan: Plan, number: int) -> PortableRun:
    run = plan.runs[number]
    labels = np.random.default_rng(number).integers(0, 10, 200)
    predictions = np.where(np.arange(200) < 60 + 7 * number + number % 3, labels, (labels + 1) % 10)
    score = 100 * float((predictions == labels).mean())
    record = Record(
        run.row.cell.id,
        run.row.name,
        run.seed,
        RunStatus.OK,
        {"val/top1": 40.0, "test/top1": score, "test/top5": 90.0, "params": 1000.0, "macs": 5.0, "seconds": 2.0},
        provenance={"code_digest": "c0de", "data_digest": "da7a", "torch": "2.9"},
        end_time=1_000.0 + number,
    )
    return PortableRun(
        origin=f"{number:032x}",
        experiment=plan.spec.name,
        title=plan.spec.title,
        recipe=plan.spec.recipe.name,
        overrides=(),
        levels={name: level for name, level in run.row.cell.factors().items() if level},
        config=to_config(run, plan.spec),
        started=900.0,
        record=record,
        per_image={"predictions": predictions, "labels": labels},
    )


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an experiment, its table and its runs, as they are committed."""
    project = tmp_path_factory.mktemp("project")
    (project / "experiments").mkdir()
    (project / "experiments" / "pair.yaml").write_text(EXPERIMENT)
    plan = make_plan(load_spec(project / "experiments" / "pair.yaml"))
    runs = [make_run(plan, number) for number in range(len(plan.runs))]
    write_runs(project / "results" / "smoke" / "runs" / "pair.jsonl", runs)
    tracker = MlflowTracker(f"sqlite:///{project / 'mlflow.db'}")
    tracker.prepare("pair")
    write_results(plan, tracker, {run.record.cell_id: ("c0de", "da7a") for run in runs}, project / "results")
    return project


@pytest.fixture
def results(committed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results of a copy of the project, which is the working directory."""
    shutil.copytree(committed, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def change_digit(path: Path, results: Path) -> None:
    """The last digit of a mean as the file shows it."""
    mean = pd.read_csv(results / "smoke" / "pair.csv").set_index("row").loc["Net", "top1_mean"]
    shown = repr(float(mean)) if path.suffix == ".csv" else f"{mean:.2f}"
    change(path, shown, f"{shown[:-1]}{(int(shown[-1]) + 1) % 10}")


def test_a_table_that_follows_from_its_runs_is_verified(results: Path) -> None:
    (found,) = verify([results], results)
    assert found.differences == ()
    assert {file.suffix for file in found.files} == {".csv", ".md", ".tex", ".html", ".svg"}
    assert "every number follows from the runs" in found.describe()


@pytest.mark.parametrize(
    "ending", ["csv", *(pytest.param(ending, marks=pytest.mark.slow) for ending in ("md", "tex", "html"))]
)
def test_one_changed_digit_is_found(results: Path, ending: str) -> None:
    change_digit(results / "smoke" / f"pair.{ending}", results)
    (found,) = verify([results], results)
    assert len(found.differences) == 1
    assert f"pair.{ending}" in found.differences[0]


@pytest.mark.slow
def test_a_changed_verdict_and_a_moved_point_are_found(results: Path) -> None:
    change(results / "smoke" / "pair.csv", "better", "worse")
    change(results / "smoke" / "pair-delta.svg", "<use ", '<use class="x" ')
    (found,) = verify([results], results)
    assert "Net, verdict: 'worse', from the runs 'better'" in found.differences[0]
    assert "pair-delta.svg" in found.differences[1]


def test_a_flipped_bit_in_the_predictions_is_found(results: Path) -> None:
    path = results / "smoke" / "runs" / "pair.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    (found,) = verify([results], results)
    assert len(found.differences) == 1
    assert "pair" in found.differences[0]


def edit_lines(results: Path, edit) -> None:
    path = results / "smoke" / "runs" / "pair.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    edit(lines)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_an_exchanged_seed_is_found(results: Path) -> None:
    def exchange(lines) -> None:
        first, second = [line for line in lines if line["row"] == "Net"][:2]
        first["seed"], second["seed"] = second["seed"], first["seed"]

    edit_lines(results, exchange)
    (found,) = verify([results], results)
    assert any("Net, t_p" in line for line in found.differences)


@pytest.mark.slow
def test_a_score_that_its_predictions_do_not_give_is_found(results: Path) -> None:
    def raise_score(lines) -> None:
        lines[0]["metrics"]["test/top1"] += 0.5

    edit_lines(results, raise_score)
    (found,) = verify([results], results)
    assert "its predictions give" in found.differences[0]


@pytest.mark.slow
def test_a_configuration_of_another_cell_and_a_run_twice_are_found(results: Path) -> None:
    def spoil(lines) -> None:
        first, other = next(line for line in lines if line["row"] == "Swin"), lines[-1]
        other["config"] = first["config"] if other["row"] == "Net" else lines[0]["config"]
        lines.append({**lines[0], "origin": "f" * 32, "per_image": {}})

    edit_lines(results, spoil)
    (found,) = verify([results], results)
    assert any("its configuration is not that of cell" in line for line in found.differences)
    assert any("the file has this run twice" in line for line in found.differences)


@pytest.mark.slow
def test_a_missing_csv_is_found_and_other_files_may_be_missing(results: Path) -> None:
    (results / "smoke" / "pair.csv").unlink()
    (results / "smoke" / "pair.tex").unlink()
    (found,) = verify([results], results)
    assert found.differences == ("pair.csv: the file is missing",)


@pytest.mark.slow
def test_a_table_pasted_into_a_document_is_verified(results: Path, tmp_path: Path, capsys) -> None:
    paper = tmp_path / "paper.tex"
    table = (results / "smoke" / "pair.tex").read_text()
    paper.write_text("\\section{Results}\n" + indent(table, "  ") + "\n\\end{document}\n")
    assert main(["verify", str(paper), "--results", str(results)]) == 0
    change_digit(paper, results)
    capsys.readouterr()
    assert main(["verify", str(paper), "--results", str(results)]) == 1
    assert "pair in" in capsys.readouterr().out


def test_a_table_without_runs_is_named(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = results / "smoke" / "pair.csv"
    (results / "old").mkdir()
    shutil.copy(table, results / "old" / "pair.csv")
    assert main(["verify", str(results)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "every number follows" in first
    assert second == "pair in old: not verified, its runs are not beside it"


def test_a_table_can_be_named_by_any_of_its_files(results: Path) -> None:
    (found,) = verify([results / "smoke" / "pair.md"], results)
    assert (found.differences, found.runs > 0) == ((), True)
    (found,) = verify([results / "smoke" / "other.md"], results)
    assert "other.jsonl" in found.differences[0]


@pytest.mark.parametrize("name", ["nothing.tex", "folder", "other.tex", "empty.jsonl"])
def test_what_cannot_be_verified_is_one_message(results: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name == "other.tex":
        path.write_text("\\documentclass{article}")
    elif name == "empty.jsonl":
        path = results / "smoke" / "runs" / "none.jsonl"
        path.write_text("")
        (found,) = verify([path], results)
        assert "has no run" in found.differences[0]
        return
    with pytest.raises(StoreError):
        list(verify([path], results))
