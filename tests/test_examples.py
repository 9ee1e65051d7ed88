"""The plug-ins of the guide: they satisfy the laws, train through the command line, and are exported."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from harness.tracking import MlflowTracker

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
PAGE = ROOT / "docs" / "guide" / "examples.md"

LAWS = """
from harness import load_plugins
from paradigms.laws import check_level

for room, name in [
    ("parameterization", "cosine"),
    ("normalization", "sigmoid"),
    ("neighborhood", "row"),
    ("aggregation", "static_filter"),
]:
    load_plugins(f"docs/examples/{name}.py")
    assert check_level(room, name) > 15
"""


def start(*arguments: str, folder: Path = ROOT, store: str = "") -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": store}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_two_pages_show_every_example() -> None:
    text = PAGE.read_text() + (PAGE.parent / "detection.md").read_text()
    shown = re.findall(r'^--8<-- "(.+)"$', text, re.MULTILINE)
    assert sorted(ROOT / path for path in shown) == sorted(path for path in EXAMPLES.rglob("*") if path.is_file())


@pytest.mark.slow
def test_every_example_of_a_level_satisfies_the_laws() -> None:
    start("-c", LAWS)


TASK = """\
title: The brightness of images
recipe: bright
baseline: Swin-T
rows:
  Swin-T: {}
  Net7: {preset: net7}
claims: [{better: [Net7, Swin-T]}]
published: {Net7: {error: 0.25}}
columns: [params, error, delta, curve]
plots: [delta, curve, size]
seeds: 1
"""

SEARCH = """\
search:
  training.lr: {choices: [0.0001, 0.02]}
study: {trials: 2, sampler: grid, pruner: median}
"""


@pytest.mark.slow
def test_a_task_with_an_error_to_minimize_goes_from_yaml_to_table_and_search(tmp_path: Path) -> None:
    store, plugin = f"sqlite:///{tmp_path / 'mlflow.db'}", ["--plugin", str(EXAMPLES / "brightness.py")]
    smoke = (ROOT / "experiments" / "recipes" / "smoke.yaml").read_text()
    (tmp_path / "recipes").mkdir()
    bright = smoke.replace("  name: fashion", "  task: brightness\n  name: fashion")
    (tmp_path / "recipes" / "bright.yaml").write_text(re.sub("floor_width: .*", "floor_width: null", bright))
    (tmp_path / "bright_search.yaml").write_text(TASK + SEARCH)
    (tmp_path / "bright.yaml").write_text(TASK)
    shown = start("-m", "harness.cli", "search", "bright_search.yaml", *plugin, folder=tmp_path, store=store)
    folder = tmp_path / "results" / "bright"
    trials = pd.read_csv(folder / "bright_search" / "trials.csv").set_index("training.lr")
    assert list(trials.index[trials["is_best"]]) == [0.02]
    assert trials.loc[0.02, "value"] < trials.loc[0.0001, "value"]
    assert f"best {trials.loc[0.02, 'value']:.4f} (trial 1)" in shown

    start("-m", "harness.cli", "run", "bright.yaml", *plugin, folder=tmp_path, store=store)
    table = pd.read_csv(folder / "bright.csv").set_index("row")
    difference = table.loc["Net7", "error_mean"] - table.loc["Swin-T", "error_mean"]
    assert table.loc["Net7", "delta"] == pytest.approx(difference, rel=1e-7)
    assert (table["error_mean"] < 0.2).all()
    assert table.loc["Net7", "published_error"] == 0.25
    assert not any("top" in column for column in table.columns)
    assert "Error on 200 test images" in (folder / "bright.md").read_text()


@pytest.mark.slow
def test_all_examples_train_together_and_are_exported_with_their_code(tmp_path: Path) -> None:
    """One of them imports a module beside it. The code is gone when the README of the export loads the model."""
    examples, store = tmp_path / "docs" / "examples", f"sqlite:///{tmp_path / 'mlflow.db'}"
    shutil.copytree(EXAMPLES, examples)
    sigmoid = (examples / "sigmoid.py").read_text()
    (examples / "sigmoid.py").write_text(sigmoid.replace("import math", "import beside as math"))
    (examples / "beside.py").write_text("from math import log\n")

    (command,) = re.findall(r"^harness (run docs/examples/plugins\.yaml .+)$", PAGE.read_text(), re.MULTILINE)
    further = ["floor_width=null", "--rows", "All four"]
    start("-m", "harness.cli", *shlex.split(command), *further, folder=tmp_path, store=store)
    (run,) = MlflowTracker(store).find_runs()
    assert run.record is not None and run.record.status == "ok"

    plugins = [word for option in re.findall(r"--plugin \S+", command) for word in option.split()]
    start("-m", "harness.cli", "export", run.run_id, *plugins, "--output", "model", folder=tmp_path, store=store)
    assert len(list((tmp_path / "model").glob("*.py"))) == 6
    shutil.rmtree(examples)
    (code,) = re.findall(r"```python\n(.+?)```", (tmp_path / "model" / "README.md").read_text(), re.DOTALL)
    (tmp_path / "elsewhere").mkdir()
    shown = "import torch\nprint(model(torch.zeros(1, 1, 28, 28)).shape, len(list(model.operators())))"
    assert start("-c", f"{code}\n{shown}", folder=tmp_path / "elsewhere").strip() == "torch.Size([1, 10]) 4"
