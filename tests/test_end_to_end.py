"""The real command in processes of its own, from the YAML to the table, through kills and interruptions."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

ROOT = Path(__file__).parents[1]

EXPERIMENT = """\
title: Two rows
recipe: smoke
baseline: Swin-T
rows:
  Swin-T: {}
  Net4: {parameterization: [position_bias]}
seeds: 1
"""


@dataclass(frozen=True)
class Desk:
    """A working directory with an experiment, a store and results of its own."""

    folder: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`harness ARGUMENTS`, in a process group of its own, where Ctrl-C works even if the tests run without it."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        return subprocess.Popen(
            ["env", "--default-signal=INT", sys.executable, "-m", "harness.cli", *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def harness(self, *arguments: str, timeout: float = 120) -> str:
        """What the command prints; it must succeed."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=timeout)
        assert process.returncode == 0, f"{output}\n{errors}"
        return output

    def runs(self, *overrides: str) -> dict[str, Run]:
        """What the store has under these overrides, by name."""
        client = MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(ids, f"tags.kind = 'run' AND tags.overrides = '{' '.join(overrides)}'")
        return {str(run.info.run_name): run for run in found}

    def table(self, *overrides: str) -> pd.DataFrame:
        folder = self.folder / "results" / "+".join(["smoke", *overrides])
        return pd.read_csv(folder / "two.csv").set_index("row")


def make_desk(folder: Path) -> Desk:
    (folder / "two.yaml").write_text(EXPERIMENT)
    return Desk(folder)


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One seed of both rows and both floors is trained."""
    folder = tmp_path_factory.mktemp("trained")
    make_desk(folder).harness("run", "two.yaml")
    return folder


@pytest.fixture
def desk(trained_folder: Path, tmp_path: Path) -> Desk:
    """A copy of what is trained, so that no test sees what another one did."""
    return Desk(shutil.copytree(trained_folder, tmp_path / "desk"))


@pytest.fixture
def fresh_desk(tmp_path: Path) -> Desk:
    folder = tmp_path / "fresh"
    folder.mkdir()
    return make_desk(folder)


def trained(output: str) -> set[str]:
    """The runs that a command trained, by its own account."""
    return set(re.findall(r"^\[\d+/\d+\] (.+ seed \d+):", output, re.MULTILINE))


MEASURED = ["n", "top1_mean", "top5_mean", "val_top1_mean", "delta", "params", "macs"]


def test_two_fresh_stores_get_the_same_numbers(desk: Desk, fresh_desk: Desk) -> None:
    fresh_desk.harness("run", "two.yaml")
    first, second = desk.table()[MEASURED], fresh_desk.table()[MEASURED]
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert list(first["n"]) == [1, 1, 1, 1]


@pytest.mark.slow
def test_a_second_call_trains_nothing(desk: Desk) -> None:
    output = desk.harness("run", "two.yaml")
    assert "4 runs: 4 done, 0 to train" in output
    assert trained(output) == set()


def test_the_table_can_be_made_from_the_store_alone(desk: Desk) -> None:
    before = desk.table()
    shutil.rmtree(desk.folder / "results")
    output = desk.harness("table", "two.yaml")
    assert "written: results/smoke/two.md" in output
    pd.testing.assert_frame_equal(desk.table(), before)


def keep_weights(desk: Desk, run: str) -> None:
    """Copy what a run has kept to the working directory."""
    client = MlflowClient(f"sqlite:///{desk.folder / 'mlflow.db'}")
    client.download_artifacts(desk.runs()[run].info.run_id, "weights.pt", str(desk.folder))


def test_kept_weights_score_what_the_table_says(desk: Desk) -> None:
    keep_weights(desk, "Net4 seed 0")
    output = desk.harness("evaluate", "two.yaml", "Net4", "--weights", "weights.pt")
    row = desk.table().loc["Net4"]
    expected = f"Net4: top-1 {row['top1_mean']:.2f} %, top-5 {row['top5_mean']:.2f} % of 200 test images"
    assert output.splitlines()[-1] == expected


LOAD = """
import sys
import numpy as np, timm, torch
import paradigms.models

model = timm.create_model("local-dir:model", pretrained=True).eval()
assert "harness" not in sys.modules
from harness.data import load_data
from harness.reading import load_recipe

recipe = load_recipe("smoke")
data = load_data(recipe.data, recipe.training, replicate=0, data_dir=None, device=torch.device("cpu"))
assert list(model.pretrained_cfg["mean"]) == [data.splits.mean]
with torch.inference_mode():
    predicted = torch.cat([model(images).argmax(-1) for images, _ in data.test_batches()])
