from dataclasses import replace

import pytest

from harness.commands.estimate import Estimate, Estimator, to_duration
from harness.plan import Plan


def test_a_cell_takes_what_it_took(small_plan: Plan) -> None:
    cells = [row.cell for row in small_plan.rows]
    estimator = Estimator(cells, {cells[0].id: [10.0, 30.0, 14.0], cells[1].id: [99.0]})
    assert estimator.estimate(cells[0]) == Estimate(14.0, is_measured=True)


def test_a_new_cell_takes_what_the_cells_most_like_it_took(small_plan: Plan) -> None:
    rows = {row.name: row.cell for row in small_plan.rows}
    seconds = {rows["Swin-T"].id: [50.0], rows["Linear classifier"].id: [1.0]}
    estimator = Estimator(rows.values(), seconds)
    assert estimator.estimate(rows["Net1"]) == Estimate(50.0, is_measured=False)
    assert estimator.estimate(rows["One hidden layer"]) == Estimate(1.0, is_measured=False)


def test_other_training_tells_nothing(small_plan: Plan) -> None:
    cell = small_plan.rows[0].cell
    longer = replace(cell, training=cell.training.model_copy(update={"epochs": 300}))
    assert Estimator([cell, longer], {cell.id: [50.0]}).estimate(longer) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89.4, "89 s"), (90, "2 min"), (3600, "60 min"), (9000, "2.5 h"), (180_000, "2.1 d")],
)
def test_a_duration_is_as_rough_as_it_is_long(seconds: float, text: str) -> None:
    assert to_duration(seconds) == text
