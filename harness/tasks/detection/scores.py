"""COCO's average precision of boxes and masks, from arrays that a run keeps. Needs the extra `dense`.

Masks are kept as COCO's run-length encoding: one string of bytes per mask, loss-free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from faster_coco_eval import COCO
    from jaxtyping import Bool, Float
    from torch import Tensor

    from harness.batch import Objects

MASK_THRESHOLD = 0.5
"""A pixel belongs to an object that is more likely there than not."""

KINDS = {"box": "bbox", "mask": "segm"}
"""What is compared, and COCO's name of it."""

THRESHOLDS = {"ap": None, "ap50": 0.5, "ap75": 0.75}
"""The overlap that a detection needs; None: the mean over 0.5, 0.55, ..., 0.95."""

SIZES = ("small", "medium", "large")
"""Fewer than 32 x 32 pixels, fewer than 96 x 96, and more."""

Size = tuple[int, int]
Arrays = Mapping[str, NDArray[Any]]


class TrueObjects(NamedTuple):
    """What is to be found in one image.

    Attributes:
        size: rows and columns of the image.
        boxes: (objects, 4): left, top, right and bottom in pixels.
        labels: (objects,): classes from 0.
        crowd: (objects,): whether it stands for many; then it is no object, and a detection in it is no error.
        masks: encoded.
    """

    size: Size
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    masks: tuple[bytes, ...]


class FoundObjects(NamedTuple):
    """What a model finds in one image.

    Attributes:
        boxes: (objects, 4): left, top, right and bottom in pixels.
        labels: (objects,): classes from 0.
        scores: (objects,): the higher, the surer.
        masks: encoded, each of the size of the image.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    masks: tuple[bytes, ...]


def paste_masks(
    probabilities: Float[Tensor, "objects rows columns"], boxes: Float[Tensor, "objects 4"], size: Size
) -> Bool[Tensor, "objects rows columns"]:
    """Resize square maps of probabilities to their boxes, and return the masks in the whole image.

    As in torchvision's Mask R-CNN: bilinear interpolation, with zeros around each map. One object is pasted at a time:
    probabilities of all would need four times the memory.
    """
    import torch
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    pasted = torch.zeros((len(boxes), *size), dtype=torch.bool, device=boxes.device)
    for number in range(len(boxes)):
        one = slice(number, number + 1)
        pasted[one] = paste_masks_in_image(probabilities[one, None], boxes[one], size)[:, 0] > MASK_THRESHOLD
    return pasted


def encode_masks(masks: Bool[Tensor, "objects rows columns"]) -> tuple[bytes, ...]:
    """COCO's run-length encoding of each mask."""
    from faster_coco_eval.core import mask

    pixels = masks.permute(1, 2, 0).cpu().numpy().astype(np.uint8, order="F")
    return tuple(each["counts"] for each in mask.encode(pixels))


def encode_objects(objects: Objects) -> TrueObjects:
    """The objects of an image as arrays."""
    return TrueObjects(
        size=objects.size,
        boxes=objects.boxes.float().cpu().numpy(),
        labels=objects.labels.cpu().numpy(),
        crowd=objects.crowd.cpu().numpy(),
        masks=encode_masks(objects.masks[:, : objects.size[0], : objects.size[1]]),
    )


def score(truth: Sequence[TrueObjects], found: Sequence[FoundObjects], num_classes: int) -> dict[str, float]:
    """COCO's average precision in percent, of the 100 surest detections of each image and class.

    Returns:
        For boxes `box_ap`, `box_ap50`, `box_ap75`, `box_ap_small`, `box_ap_medium` and `box_ap_large`, and the same
        for masks. Where there is no object of a size, its score is left out, and all are without any object. The size
        of an object is that of its mask.
    """
    scores = {}
    for kind, name in KINDS.items():
        precision = _evaluate(truth, found, num_classes, name)
        values = {key: precision[_choose_overlaps(overlap), ..., 0] for key, overlap in THRESHOLDS.items()}
        values.update({f"ap_{size}": precision[..., number] for number, size in enumerate(SIZES, start=1)})
        for key, parts in values.items():
            known = parts[parts > -1]  # -1 where a class has no object
            if len(known):
                scores[f"{kind}_{key}"] = 100 * float(known.mean())
    return scores


def _choose_overlaps(overlap: float | None) -> slice:
    """The rows of the precision for this threshold; there are ten, from 0.5 in steps of 0.05."""
    if overlap is None:
        return slice(None)
    row = round((overlap - 0.5) / 0.05)
    return slice(row, row + 1)


def _evaluate(
    truth: Sequence[TrueObjects], found: Sequence[FoundObjects], num_classes: int, kind: str
) -> NDArray[np.float64]:
    """Precision (overlaps, recalls, classes, 1 + sizes), -1 where there is nothing to find."""
    from faster_coco_eval import COCOeval_faster

    images = list(zip(truth, found, strict=True))
    evaluation = COCOeval_faster(
        _to_coco(truth, [_describe_truth(image) for image in truth], num_classes),
        _to_coco(truth, [_describe_found(each, image.size, kind) for image, each in images], num_classes),
        iouType=kind,
        print_function=_be_quiet,
    )
    evaluation.evaluate()
    evaluation.accumulate()
    precision: NDArray[np.float64] = evaluation.eval["precision"]
    return precision[..., -1]  # up to 100 detections