kept = np.load("predictions.npz")["predictions"]
assert len(kept) == 200 and len(set(kept)) > 1 and (predicted.numpy() == kept).all()
"""


@pytest.mark.slow
def test_an_exported_model_predicts_in_plain_timm_what_its_run_did(desk: Desk) -> None:
    run_id = desk.runs()["Net4 seed 0"].info.run_id
    assert "written: model/model.safetensors" in desk.harness("export", run_id, "--output", "model")
    MlflowClient(f"sqlite:///{desk.folder / 'mlflow.db'}").download_artifacts(
        run_id, "predictions.npz", str(desk.folder)
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=desk.folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_floor_and_an_unknown_run_are_not_exported(desk: Desk) -> None:
    for run_id, message in [
        (desk.runs()["Linear classifier seed 0"].info.run_id, "of which timm knows no model"),
        ("0123456789abcdef0123456789abcdef", "has no run '0123456789abcdef0123456789abcdef'"),
    ]:
        process = desk.start("export", run_id)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2
        assert message in errors


@pytest.mark.slow
def test_more_seeds_train_only_the_new_ones(desk: Desk) -> None:
    output = desk.harness("run", "two.yaml", "--seeds", "2")
    assert trained(output) == {f"{row} seed 1" for row in ("Swin-T", "Net4", "Linear classifier", "One hidden layer")}
    assert list(desk.table()["n"]) == [2, 2, 2, 2]


@pytest.mark.slow
def test_what_one_experiment_has_trained_is_shown_in_another(desk: Desk) -> None:
    (desk.folder / "other.yaml").write_text(EXPERIMENT.replace("Net4", "A row by another name"))
    output = desk.harness("run", "other.yaml")
    assert trained(output) == set()
    assert list(pd.read_csv(desk.folder / "results/smoke/other.csv")["n"]) == [1, 1, 1, 1]


@pytest.mark.slow
def test_the_commands_of_the_readme_run(fresh_desk: Desk) -> None:
    commands = re.findall(r"^    harness (.+?)(?: +#.*)?$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert {command.split()[0] for command in commands} == {
        "init",
        "plan",
        "describe",
        "run",
        "table",
        "data",
        "evaluate",
        "export",
        "bench",
    }
    for command in commands:
        if command.startswith("evaluate"):
            keep_weights(fresh_desk, "Swin-T seed 0")
        if command.startswith("export"):
            command = command.replace("RUN", fresh_desk.runs()["Swin-T seed 0"].info.run_id)  # noqa: PLW2901
        small = ["--recipe", "smoke"] if "experiments/" in command and "--recipe" not in command else []
        small += ["--list"] if command.startswith("bench") else []  # a busy machine is refused
        fresh_desk.harness(*command.split(), *small, timeout=300)


@pytest.mark.slow
def test_memory_that_the_recipe_does_not_allow_is_a_result(desk: Desk) -> None:
    overrides = ("floor_width=null", "limits.memory_limit_gb=0.02", "training.epochs=5")
    output = desk.harness("run", "two.yaml", *to_options(overrides))
    assert output.count("seed 0: out of memory") == 2
    assert list(desk.table(*overrides)["outcomes"]) == ["out_of_memory"] * 2


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(desk: Desk) -> None:
    overrides = ("floor_width=null", "training.epochs=100")
    process = desk.start("run", "two.yaml", *to_options(overrides))
    read_until(process, "epoch 1/100")
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip() == "interrupted: 0 of 2 runs are done; the same command goes on from here"
    assert_gone(family)
    assert {run.data.tags["status"] for run in desk.runs(*overrides).values()} == {"interrupted"}


@pytest.mark.slow
def test_a_killed_run_fails_alone(desk: Desk) -> None:
    overrides = ("floor_width=null", "data.train_images=160", "training.epochs=3")
    process = desk.start("run", "two.yaml", *to_options(overrides))
    read_until(process, "Net4 seed 0: epoch 1/3")
    os.kill(int(desk.runs(*overrides)["Net4 seed 0"].data.tags["process.pid"]), signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Net4 seed 0: failed: killed by signal 9 (SIGKILL)" in output
    assert list(desk.table(*overrides)["n"]) == [1, 0]


@pytest.mark.slow
def test_a_call_that_was_killed_is_closed_and_done_again(desk: Desk) -> None:
    overrides = ("floor_width=null", "data.train_images=160", "training.epochs=4")
    process = desk.start("run", "two.yaml", *to_options(overrides))
    read_until(process, "epoch 1/4")
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=30)
    assert_gone(family)
    left = desk.runs(*overrides)
    assert {run.info.status for run in left.values()} == {"RUNNING"}
    output = desk.harness("run", "two.yaml", *to_options(overrides))
    assert "closed what an earlier call left open: 3 runs" in output
    assert trained(output) == {"Swin-T seed 0", "Net4 seed 0"}


def to_options(overrides: Sequence[str]) -> list[str]:
    return [option for override in overrides for option in ("--set", override)]


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Read what a command prints up to a line with `text`."""
    assert process.stdout is not None
    assert any(text in line for line in process.stdout), "the command ended before"


def assert_gone(family: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
