from pathlib import Path

import pytest
import torch

from harness.build import build_model
from harness.evaluate import count_parameters
from harness.floors import FLOORS, build_linear, build_mlp
from harness.plan import make_plan
from harness.reading import load_spec
from harness.spec import ExperimentSpec

TABLE1 = Path("experiments/table1.yaml")
SPECS = [load_spec(TABLE1, recipe=path.stem) for path in sorted(Path("experiments/recipes").glob("*.yaml"))]
WITH_FLOORS = [spec for spec in SPECS if spec.recipe.floor_width is not None]


@pytest.mark.parametrize("model", [build_linear((2, 4, 6), 5), build_mlp((2, 4, 6), 5, width=3)], ids=list(FLOORS))
def test_a_floor_maps_images_to_logits(model: torch.nn.Module) -> None:
    assert model(torch.zeros(7, 2, 4, 6)).shape == (7, 5)


@pytest.mark.parametrize("spec", WITH_FLOORS, ids=lambda spec: spec.recipe.name)
def test_the_hidden_layer_has_the_size_of_the_baseline(spec: ExperimentSpec) -> None:
    cells = {row.cell.backbone: row.cell for row in make_plan(spec).rows if row.is_floor or row.name == spec.baseline}
    sizes = {name: count_parameters(build_model(cell, replicate=None, device="meta")) for name, cell in cells.items()}
    assert set(sizes) == {"swin", *FLOORS}
    data = spec.recipe.data
    one_unit = data.channels * data.image_size**2 + 1 + data.num_classes
    assert abs(sizes["mlp"] - sizes["swin"]) <= one_unit / 2  # no other width is nearer
