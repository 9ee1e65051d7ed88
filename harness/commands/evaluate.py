"""`harness evaluate`: a row's scores with weights from a file, without training."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from harness.build import build_model, count_outputs
from harness.cell import Cell
from harness.data import load_data
from harness.data.loading import watching_loaders
from harness.errors import SpecError, WeightsError
from harness.execution.prepared import choose_device
from harness.plan import Plan, find_row, make_plan
from harness.ranks import Ranks
from harness.reading import list_recipes, load_spec
from harness.tasks import TASKS
from harness.weights import find_misfit, load_weights, read


def evaluate_row(plan: Plan, row: str, weights: Path, data_dir: Path | None) -> str:
    """Measure the test images of the recipe, as at the end of a run, and return the scores as text.

    Raises:
        SpecError: the experiment has no such row, or its task lacks a package.
        WeightsError: the weights do not fit the row; the message lists the rows that they fit.
        DataError: the images are missing or damaged.
        LoaderKilled: a process that loads images was killed.
    """
    cell = find_row(plan, row).cell
    task = TASKS[cell.data.task]
    task.check_packages()
    device = choose_device(plan.spec.recipe.limits)
    model = build_model(cell, replicate=None, device=device)
    try:
        left_out = load_weights(model, weights)
    except WeightsError as error:
        raise WeightsError(f"row {row}: {error}{_name_fitting(plan, row, weights)}") from error
    training = cell.training.model_copy(update={"token_labels": None})  # nothing is trained: no label map is needed
    with watching_loaders():
        data = load_data(cell.data, training, replicate=0, data_dir=data_dir, device=device)
        found = task.evaluate(model, data.test_batches(), Ranks(device))
    scores = ", ".join(f"{measure.title} {measure.show(found.scores[measure.name])}" for measure in task.measures)
    text = f"{row}: {scores} of {found.num_images:,} test images"
    return text + (f"\nleft out of {weights}: {left_out}" if left_out else "")


def _name_fitting(plan: Plan, row: str, path: Path) -> str:
    """The rows that the weights fit; empty if there are none, or if the row itself is one of them."""
    try:
        weights = read(path)
    except WeightsError:
        return ""
    for recipe, candidate in _list_plans(plan):
        fitting = [each.name for each in candidate.rows if _fits(weights, each.cell)]
        if fitting:
            under = f" under recipe {recipe}" if recipe != plan.spec.recipe.name else ""
            rows = f"row{'s' if len(fitting) > 1 else ''} {', '.join(fitting)}{under}"
            return "" if not under and row in fitting else f"; these fit {rows}"
    return ""


def _list_plans(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """This plan, then the plans of the same experiment under all other recipes that it supports."""
    yield plan.spec.recipe.name, plan
    assert plan.spec.path is not None
    for name in list_recipes(plan.spec.path.parent / "recipes"):
        if name != plan.spec.recipe.name:
            try:
                yield name, make_plan(load_spec(plan.spec.path, recipe=name))
            except SpecError:
                continue


def _fits(weights: Mapping[str, Tensor], cell: Cell) -> bool:
    if cell.framework is None and count_outputs(cell) not in {
        len(tensor) for tensor in weights.values() if tensor.ndim == 1
    }:
        return False  # the bias of the head differs: most models need not be built
    return find_misfit(weights, build_model(cell, replicate=None, device="meta"), resize=False) is None
