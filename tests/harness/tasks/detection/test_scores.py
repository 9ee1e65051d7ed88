import contextlib
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.batch import Objects
from harness.tasks.detection.scores import (
    FoundObjects,
    TrueObjects,
    encode_masks,
    encode_objects,
    pack,
    paste_masks,
    score,
    unpack,
)

NUM_CLASSES = 4
KINDS = ("box", "mask")
KEYS = [f"{kind}_ap{key}" for kind in KINDS for key in ("", "50", "75", "_small", "_medium", "_large")]
"""Of each kind in the order of pycocotools' `stats`."""
Pairs = tuple[list[TrueObjects], list[FoundObjects]]


def _ellipses(boxes: np.ndarray, size: tuple[int, int]) -> tuple[bytes, ...]:
    rows, columns = torch.arange(size[0])[:, None] + 0.5, torch.arange(size[1])[None] + 0.5
    masks = [
        ((2 * columns - left - right) / (right - left)) ** 2 + ((2 * rows - top - bottom) / (bottom - top)) ** 2 <= 1
        for left, top, right, bottom in boxes.tolist()
    ]
    return encode_masks(torch.stack(masks) if masks else torch.zeros((0, *size), dtype=torch.bool))


def _draw_boxes(generator: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
    sides = np.exp(generator.uniform(np.log(6), np.log(min(size)), (count, 2)))
    corners = generator.uniform(0, 1, (count, 2)) * (np.array(size[::-1]) - sides)
    return np.concatenate([corners, corners + sides], axis=1).astype(np.float32)


def _draw_image(generator: np.random.Generator) -> tuple[TrueObjects, FoundObjects]:
    """Detections near objects and elsewhere; scores have two digits, so that many are equal."""
    size = (int(generator.integers(150, 240)), int(generator.integers(150, 240)))
    count = int(generator.integers(0, 7))
    boxes, labels = _draw_boxes(generator, count, size), generator.integers(0, NUM_CLASSES, count)
    truth = TrueObjects(size, boxes, labels, generator.random(count) < 0.2, _ellipses(boxes, size))
    near = np.repeat(np.arange(count), 3)
    shifts = generator.normal(0, 0.1, (len(near), 4)) * np.tile(boxes[near, 2:] - boxes[near, :2], 2)
    moved, others = boxes[near] + shifts.astype(np.float32), _draw_boxes(generator, int(generator.integers(0, 4)), size)
    found_boxes = np.concatenate([moved, others]).clip(0, np.array([*size[::-1], *size[::-1]], np.float32) - 1)
    found_boxes[:, 2:] = np.maximum(found_boxes[:, 2:], found_boxes[:, :2] + 1)
    guessed = np.concatenate([labels[near], generator.integers(0, NUM_CLASSES, len(others))])
    scores = generator.random(len(guessed)).round(2).astype(np.float32)
    return truth, FoundObjects(found_boxes, guessed, scores, _ellipses(found_boxes, size))


def _draw(seed: int, num_images: int = 60) -> Pairs:
    generator = np.random.default_rng(seed)
    truth, found = zip(*(_draw_image(generator) for _ in range(num_images)), strict=True)
    return list(truth), list(found)


def _find_perfectly(truth: list[TrueObjects]) -> list[FoundObjects]:
    return [FoundObjects(each.boxes, each.labels, np.ones(len(each.labels), np.float32), each.masks) for each in truth]


def _score_as_pycocotools(truth: list[TrueObjects], found: list[FoundObjects]) -> dict[str, float]:
    from pycocotools import mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def describe(boxes: np.ndarray, labels: np.ndarray, masks: tuple[bytes, ...], number: int) -> list[dict[str, Any]]:
        return [
            {
                "image_id": number,
                "category_id": int(label),
                "bbox": [left, top, right - left, bottom - top],
                "segmentation": {"size": list(truth[number].size), "counts": rle},
            }
            for (left, top, right, bottom), label, rle in zip(boxes.tolist(), labels, masks, strict=True)
        ]

    annotations = [
        {**each, "iscrowd": int(crowd), "area": float(mask.area(each["segmentation"]))}
        for number, image in enumerate(truth)
        for each, crowd in zip(describe(image.boxes, image.labels, image.masks, number), image.crowd, strict=True)
    ]
    results = [
        {**each, "score": float(likely)}
        for number, image in enumerate(found)
        for each, likely in zip(describe(image.boxes, image.labels, image.masks, number), image.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {
            "info": {},
            "images": [
                {"id": number, "height": image.size[0], "width": image.size[1]} for number, image in enumerate(truth)
            ],
            "categories": [{"id": label} for label in range(NUM_CLASSES)],
            "annotations": [{**each, "id": number} for number, each in enumerate(annotations, start=1)],
        }
        reference.createIndex()
        scores = {}
        for kind, name, unused in (("box", "bbox", "segmentation"), ("mask", "segm", "bbox")):
            own = [{key: value for key, value in each.items() if key != unused} for each in results]
            evaluation = COCOeval(reference, reference.loadRes(own), name)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            for key, value in zip(KEYS[:6], evaluation.stats[:6], strict=True):
                if value != -1:
                    scores[f"{kind}_{key.removeprefix('box_')}"] = 100 * float(value)
    return scores


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_pycocotools(seed: int) -> None:
    truth, found = _draw(seed)
    assert any(each.crowd.any() for each in truth)
    assert any(not len(each.labels) for each in truth)
    scores = score(truth, found, NUM_CLASSES)
    assert list(scores) == KEYS
    assert scores == pytest.approx(_score_as_pycocotools(truth, found), abs=1e-10)


def test_crowds_alone_and_nothing_found_are_scored_as_by_pycocotools() -> None:
    truth, found = _draw(7)
    truth = [each._replace(crowd=each.crowd | (each.labels == 1)) for each in truth]
    found = [each if number % 3 else _take(each, 0) for number, each in enumerate(found)]
    assert score(truth, found, NUM_CLASSES) == pytest.approx(_score_as_pycocotools(truth, found), abs=1e-10)


def _take(found: FoundObjects, count: int) -> FoundObjects:
    return FoundObjects(found.boxes[:count], found.labels[:count], found.scores[:count], found.masks[:count])


def test_equal_scores_are_ranked_as_by_pycocotools() -> None:
    truth, found = _draw(8)
    found = [each._replace(scores=np.full_like(each.scores, 0.5)) for each in found]
    assert score(truth, found, NUM_CLASSES) == pytest.approx(_score_as_pycocotools(truth, found), abs=1e-10)


def test_the_surest_hundred_count_alone() -> None:
    truth, found = _draw(9, num_images=2)
    many = [
        FoundObjects(np.tile(each.boxes, (40, 1)), np.tile(each.labels, 40), np.tile(each.scores, 40), each.masks * 40)
        for each in found
    ]
    assert score(truth, many, NUM_CLASSES) == pytest.approx(_score_as_pycocotools(truth, many), abs=1e-10)


def test_perfect_detections_score_100() -> None:
    truth, _ = _draw(0)
    assert score(truth, _find_perfectly(truth), NUM_CLASSES) == dict.fromkeys(KEYS, pytest.approx(100))


def test_nothing_found_scores_0() -> None:
    truth, found = _draw(0)
    assert score(truth, [_take(each, 0) for each in found], NUM_CLASSES) == dict.fromkeys(KEYS, 0)


def test_a_size_without_an_object_has_no_score() -> None:
    boxes = np.array([[2, 2, 20, 20]], np.float32)
    truth = [TrueObjects((64, 64), boxes, np.zeros(1, np.int64), np.zeros(1, np.bool_), _ellipses(boxes, (64, 64)))]
    scores = score(truth, _find_perfectly(truth), NUM_CLASSES)
    assert list(scores) == [key for key in KEYS if "medium" not in key and "large" not in key]


def test_without_objects_there_is_no_score() -> None:
    _, found = _draw(0, num_images=1)
    empty = TrueObjects((64, 64), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_), ())
    assert score([empty], [_take(found[0], 0)], NUM_CLASSES) == {}


def test_a_detection_in_a_crowd_is_no_error() -> None:
    boxes = np.array([[2, 2, 20, 20], [30, 30, 60, 60]], np.float32)
    truth = [TrueObjects((64, 64), boxes, np.zeros(2, np.int64), np.array([False, True]), _ellipses(boxes, (64, 64)))]
    surest_in_crowd = _find_perfectly(truth)[0]._replace(scores=np.array([0.5, 0.9], np.float32))
    assert score(truth, [surest_in_crowd], NUM_CLASSES)["mask_ap"] == pytest.approx(100)
    alone = [each._replace(crowd=np.zeros(2, np.bool_)) for each in truth]
    assert score(alone, [_take(surest_in_crowd, 1)], NUM_CLASSES)["mask_ap"] < 60


def test_packed_arrays_give_equal_scores(tmp_path: Path) -> None:
    truth, found = _draw(3)
    np.savez(tmp_path / "kept.npz", **pack(truth, found))
    with np.load(tmp_path / "kept.npz", allow_pickle=False) as kept:
        again, refound = unpack(dict(kept))
    assert score(again, refound, NUM_CLASSES) == score(truth, found, NUM_CLASSES)
    for images, others in ((truth, again), (found, refound)):
        for image, other in zip(images, others, strict=True):
            for one, two in zip(image, other, strict=True):
                assert np.array_equal(one, two) if isinstance(one, np.ndarray) else one == two
                assert not isinstance(one, np.ndarray) or one.dtype == two.dtype


def test_no_image_and_no_object_are_packed_too() -> None:
    assert unpack(pack([], [])) == ([], [])
    truth, found = _draw(3, num_images=1)
    (again,), (refound,) = unpack(pack(truth, [_take(found[0], 0)]))
    assert again.masks == truth[0].masks
    assert (refound.boxes.shape, refound.masks) == ((0, 4), ())


def test_packed_arrays_have_one_row_per_image_first() -> None:
    arrays = pack(*_draw(3, num_images=5))
    assert next(iter(arrays)) == "sizes"
    assert all(len(arrays[name]) == 5 for name in ("sizes", "true_counts", "found_counts"))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_masks_are_encoded_and_decoded_without_loss() -> None:
    from pycocotools import mask

    pixels = torch.rand(5, 23, 31) < 0.4
    decoded = mask.decode([{"size": [23, 31], "counts": rle} for rle in encode_masks(pixels)])
    assert np.array_equal(decoded.transpose(2, 0, 1), pixels.numpy())
    assert encode_masks(pixels[:0]) == ()


def test_objects_are_encoded_without_the_padding_of_their_image() -> None:
    masks = torch.zeros(1, 40, 48, dtype=torch.bool)
    masks[0, 3:9, 4:20] = True
    objects = Objects((30, 33), torch.tensor([[4.0, 3, 20, 9]]), torch.tensor([2]), masks, torch.tensor([False]))
    encoded = encode_objects(objects)
    assert encoded.size == (30, 33)
    assert encoded.masks == encode_masks(masks[:, :30, :33])
    assert score([encoded], _find_perfectly([encoded]), NUM_CLASSES)["mask_ap"] == pytest.approx(100)


def test_a_pasted_mask_fills_its_box_and_nothing_else() -> None:
    pasted = paste_masks(torch.ones(2, 28, 28), torch.tensor([[4.0, 3, 20, 9], [25, 20, 60, 70]]), (30, 33))
    assert pasted.shape == (2, 30, 33)
    assert pasted.dtype == torch.bool
    for mask, (left, top, right, bottom) in zip(pasted, ((4, 3, 20, 9), (25, 20, 33, 30)), strict=True):
        expected = torch.zeros(30, 33, dtype=torch.bool)
        expected[top:bottom, left:right] = True
        different = mask ^ expected
        inner = torch.zeros_like(expected)
        inner[top + 1 : bottom - 1, left + 1 : right - 1] = True
        assert not (different & inner).any()
        outer = torch.zeros_like(expected)
        outer[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = True
        assert not (different & ~outer).any()


def test_no_mask_is_pasted_for_no_object() -> None:
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (30, 33)).shape == (0, 30, 33)


def test_pasted_masks_are_those_of_torchvision() -> None:
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    generator = np.random.default_rng(0)
    boxes = torch.from_numpy(_draw_boxes(generator, 8, (50, 70)))
    probabilities = torch.from_numpy(generator.random((8, 14, 14), dtype=np.float32))
    expected = paste_masks_in_image(probabilities[:, None], boxes, (50, 70))[:, 0] > 0.5
    assert torch.equal(paste_masks(probabilities, boxes, (50, 70)), expected)


def test_scoring_prints_and_logs_nothing(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        score(*_draw(0, num_images=3), NUM_CLASSES)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_truth_and_detections_must_be_of_the_same_images() -> None:
    truth, found = _draw(0, num_images=3)
    with pytest.raises(ValueError, match="shorter"):
        score(truth, found[:2], NUM_CLASSES)
