from pathlib import Path

import pytest

from harness.cli import main
from harness.reading import load_spec


def test_experiments_and_recipes_are_copied_and_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "study" / "experiments" / "table1.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    assert main(["init", "study"]) == 0
    output = capsys.readouterr().out
    assert own.read_text() == "mine"
    assert "written: study/experiments/recipes/smoke.yaml" in output
    assert "written: study/experiments/table1.yaml" not in output
    assert "not overwritten: 1 of " in output


def test_a_name_means_the_experiment_of_the_working_directory_before_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    own = tmp_path / "experiments" / "table1.yaml"
    own.write_text(own.read_text().replace("title: ", "title: My "))
    assert load_spec(Path("table1")).title.startswith("My ")


def test_a_folder_that_cannot_be_made_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file")]) == 2
    assert "cannot be written: Not a directory" in capsys.readouterr().err
