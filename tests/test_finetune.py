"""Trained at 28 pixels, fine-tuned at 42 and 56, from a stored run and from a file, through the command line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from harness.tracking.translation import read_json_tag

ROOT = Path(__file__).parents[1]

EXPERIMENT = """\
title: Larger images
recipe: scratch
baseline: Swin
rows:
  Swin: {preset: swin}
  VOLO: {backbone: volo}
  Swin 56: {init_from: Swin, image_size: 56, window_size: 14}
  VOLO 42: {init_from: VOLO, image_size: 42}
seeds: 1
"""
RECIPE = """\
title: Two brightnesses
data: {name: image_folder, num_classes: 2, channels: 3, image_size: 28, val_images: 64}
backbones:
  swin: {patch_size: 2, embed_dim: 8, depths: [2, 1], num_heads: [1, 2], window_size: 7, weight_init: reset}
  volo: {patch_size: 2, stem_hidden_dim: 8, layers: [1, 1], embed_dims: [16, 32], num_heads: [1, 2], weight_init: jax}
training: {opt: nmuon, lr: 0.02, batch_size: 16, epochs: 2, augmentation: {scale: [0.5, 1.0]}}
"""
UNTRAINED = RECIPE.replace("lr: 0.02", "lr: 1e-12").replace("epochs: 2", "epochs: 1")
"""The schedule of the fine-tuning recipe changes no weight, so that what is measured was there before."""


def harness(verb: str, *options: str, code: int = 0) -> str:
    """What the command prints of an experiment on these images; it must end with this exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", verb, "larger.yaml", "--data", "images", *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an experiment, its recipes, images and a store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    Path("recipes").mkdir()
    Path("larger.yaml").write_text(EXPERIMENT)
    Path("recipes/scratch.yaml").write_text(RECIPE)
    Path("recipes/larger.yaml").write_text(f"{UNTRAINED}init_recipe: scratch\n")
    random = np.random.default_rng(0)
    for split, count in (("train", 96), ("val", 32)):
        for name, level in (("dark", 60), ("light", 190)):
            folder = Path("images", split, name)
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.normal(level, 20, (28, 28, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path


def find_runs() -> dict[str, Run]:
    client = MlflowClient()
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.data.params["row"]: run for run in client.search_runs(ids, "tags.kind = 'run'")}


def read_table(recipe: str) -> pd.DataFrame:
    return pd.read_csv(Path("results", recipe, "larger.csv")).set_index("row")


@pytest.mark.slow
@pytest.mark.usefixtures("desk")
def test_rows_go_on_from_stored_runs_and_from_files_at_their_own_size() -> None:
    message = harness("run", "--recipe", "larger", code=2)
    assert "train row 'Swin' under recipe 'scratch' first: Swin 56 starts from its weights" in message
    assert "train row 'VOLO' under recipe 'scratch' first" in message
    assert not find_runs()

    harness("run")
    assert read_table("scratch").loc["VOLO 42", "skipped"] == "starts from 'VOLO'; recipe 'scratch' trains from scratch"
    trained = find_runs()
    MlflowClient().download_artifacts(trained["VOLO"].info.run_id, "weights.pt", ".")

    planned = harness("plan", "--recipe", "larger")
    assert "56x56" in planned and "42x42" in planned
    assert f"VOLO 42 starts from row VOLO under recipe scratch, {trained['VOLO'].data.tags['cell_id']}" in planned

    row = "rows.from a file={backbone: volo, init_from: weights.pt, image_size: 42}"
    Path("larger.yaml").write_text(EXPERIMENT.replace("seeds: 1", "  from a file: {}\nseeds: 1"))
    harness("run", "--recipe", "larger", "--set", row)
    runs = find_runs()
    for name in ("Swin 56", "VOLO 42", "from a file"):
        assert runs[name].data.metrics["test/top1"] > 90, name
    for metric in ("train/loss", "val/loss", "test/loss"):
        assert runs["from a file"].data.metrics[metric] == runs["VOLO 42"].data.metrics[metric]
    source = read_json_tag("provenance", runs["VOLO 42"].data.tags)["init_from"]
    assert source.startswith(f"run {trained['VOLO'].info.run_id} of row VOLO under recipe scratch")
    from_file = read_json_tag("provenance", runs["from a file"].data.tags)["init_from"]
    assert from_file.startswith(f"file {Path('weights.pt').absolute()}")

    assert "0 to train" in harness("run", "--recipe", "larger")
    assert "There is no **Δ**: the baseline, Swin, is skipped." in Path("results/larger/larger.md").read_text()
