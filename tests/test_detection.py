"""Detectors from the YAML of the guide to a table that is verified, through kills and on several ranks."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from harness.build import build_model
from harness.cli import main
from harness.data import load_data
from harness.data.part import take_part
from harness.plan import make_plan
from harness.ranks import Ranks
from harness.reading import load_spec
from harness.tasks.detection import DETECTION
from harness.tracking import MlflowTracker
from tests.forked_ranks import run_ranks
from tests.harness.execution import test_checkpoints as checkpoints
from tests.test_end_to_end import Desk, to_options

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
CPU = torch.device("cpu")
SMALL = (
    "data.train_images=24",
    "data.val_images=10",
    "data.test_images=20",
    "data.image_size=64",
    "training.epochs=3",
    "seeds=2",
)

pytestmark = pytest.mark.forks


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A project with the example of the guide, trained on a few small scenes."""
    folder = tmp_path_factory.mktemp("detectors")
    shutil.copytree(EXAMPLES / "recipes", folder / "experiments" / "recipes")
    shutil.copy(EXAMPLES / "detectors.yaml", folder / "experiments")
    desk = Desk(folder)
    desk.harness("run", "detectors", *to_options(SMALL))
    return desk


def find_table(desk: Desk) -> Path:
    (path,) = (desk.folder / "results").glob("scenes*/detectors.csv")
    return path


@pytest.mark.slow
def test_the_table_of_the_example_has_average_precisions_and_verdicts(desk: Desk) -> None:
    table = pd.read_csv(find_table(desk)).set_index("row")
    assert list(table.index) == ["Swin-T", "Net7-N", "DwConv", "Swin-T, Cascade Mask R-CNN"]
    assert list(table["n"]) == [2, 2, 2, 2]
    assert table["box_ap_mean"].between(0, 100).all()
    assert not any("top1" in column for column in table.columns)
    text = find_table(desk).with_suffix(".md").read_text()
    assert "box AP" in text
    assert "mask AP" in text


@pytest.mark.slow
def test_exported_runs_are_verified_by_what_was_found_in_each_image(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.harness("records", "export", "detectors", *to_options(SMALL))
    (arrays,) = (desk.folder / "results").glob("scenes*/runs/detectors.npz")
    desk.harness("verify", str(find_table(desk)))
    capsys.readouterr()
    with np.load(arrays) as stored:
        changed = dict(stored)
    name = next(name for name, values in changed.items() if values.dtype == np.float32 and values.ndim == 2)
    changed[name] = changed[name] + 1
    np.savez_compressed(arrays, allow_pickle=False, **changed)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk.folder)
        assert main(["verify", str(find_table(desk))]) == 1
    assert re.search(r"its array \w+_boxes is not the one that was written", capsys.readouterr().out)


@pytest.fixture(params=["Swin-T", "Swin-T, Cascade Mask R-CNN"], ids=["mask_rcnn", "cascade_mask_rcnn"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> checkpoints.Desk:
    """A run of 34 steps: shorter ones have no checkpoint."""
    small = [*SMALL, "training.epochs=17", "training.batch_size=12"]
    spec = load_spec(EXAMPLES / "detectors.yaml", overrides=small)
    rows = {"A": spec.rows[request.param]}
    recipe = spec.recipe.model_copy(update={"checkpoint_minutes": 1e-9})
    update = {"rows": rows, "baseline": "A", "seeds": 1, "recipe": recipe, "overrides": ()}
    tracker = MlflowTracker(f"sqlite:///{tmp_path / 'mlflow.db'}")
    return checkpoints.make_desk(spec.model_copy(update=update), tracker)


@pytest.mark.slow
def test_a_detector_that_is_killed_within_an_epoch_goes_on_bit_for_bit(run: checkpoints.Desk) -> None:
    whole, _ = run.execute()
    run.require_killed(checkpoints.kill_at(21))
    record, messages = run.execute()
    assert [m.checkpoint.step for m in messages if isinstance(m, checkpoints.Resumed)] == [21]
    checkpoints.require_one_complete_run(run, record)
    checkpoints.require_equal(run, record, whole)


def evaluate(ranks: Ranks) -> tuple[dict[str, float], list[bytes]]:
    cell = make_plan(load_spec(EXAMPLES / "detectors.yaml", overrides=SMALL)).rows[0].cell
    data = load_data(cell.data, cell.training, replicate=0, data_dir=None, device=CPU)
    model = build_model(cell, replicate=0)
    model.box_heads[0].classes.bias.data[
        -1
    ] = -3.0  # background is rare, so that a model without training finds objects
    tested = DETECTION.evaluate(model, take_part(data, ranks).test_batches(), ranks)
    return dict(tested.scores), [values.tobytes() for values in tested.per_image.values()]


@pytest.mark.slow
def test_an_evaluation_of_detections_is_the_same_on_two_ranks() -> None:
    (alone,) = run_ranks(evaluate, 1)
    assert run_ranks(evaluate, 2) == [alone, alone]
    assert sum(map(len, alone[1])) > 1000