def _to_coco(truth: Sequence[TrueObjects], annotations: Sequence[list[dict[str, Any]]], num_classes: int) -> COCO:
    from faster_coco_eval import COCO

    content = {
        "images": [
            {"id": number, "height": image.size[0], "width": image.size[1]} for number, image in enumerate(truth)
        ],
        "categories": [{"id": label} for label in range(num_classes)],
        "annotations": [{**each, "image_id": number} for number, image in enumerate(annotations) for each in image],
    }
    for number, each in enumerate(content["annotations"], start=1):  # 0 would mean "not matched"
        each["id"] = number
    return COCO(content, print_function=_be_quiet)


def _describe_truth(image: TrueObjects) -> list[dict[str, Any]]:
    masks = _to_rle(image.masks, image.size)
    parts = zip(_to_corners_and_sizes(image.boxes), image.labels.tolist(), image.crowd.tolist(), masks, strict=True)
    return [
        {"bbox": box, "category_id": label, "iscrowd": int(crowd), "segmentation": mask, "area": area}
        for (box, label, crowd, mask), area in zip(parts, _measure_areas(masks), strict=True)
    ]


def _describe_found(image: FoundObjects, size: Size, kind: str) -> list[dict[str, Any]]:
    """The size of what was found is that of its box where boxes are compared, and of its mask otherwise."""
    masks, boxes = _to_rle(image.masks, size), _to_corners_and_sizes(image.boxes)
    areas = [width * height for _, _, width, height in boxes] if kind == KINDS["box"] else _measure_areas(masks)
    parts = zip(boxes, image.labels.tolist(), image.scores.tolist(), masks, areas, strict=True)
    return [
        {"bbox": box, "category_id": label, "score": likely, "segmentation": mask, "area": area, "iscrowd": 0}
        for box, label, likely, mask, area in parts
    ]


def _to_corners_and_sizes(boxes: NDArray[np.float32]) -> list[list[float]]:
    """Left, top, width and height."""
    return [[left, top, right - left, bottom - top] for left, top, right, bottom in boxes.tolist()]


def _to_rle(masks: Sequence[bytes], size: Size) -> list[dict[str, Any]]:
    return [{"size": list(size), "counts": mask} for mask in masks]


def _measure_areas(masks: list[dict[str, Any]]) -> list[float]:
    from faster_coco_eval.core import mask

    return [float(area) for area in mask.area(masks)]


def _be_quiet(*_message: object) -> None:
    """Print nothing, and log nothing."""


def pack(truth: Sequence[TrueObjects], found: Sequence[FoundObjects]) -> dict[str, NDArray[Any]]:
    """Arrays that `np.savez` keeps without pickle; the scores of what `unpack` returns are equal bit for bit.

    Returns:
        `sizes` and the counts have one row per image; all objects of all images lie behind each other in the others.
    """
    return {
        "sizes": np.array([image.size for image in truth], np.int64).reshape(-1, 2),
        **_pack_objects(truth, "true"),
        "true_crowd": np.concatenate([np.zeros(0, np.bool_), *(image.crowd for image in truth)]),
        **_pack_objects(found, "found"),
        "found_scores": np.concatenate([np.zeros(0, np.float32), *(image.scores for image in found)]),
    }


def unpack(arrays: Arrays) -> tuple[list[TrueObjects], list[FoundObjects]]:
    """What `pack` was given."""
    truth = [
        TrueObjects((rows, columns), boxes, labels, arrays["true_crowd"][place], masks)
        for (rows, columns), (place, boxes, labels, masks) in zip(
            arrays["sizes"].tolist(), _unpack_objects(arrays, "true"), strict=True
        )
    ]
    found = [
        FoundObjects(boxes, labels, arrays["found_scores"][place], masks)
        for place, boxes, labels, masks in _unpack_objects(arrays, "found")
    ]
    return truth, found


def _pack_objects(images: Sequence[TrueObjects] | Sequence[FoundObjects], kind: str) -> dict[str, NDArray[Any]]:
    masks = [mask for image in images for mask in image.masks]
    return {
        f"{kind}_counts": np.array([len(image.labels) for image in images], np.int64),
        f"{kind}_boxes": np.concatenate([np.zeros((0, 4), np.float32), *(image.boxes for image in images)]),
        f"{kind}_labels": np.concatenate([np.zeros(0, np.int64), *(image.labels for image in images)]),
        f"{kind}_mask_lengths": np.array([len(mask) for mask in masks], np.int64),
        f"{kind}_masks": np.frombuffer(b"".join(masks), np.uint8),
    }


def _unpack_objects(
    arrays: Arrays, kind: str
) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.int64], tuple[bytes, ...]]]:
    """Of each image the place of its objects among all, their boxes, labels and masks."""
    joined = arrays[f"{kind}_masks"].tobytes()
    lengths = pairwise(accumulate(arrays[f"{kind}_mask_lengths"].tolist(), initial=0))
    masks = [joined[start:end] for start, end in lengths]
    for start, end in pairwise(accumulate(arrays[f"{kind}_counts"].tolist(), initial=0)):
        place = slice(start, end)
        yield place, arrays[f"{kind}_boxes"][place], arrays[f"{kind}_labels"][place], tuple(masks[place])
