"""`harness evaluate` with weights of runs and of others, on the images that ship."""

from pathlib import Path

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer as TimmSwin
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from harness.build import build_model
from harness.cli import main
from harness.data import load_data
from harness.plan import Plan, make_plan
from harness.ranks import Ranks
from harness.reading import load_spec
from harness.tasks.classification import CLASSIFICATION
from paradigms import load_released

from ...paradigms.released_elsa import draw, model_shapes

EXPERIMENT = """\
title: Released weights
recipe: smoke
baseline: Swin-T
rows:
  Swin-T: {}
  ELSA: {preset: elsa, stages: {last: {preset: swin}}}
  DeiT: {backbone: deit}
seeds: 1
"""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Of an experiment in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("three.yaml").write_text(EXPERIMENT)
    return make_plan(load_spec(Path("three.yaml")))


def evaluate(capsys: pytest.CaptureFixture[str], row: str, weights: str) -> str:
    """The line that a good command prints after what the experiment is."""
    assert main(["evaluate", "three.yaml", row, "--weights", weights]) == 0
    return capsys.readouterr().out.splitlines()[-1]


def fail(capsys: pytest.CaptureFixture[str], row: str, weights: str) -> str:
    assert main(["evaluate", "three.yaml", row, "--weights", weights]) == 2
    output = capsys.readouterr().err
    assert output.startswith("harness: ")
    assert "Traceback" not in output
    return output


def describe(model: nn.Module, plan: Plan, row: str) -> str:
    """What must be printed of a model that was evaluated by hand."""
    recipe, device = plan.spec.recipe, torch.device("cpu")
    data = load_data(recipe.data, recipe.training, replicate=0, data_dir=None, device=device)
    scores = CLASSIFICATION.evaluate(model, data.test_batches(), Ranks(device)).scores
    return f"{row}: top-1 {scores['top1']:.2f} %, top-5 {scores['top5']:.2f} % of 200 test images"


@pytest.mark.parametrize(
    ("number", "name"),
    [
        pytest.param(number, name, marks=() if name in ("Swin-T", "Linear classifier") else pytest.mark.slow)
        for number, name in enumerate(["Swin-T", "ELSA", "DeiT", "Linear classifier", "One hidden layer"])
    ],
)
def test_weights_of_a_run_give_its_accuracy(
    plan: Plan, capsys: pytest.CaptureFixture[str], number: int, name: str
) -> None:
    row = plan.rows[number]
    assert row.name == name
    model = build_model(row.cell, replicate=7)
    torch.save(model.state_dict(), "weights.pt")
    assert evaluate(capsys, name, "weights.pt") == describe(model, plan, name)


def test_timms_weights_give_timms_accuracy(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    sizes = {"img_size": 28, "patch_size": 2, "in_chans": 1, "num_classes": 10, "embed_dim": 8, "window_size": 7}
    theirs = TimmSwin(depths=(2, 1), num_heads=(1, 2), **sizes)
    torch.save({"state_dict": theirs.state_dict()}, "swin.pth")
    assert evaluate(capsys, "Swin-T", "swin.pth") == describe(theirs, plan, "Swin-T")


def test_released_elsa_weights_are_read_under_their_own_names(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = model_shapes(8, (2, 1), (1, 2), 4, 7) | {"patch_embed.proj.weight": (8, 1, 2, 2)}
    released = {name: tensor.float() for name, tensor in draw(shapes).items()}
    torch.save({"state_dict": released}, "elsa.pth")
    ours = build_model(plan.rows[1].cell, replicate=None)
    ours.load_state_dict(load_released("elsa.pth"))
    assert evaluate(capsys, "ELSA", "elsa.pth") == describe(ours, plan, "ELSA")


def test_weights_that_do_not_fit_are_one_message(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(build_model(plan.rows[0].cell, replicate=0).state_dict(), "swin.pt")
    assert fail(capsys, "ELSA", "swin.pt").endswith("; these fit row Swin-T\n")
    torch.save({"conv1.weight": torch.zeros(3)}, "other.pt")
    assert "no known layout" in fail(capsys, "ELSA", "other.pt")
    assert "no such file: none.pt" in fail(capsys, "ELSA", "none.pt")
    wide = {name: tensor.repeat_interleave(2, 0) for name, tensor in torch.load("swin.pt").items()}
    torch.save(wide, "wide.pt")
    assert "wide.pt does not fit" in fail(capsys, "Swin-T", "wide.pt")


@pytest.mark.usefixtures("plan")
def test_weights_of_another_recipe_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    row = make_plan(load_spec(Path("three.yaml"), recipe="laptop")).rows[2]
    assert row.name == "DeiT"
    torch.save(build_model(row.cell, replicate=0).state_dict(), "laptop.pt")
    message = fail(capsys, "DeiT", "laptop.pt")
    assert "row DeiT: laptop.pt does not fit: " in message
    assert message.endswith("; these fit row DeiT under recipe laptop\n")
    assert len(message.splitlines()) == 1


def test_numbers_that_are_not_finite_are_not_evaluated(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    weights = build_model(plan.rows[0].cell, replicate=0).state_dict()
    weights["norm.weight"][0] = float("nan")
    torch.save(weights, "nan.pt")
    assert "it has numbers that are not finite, in norm.weight\n" in fail(capsys, "Swin-T", "nan.pt")


@pytest.mark.usefixtures("plan")
def test_what_is_left_out_of_a_checkpoint_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"img_size": 28, "patch_size": 4, "in_chans": 1, "num_classes": 10, "embed_dim": 12}
    torch.save(VisionTransformer(depth=2, num_heads=2, **sizes).state_dict(), "deit.pth")
    assert evaluate(capsys, "DeiT", "deit.pth").startswith("left out of deit.pth: the class token (cls_token, ")


@pytest.mark.usefixtures("plan")
def test_an_unknown_row_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    message = fail(capsys, "Swim-T", "weights.pt")
    assert "three.yaml" in message
    assert "unknown row 'Swim-T'; did you mean 'Swin-T'?" in message
