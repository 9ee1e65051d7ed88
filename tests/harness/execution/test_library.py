import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import harness.execution
from harness import compare, read_records, run
from harness.errors import SpecError, StoreError
from harness.execution import RunOptions

ROOT = Path(__file__).parents[3]

SCRIPT = """
from harness import compare, load_spec, read_records, run

print("the script begins")
spec = load_spec("two.yaml", overrides=["floor_width=null"])
run(spec).to_pickle("table.pkl")
records = read_records(spec)
records.to_pickle("records.pkl")
compare(records, baseline="Swin-T").to_pickle("deltas.pkl")
assert compare(spec).equals(compare(records, baseline="Swin-T"))
"""

EXPERIMENT = """\
title: Two rows
recipe: smoke
baseline: Swin-T
rows:
  Swin-T: {}
  Net4: {parameterization: [position_bias]}
seeds: 2
"""


def test_the_function_is_got_whatever_was_imported_before() -> None:
    assert run is harness.run
    assert callable(run)


def test_a_mistake_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such file"):
        run("tabel1")
    with pytest.raises(StoreError, match="keeps no runs in plain folders"):
        read_records("table1", tracking_uri=str(tmp_path))
    with pytest.raises(ValueError, match="give baseline="):
        compare(pd.DataFrame())


def test_a_store_without_runs_gives_no_lines(tracking_uri: str) -> None:
    assert len(read_records("table1", tracking_uri=tracking_uri)) == 0
    assert len(compare("table1", tracking_uri=tracking_uri)) == 0


def test_code_that_was_edited_meanwhile_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = iter(["before", "after"])
    monkeypatch.setattr("harness.execution.library.tree_digest", lambda *_folders: next(digests))
    monkeypatch.setattr("harness.execution.library._digest_code_once", lambda: next(digests))
    with pytest.raises(harness.HarnessError, match="restart Python"):
        run("table1")


def test_a_stale_source_is_warned_of(monkeypatch: pytest.MonkeyPatch, tracking_uri: str) -> None:
    """As the command line does, and before anything is trained."""

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("nothing is trained here")

    monkeypatch.setattr("harness.execution.library.list_stale", lambda *_, **__: ["run 4f1c is stale"])
    monkeypatch.setattr("harness.execution.library.make_engine", refuse)
    with pytest.warns(UserWarning, match="run 4f1c is stale"), pytest.raises(StoreError, match="nothing is trained"):
        run("table1", tracking_uri=tracking_uri)


@pytest.mark.parametrize("name", ["keep_stale", "retrain"])
def test_options_of_the_command_line_reach_the_plan(
    name: str, monkeypatch: pytest.MonkeyPatch, tracking_uri: str
) -> None:
    received = []

    def refuse(*_: object, options: RunOptions, **__: object) -> None:
        received.append(options)
        raise StoreError("nothing is trained here")

    monkeypatch.setattr("harness.execution.library.run_plan", refuse)
    for arguments in ({name: True}, {}):
        with pytest.raises(StoreError, match="nothing is trained"):
            run("table1", tracking_uri=tracking_uri, **arguments)
    assert [getattr(options, name) for options in received] == [True, False]


@pytest.mark.slow
def test_a_plain_script_trains_reads_and_compares(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(EXPERIMENT)
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the script begins") == 1
    table, records, deltas = (pd.read_pickle(tmp_path / f"{name}.pkl") for name in ("table", "records", "deltas"))
    assert list(table["outcomes"]) == [(), ()]
    assert list(records["row"]) == ["Swin-T", "Swin-T", "Net4", "Net4"]
    assert not records["stale"].any()
    assert deltas.loc[0, "delta"] == table.set_index("row").loc["Net4", "delta"]
    assert list((tmp_path / "results").rglob("two.csv"))
