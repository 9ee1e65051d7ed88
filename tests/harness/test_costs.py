"""Costs of cells are those of a model that is built with its initial values."""

import pytest

from harness.build import build_model
from harness.costs import count_cost, measure_cost
from harness.evaluate import count_multiply_adds, count_parameters
from harness.plan import make_plan
from harness.spec import ExperimentSpec, RowSpec


@pytest.mark.parametrize(
    "row", [{"preset": "net7"}, {"preset": "elsa"}, {"backbone": "volo"}, {"backbone": "deit"}], ids=str
)
def test_a_cost_is_that_of_the_model_with_its_initial_values(spec: ExperimentSpec, row: dict[str, str]) -> None:
    recipe = spec.recipe.model_copy(update={"floor_width": 8})
    rows = {"A": RowSpec.model_validate(row)}
    for planned in make_plan(spec.model_copy(update={"rows": rows, "recipe": recipe})).rows:
        cell = planned.cell
        model = build_model(cell, replicate=0, device="cpu").to("meta")
        shape = (cell.data.channels, cell.data.image_size, cell.data.image_size)
        expected = {"params": count_parameters(model), "macs": count_multiply_adds(model, shape)}
        assert measure_cost(cell) == {name: count_cost(cell, name) for name in expected} == expected, planned.name
