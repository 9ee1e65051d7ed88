"""The plug-ins of the guide: they satisfy the laws, train through the command line, and are exported."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

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


def test_the_page_shows_every_example() -> None:
    shown = re.findall(r'^--8<-- "(.+)"$', PAGE.read_text(), re.MULTILINE)
    assert sorted(ROOT / path for path in shown) == sorted(path for path in EXAMPLES.iterdir() if path.is_file())


@pytest.mark.slow
def test_every_example_of_a_level_satisfies_the_laws() -> None:
    start("-c", LAWS)


@pytest.mark.slow
def test_all_examples_train_together_and_are_exported_with_their_code(tmp_path: Path) -> None:
    """One of them imports a module beside it. The code is gone when the README of the export loads the model."""
    examples, store = tmp_path / "docs" / "examples", f"sqlite:///{tmp_path / 'mlflow.db'}"
    shutil.copytree(EXAMPLES, examples)
    sigmoid = (examples / "sigmoid.py").read_text()
    (examples / "sigmoid.py").write_text(sigmoid.replace("import math", "import beside as math"))
    (examples / "beside.py").write_text("from math import log\n")

    (command,) = re.findall(r"^harness (run .+)$", PAGE.read_text(), re.MULTILINE)
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
