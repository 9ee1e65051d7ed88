"""Estimates the time of a GPU recipe from a published speed, where nothing was measured."""

from collections.abc import Iterator, Mapping, Sequence

from harness.commands.estimate import to_duration
from harness.plan import Plan, PlannedRun
from harness.shapes import Shape
from harness.text import count_noun

IMAGES_PER_SECOND = 987.0
"""Of training Swin-T at 224x224 on one A100 in mixed precision, batches of 128 (README of MzeroMiko/VMamba)."""

MULTIPLY_ADDS = 4.5e9
"""Of Swin-T, an image (arXiv:2103.14030, Table 1)."""

GPUS = 8

IMAGENET_IMAGES = 1_281_167
"""Training images of ImageNet-1K, which has `IMAGENET_CLASSES`."""

IMAGENET_CLASSES = 1000


def describe_published(plan: Plan, runs: Sequence[PlannedRun], shapes: Mapping[str, Shape]) -> Iterator[str]:
    """How long runs of a recipe for GPUs should take on one machine with eight of them, and what to type.

    Nothing for other recipes, and where the number of training images is not known.
    """
    spec = plan.spec
    if spec.recipe.device_batch_size is None:
        return
    seconds = [_estimate_seconds(run, shapes[run.row.cell.id]) for run in runs]
    known = [value for value in seconds if value is not None]
    if not known or len(known) < len(seconds):
        return
    shortest, longest = to_duration(min(known)), to_duration(max(known))
    each = shortest if shortest == longest else f"{shortest} to {longest}"
    yield (
        f"estimate, not measured: {each} a run, {to_duration(sum(known))} for {count_noun(len(runs), 'run')}, on one "
        f"machine with {GPUS} A100 GPUs;\n"
        f"from the published {IMAGES_PER_SECOND:g} images/s of Swin-T on one A100, if time grows with multiply-adds\n"
        f"and {GPUS * IMAGES_PER_SECOND:,.0f} images/s are loaded. "
        "Operators without a fast kernel for GPUs take longer;\n"
        "`harness rehearse` on that machine measures the time\n"
        f"to start: harness run {spec.path or spec.name} --recipe {spec.recipe.name} --data DIR"
    )


def _estimate_seconds(run: PlannedRun, shape: Shape) -> float | None:
    cell = run.row.cell
    images = cell.data.train_images
    if images is None and cell.data.num_classes == IMAGENET_CLASSES:
        images = IMAGENET_IMAGES
    if images is None:
        return None
    speed = GPUS * IMAGES_PER_SECOND * MULTIPLY_ADDS / shape.macs
    return images * cell.training.total_epochs / speed
