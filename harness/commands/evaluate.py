"""`harness evaluate`: a row's accuracy with weights from a file, without training."""

from pathlib import Path

from harness.build import build_model
from harness.data import load_data
from harness.evaluate import measure
from harness.plan import Plan, find_row
from harness.run.cell import choose_device
from harness.weights import load_weights


def evaluate_row(plan: Plan, row: str, weights: Path, data_dir: Path | None) -> str:
    """Measure the test images of the recipe, as at the end of a run, and say what came out.

    Raises:
        SpecError: the experiment has no such row.
        WeightsError: the weights do not fit it.
        DataError: the images are missing or damaged.
    """
    cell = find_row(plan, row).cell
    device = choose_device(plan.spec)
    model = build_model(cell, replicate=None, device=device)
    left_out = load_weights(model, weights)
    training = cell.training.model_copy(update={"token_labels": None})  # nothing is trained: no label map is needed
    data = load_data(cell.data, training, replicate=0, data_dir=data_dir, device=device)
    found = measure(model, data.test_batches(), device)
    told = f"{row}: top-1 {found.top1:.2f} %, top-5 {found.top5:.2f} % of {len(found.labels):,} test images"
    return told + (f"\nleft out of {weights}: {left_out}" if left_out else "")
