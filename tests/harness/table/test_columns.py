"""One object makes a column, in every output."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from harness.errors import PluginError
from harness.plan import Plan
from harness.plugins import load_plugins
from harness.reading import load_spec
from harness.record import Record
from harness.report.latex import to_latex
from harness.report.markdown import to_markdown
from harness.report.page import render
from harness.report.table import to_table_csv
from harness.report.terminal import to_text
from harness.spec.experiment import COLUMNS as KEYS
from harness.table import COLUMNS, Results, list_columns, make_columns, make_results
from harness.tasks import list_measures

PLUGIN = """
from harness.table import Column, Kind, Latex, Note

COLUMNS = {
    "runs": Column(
        "runs",
        lambda entry: tuple(record.metrics["seconds"] for record in entry.records),
        Kind.LIST,
        lambda seconds: " ".join(f"{x:g}" for x in seconds),
        title="every run",
        unit="s",
        text=lambda row: f"{len(row['runs'])} x {max(row['runs'], default=0):g}",
        key="runs",
        latex=Latex(),
        note=Note(20, lambda _: ["**every run** is timed by itself."]),
    ),
}
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file of someone else, which is all that a column needs."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("harness.plugins._loaded", {})
    (tmp_path / "own_column.py").write_text(PLUGIN)
    load_plugins(tmp_path / "own_column.py")
    load_plugins(tmp_path / "own_column.py")  # again is nothing new
    yield
    del COLUMNS["runs"], sys.modules["own_column"]
    KEYS.remove("runs")


def ask(plan: Plan, records: list[Record], *columns: str) -> Results:
    return make_results(replace(plan, spec=plan.spec.model_copy(update={"columns": columns})), records)


@pytest.mark.usefixtures("added")
def test_a_column_from_outside_is_in_the_csv_and_wherever_it_is_asked_for(
    small_plan: Plan, records: list[Record]
) -> None:
    assert load_spec("table1", recipe="smoke", overrides=["columns=[runs, score]"]).columns == ("runs", "score")
    results = ask(small_plan, records, "score", "runs")
    assert results.frame.loc[0, "runs"] == (60.0, 60.0, 60.0)
    assert list(results.frame.columns) == [*list_columns(small_plan.spec)[:-1], "runs"]
    header, first, *_ = to_table_csv(results.columns, results.frame).splitlines()
    assert (header.rpartition(",")[2], first.rpartition(",")[2]) == ("runs", "60 60 60")
    markdown, latex = to_markdown(results), to_latex(results)
    assert "| every run, s " in markdown
    assert "* **every run** is timed by itself." in markdown
    assert all("3 x 60" in text for text in (markdown, latex, to_text(results), render(markdown)))
    assert "every run" not in to_markdown(ask(small_plan, records, "score"))


@pytest.mark.usefixtures("added")
def test_a_column_needs_a_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "second_column.py").write_text(PLUGIN.replace('"runs"', '"marks"'))
    with pytest.raises(PluginError, match="column 'marks' exists already"):
        load_plugins(tmp_path / "second_column.py")


def test_every_key_of_an_experiment_is_that_of_a_column(small_plan: Plan) -> None:
    measures = list_measures(small_plan.spec)
    keys = {column.key for column in make_columns(measures, baseline="")}
    assert keys == {"", *KEYS, *(measure.name for measure in measures[1:])}


def test_cells_are_typed_and_written_as_text(small_plan: Plan, records: list[Record]) -> None:
    results = make_results(small_plan, records)
    row = results.frame.iloc[1]
    assert (row["heads"], row["overrides"], row["torch"]) == ((2, 4), (), ("2.14.1",))
    assert (len(row["val_curve"]), dict(row["published_curve"]), dict(row["reasons"])) == (8, {}, {})
    assert row["last_run"] == pd.Timestamp(records[-1].end_time, unit="s", tz="UTC")
    written = dict(zip(*(line.split(",") for line in _strip(results)), strict=True))
    assert (written["torch"], written["last_run"]) == ("2.14.1", "2026-11-18 11:06 UTC")


def _strip(results: Results) -> list[str]:
    """Header and second row of the csv, whose quoted cells have commas."""
    kept = [column for column in results.columns if column.name not in ("heads", "val_curve")]
    return to_table_csv(kept, results.frame[[column.name for column in kept]]).splitlines()[0:3:2]
