from math import exp, log

import pytest
import torch
from torch import Tensor

from harness.spec import BoxStageSpec, CascadeMaskRCNNSpec, DetectorSpec
from harness.tasks.detection.box_head import BoxHead
from harness.tasks.detection.regions import Samples

from .conftest import NUM_CLASSES, SMALL

SIZES = CascadeMaskRCNNSpec(**SMALL)
DEVIATIONS = (0.05, 0.06, 0.1, 0.2)
REGIONS = [[4.0, 6.0, 20.0, 30.0], [0.0, 0.0, 10.0, 12.0], [8.0, 2.0, 31.0, 17.0]]


def build(sizes: DetectorSpec = SIZES) -> BoxHead:
    torch.manual_seed(0)
    return BoxHead(16, NUM_CLASSES, BoxStageSpec(deviations=DEVIATIONS), sizes)


def decode(deltas: list[float], region: list[float]) -> list[float]:
    """A region moved and scaled by the differences that a head predicts (arXiv:1311.2524, Appendix C)."""
    x, y, w, h = (delta * deviation for delta, deviation in zip(deltas, DEVIATIONS, strict=True))
    width, height = region[2] - region[0], region[3] - region[1]
    center_x, center_y = region[0] + width / 2 + x * width, region[1] + height / 2 + y * height
    half_width, half_height = width * exp(w) / 2, height * exp(h) / 2
    return [center_x - half_width, center_y - half_height, center_x + half_width, center_y + half_height]


def encode(box: list[float], region: list[float]) -> list[float]:
    """The differences that lead from a region to a box."""
    width, height = region[2] - region[0], region[3] - region[1]
    x = (box[0] + box[2] - region[0] - region[2]) / 2 / width
    y = (box[1] + box[3] - region[1] - region[3]) / 2 / height
    differences = [x, y, log((box[2] - box[0]) / width), log((box[3] - box[1]) / height)]
    return [difference / deviation for difference, deviation in zip(differences, DEVIATIONS, strict=True)]


def generalized_iou(a: list[float], b: list[float]) -> float:
    """arXiv:1902.09630, Algorithm 1."""
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    inner = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    outer = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    union = sum(areas) - inner
    return inner / union - (outer - union) / outer


def make_samples() -> tuple[list[Samples], list[Tensor]]:
    """Two images: an object and background in the first, and an object in the second."""
    regions = torch.tensor(REGIONS)
    objects, labels = torch.tensor([1, -1, 0]), torch.tensor([2, NUM_CLASSES, 0])
    both = [Samples(regions[part], objects[part], labels[part], objects[part] < -1) for part in (slice(2), slice(2, 3))]
    return both, [torch.tensor([[0.0, 0.0, 4.0, 4.0], [5.0, 5.0, 22.0, 28.0]]), torch.tensor([[6.0, 3.0, 30.0, 16.0]])]


@pytest.mark.parametrize("loss", ["l1", "giou"])
def test_losses_are_means_over_all_regions(loss: str) -> None:
    head = build(SIZES.model_copy(update={"box_loss": loss, "box_loss_weight": 3.0}))
    logits, deltas = torch.randn(3, NUM_CLASSES + 1), torch.randn(3, NUM_CLASSES, 4)
    samples, boxes = make_samples()
    class_loss, box_loss = head.compute_losses(logits, deltas, samples, boxes)
    labels = [2, NUM_CLASSES, 0]
    expected = -sum(logits[i].softmax(0)[label].log() for i, label in enumerate(labels)) / 3
    torch.testing.assert_close(class_loss, expected)
    total = 0.0
    for index, label, box in [(0, 2, boxes[0][1].tolist()), (2, 0, boxes[1][0].tolist())]:
        predicted = deltas[index, label].tolist()
        if loss == "giou":
            total += 1 - generalized_iou(decode(predicted, REGIONS[index]), box)
        else:
            total += sum(abs(a - b) for a, b in zip(predicted, encode(box, REGIONS[index]), strict=True))
    assert box_loss.item() == pytest.approx(3.0 * total / 3, rel=1e-4)


@pytest.mark.parametrize("loss", ["l1", "giou"])
def test_background_alone_has_no_loss_of_boxes_but_a_gradient(loss: str) -> None:
    head = build(SIZES.model_copy(update={"box_loss": loss}))
    logits, deltas = head(torch.randn(4, 16, 5, 5))
    nothing = torch.full((4,), -1)
    samples = Samples(torch.rand(4, 4), nothing, torch.full((4,), NUM_CLASSES), nothing < -1)
    class_loss, box_loss = head.compute_losses(logits, deltas, [samples], [torch.zeros(0, 4)])
    assert box_loss == 0
    (class_loss + box_loss).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in head.parameters())


@pytest.mark.parametrize("known", [True, False], ids=["training", "evaluation"])
def test_boxes_are_refined_for_their_class_and_clipped(known: bool) -> None:
    logits, deltas = torch.randn(3, NUM_CLASSES + 1), 3 * torch.randn(3, NUM_CLASSES, 4)
    logits[:, -1] = 10  # background is no class to refine for
    labels = torch.tensor([2, NUM_CLASSES, 0])
    regions = torch.tensor(REGIONS)
    sizes = [(25, 18), (15, 28)]
    actual = build().refine(logits, deltas, [regions[:2], regions[2:]], sizes, labels if known else None)
    likeliest = [max(range(NUM_CLASSES), key=lambda c: logits[i, c].item()) for i in range(3)]
    chosen = [2, likeliest[1], 0] if known else likeliest
    for index, box in enumerate(torch.cat(actual).tolist()):
        rows, columns = sizes[index // 2]
        decoded = decode(deltas[index, chosen[index]].tolist(), REGIONS[index])
        clipped = [min(max(edge, 0), limit) for edge, limit in zip(decoded, (columns, rows) * 2, strict=True)]
        assert box == pytest.approx(clipped, rel=1e-4, abs=1e-4)


def test_detections_are_the_best_boxes_of_each_class() -> None:
    head = build(SIZES.model_copy(update={"lowest_score": 0.2, "detection_nms": 0.5, "max_detections": 3}))
    regions = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 40, 40], [0, 30, 10, 40]])
    probabilities = torch.tensor(
        [[0.50, 0.25, 0.05, 0.20], [0.60, 0.05, 0.05, 0.30], [0.05, 0.05, 0.30, 0.60], [0.10, 0.15, 0.10, 0.65]]
    )
    boxes, scores, labels = head.find_boxes(probabilities.log(), torch.zeros(4, NUM_CLASSES, 4), regions, (50, 36))
    # region 0 is hidden by region 1 in class 0, but not in class 1; region 2 is clipped; region 3 scores too low
    assert boxes.tolist() == [[1, 0, 11, 10], [30, 30, 36, 40], [0, 0, 10, 10]]
    torch.testing.assert_close(scores, torch.tensor([0.6, 0.3, 0.25]))
    assert labels.tolist() == [0, 2, 1]
