"""`harness evaluate`: a row's accuracy with weights from a file, without training."""

from pathlib import Path

import torch
from torch import nn

from harness.build import build_model
from harness.data import load_data
from harness.errors import WeightsError
from harness.evaluate import measure
from harness.plan import Plan, find_row
from paradigms.released import convert_released, read_weights


def evaluate_row(plan: Plan, row: str, weights: Path, data_dir: Path | None) -> str:
    """Measure the test images of the recipe, as at the end of a run, and say what came out.

    Raises:
        SpecError: the experiment has no such row.
        WeightsError: the weights do not fit it.
        DataError: the images are missing or damaged.
    """
    cell = find_row(plan, row).cell
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(cell, replicate=None, device=device)
    load_weights(model, weights)
    training = cell.training.model_copy(update={"token_labels": None})  # nothing is trained: no label map is needed
    data = load_data(cell.data, training, replicate=0, data_dir=data_dir, device=device)
    found = measure(model, data.test_batches(), device)
    return f"{row}: top-1 {found.top1:.2f} %, top-5 {found.top5:.2f} % of {len(found.labels):,} test images"


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a model from a file: what a run has kept, or a checkpoint that others released.

    Raises:
        WeightsError: the file cannot be read, is of no known family, or has other tensors than the model.
    """
    try:
        weights = read_weights(path)
        if weights.keys() != model.state_dict().keys():
            weights = convert_released(weights)
        model.load_state_dict(weights)
    except ValueError as error:
        raise WeightsError(str(error)) from error
    except RuntimeError as error:  # torch tells what is missing, left over or of another shape
        raise WeightsError(f"{path} does not fit: {error}") from error
