"""Evaluates a detector: what it finds in each image, and the scores of all."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.batch import LabelledBatch
from harness.errors import DataError
from harness.ranks import Ranks
from harness.tasks.detection.detections import Detections
from harness.tasks.detection.scores import (
    FoundObjects,
    Size,
    encode_masks,
    encode_objects,
    pack,
    paste_masks,
    score,
    unpack,
)
from harness.tasks.task import Evaluation


def evaluate(model: nn.Module, batches: Iterable[LabelledBatch], ranks: Ranks) -> Evaluation:
    """COCO's average precision of boxes and masks; the truth and the detections of each image are kept."""
    model.eval()
    own = list[tuple[Tensor, ...]]()
    names = tuple(pack([], []))
    with torch.inference_mode():
        for images, truth in batches:
            assert not isinstance(truth, Tensor)
            sizes = [each.size for each in truth]
            found = model(images.to(ranks.device), sizes)
            packed = pack(
                [encode_objects(each) for each in truth],
                [encode_detections(*each) for each in zip(found, sizes, strict=True)],
            )
            own.append(tuple(torch.tensor(packed[name]) for name in names))
    parts = zip(*ranks.gather_batches(own), strict=True)
    arrays = {name: torch.cat(tensors).cpu().numpy() for name, tensors in zip(names, parts, strict=True)}
    return Evaluation(score_arrays(arrays), arrays)


def encode_detections(found: Detections, size: Size) -> FoundObjects:
    """The detections in an image of this size as arrays."""
    return FoundObjects(
        boxes=found.boxes.float().cpu().numpy(),
        labels=found.labels.cpu().numpy(),
        scores=found.scores.float().cpu().numpy(),
        masks=encode_masks(paste_masks(found.masks.float(), found.boxes.float(), size)),
    )


def score_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """The scores of what `evaluate` keeps.

    Raises:
        DataError: no image has an object, so that there is nothing to find.
    """
    truth, found = unpack(arrays)
    if not any(len(image.labels[~image.crowd]) for image in truth):
        raise DataError(f"none of the {len(truth)} evaluated images has an object to find")
    labels = np.concatenate([*(image.labels for image in truth), *(image.labels for image in found)])
    return score(truth, found, 1 + int(labels.max()))
