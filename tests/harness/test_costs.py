"""Costs of cells are those that a run measures."""

import pytest

from harness.costs import count_cost
from harness.execution.prepared import measure_cost
from harness.plan import make_plan
from harness.spec import ExperimentSpec, RowSpec


@pytest.mark.parametrize(
    "row", [{"preset": "net7"}, {"preset": "elsa"}, {"backbone": "volo"}, {"backbone": "deit"}], ids=str
)
def test_a_cost_is_what_a_run_measures(spec: ExperimentSpec, row: dict[str, str]) -> None:
    recipe = spec.recipe.model_copy(update={"floor_width": 8})
    rows = {"A": RowSpec.model_validate(row)}
    for planned in make_plan(spec.model_copy(update={"rows": rows, "recipe": recipe})).rows:
        counted = {measure: count_cost(planned.cell, measure) for measure in ("params", "macs")}
        assert counted == measure_cost(planned.cell), planned.name
