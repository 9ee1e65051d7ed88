"""`harness evaluate`: a row's accuracy with weights from a file, without training."""

from pathlib import Path

from harness.build import build_model, load_weights
from harness.data import load_data
from harness.errors import SpecError
from harness.evaluate import measure
from harness.plan import Cell, Plan
from harness.run.cell import choose_device
from paradigms.config import unknown_name


def evaluate_row(plan: Plan, row: str, weights: Path, data_dir: Path | None) -> str:
    """Measure the test images of the recipe, as at the end of a run, and say what came out.

    Raises:
        SpecError: the experiment has no such row.
        WeightsError: the weights do not fit it.
        DataError: the images are missing or damaged.
    """
    cell = _find_cell(plan, row)
    device = choose_device(plan.spec)
    model = build_model(cell, replicate=None, device=device)
    load_weights(model, weights)
    data = load_data(cell.data, cell.training, replicate=0, data_dir=data_dir, device=device)
    found = measure(model, data.test_batches(), device)
    return f"{row}: top-1 {found.top1:.2f} %, top-5 {found.top5:.2f} % of {len(found.labels):,} test images"


def _find_cell(plan: Plan, name: str) -> Cell:
    cells = {row.name: row.cell for row in plan.rows}
    if name not in cells:
        raise SpecError(unknown_name("row", name, tuple(cells)), path=plan.spec.path)
    return cells[name]
