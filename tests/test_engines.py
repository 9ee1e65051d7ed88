"""The real command with every engine: one table."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
EXPERIMENT = """\
title: Two rows
recipe: smoke
baseline: Swin-T
rows:
  Swin-T: {}
  Net4: {parameterization: [position_bias]}
  Net7: {parameterization: [query_key, query_position, position_key, position_bias]}
seeds: 1
"""
OPTIONS = {"local": "workers: auto\n", "slurm": "cluster: local\npoll_seconds: 0.1\n", "ray": "cpus: 1\n"}
MEASURED_TIME = ("seconds", "images_per_second", "peak_memory_gb", "hours")


def run(folder: Path, engine: str, *arguments: str) -> pd.DataFrame:
    """The table of the experiment from an empty store."""
    folder.mkdir()
    (folder / "two.yaml").write_text(EXPERIMENT)
    (folder / "options.yaml").write_text(OPTIONS[engine])
    command = [sys.executable, "-m", "harness.cli", "run", "two.yaml", "--engine", engine]
    command += ["--engine-options", "options.yaml", "--tracking-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--results", str(folder), *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return pd.read_csv(next(folder.rglob("two.csv")), dtype=str)


@pytest.mark.slow
def test_every_engine_makes_the_same_table(tmp_path: Path) -> None:
    local, slurm, ray = (run(tmp_path / engine, engine) for engine in OPTIONS)
    kept = [column for column in local.columns if not any(part in column for part in (*MEASURED_TIME, "last_run"))]
    assert "top1_mean" in kept
    for other in (slurm, ray):
        pd.testing.assert_frame_equal(other[kept], local[kept])


@pytest.mark.slow
def test_a_part_of_the_plan_leaves_the_rest_to_others(tmp_path: Path) -> None:
    table = run(tmp_path / "first", "local", "--rows", "Swin-T,Net4", "--set", "seeds=2", "--seeds", "1-1")
    assert set(table["row"][table["n"] == "1"]) == {"Swin-T", "Net4"}
    assert set(table["row"][table["n"] == "0"]) == {"Net7", "Linear classifier", "One hidden layer"}
