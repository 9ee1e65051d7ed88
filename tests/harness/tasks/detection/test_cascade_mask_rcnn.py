from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.spec import CascadeMaskRCNNSpec
from harness.tasks.detection.cascade_mask_rcnn import CascadeMaskRCNN

from .conftest import NUM_CLASSES, BuildDetector, compute_losses, make_objects


@pytest.fixture
def model(build_detector: BuildDetector) -> Any:
    """With heads that say something: as initialized, all boxes and scores are nearly the same."""
    model = build_detector(CascadeMaskRCNN)
    with torch.no_grad():
        for head in model.box_heads:
            head.classes.weight.normal_()
            head.boxes.weight.normal_(std=0.3)
    return model


def test_stages_are_trained_on_what_the_one_before_refined(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = [make_objects((50, 63), [[8, 10, 40, 30], [40, 32, 60, 48]], [1, 2]), make_objects((61, 40), [], [])]
    sampled: list[tuple[list[Tensor], list[Any]]] = []
    refined: list[list[Tensor]] = []
    labels: list[Tensor] = []
    sample = model.sample

    def record_sample(stage: int, proposals: Sequence[Tensor], wanted: Sequence[Any]) -> Any:
        sampled.append((list(proposals), sample(stage, proposals, wanted)))
        return sampled[-1][1]

    def record_refined(head: Any) -> None:
        refine = head.refine

        def record(*arguments: Any) -> list[Tensor]:
            labels.append(arguments[4])
            refined.append(refine(*arguments))
            return refined[-1]

        monkeypatch.setattr(head, "refine", record)

    for head in model.box_heads:
        record_refined(head)
    monkeypatch.setattr(model, "sample", record_sample)
    compute_losses(model, objects)
    assert len(sampled) == 3
    for (_, samples), known in zip(sampled, labels, strict=True):
        assert torch.equal(known, torch.cat([each.labels for each in samples]))
    for stage in (1, 2):
        for image in range(2):
            before, boxes = sampled[stage - 1][1][image], refined[stage - 1][image]
            assert torch.equal(sampled[stage][0][image], boxes[~before.are_objects])
    for _, (first, second) in sampled:
        found = {tuple(box) for box in first.regions[first.are_objects].tolist()}
        assert found == {tuple(box) for box in objects[0].boxes.tolist()}
        assert not second.are_objects.any()


def test_each_stage_has_its_own_overlap_and_deviations(model: Any) -> None:
    assert [stage.iou for stage in CascadeMaskRCNNSpec().stages] == [0.5, 0.6, 0.7]
    object_ = make_objects((61, 63), [[0, 0, 40, 20]], [1])
    proposals = [torch.tensor([[0.0, 0.0, 40.0, height] for height in (11, 13, 15)])]
    labels = [model.sample(stage, proposals, [object_])[0].labels[:3].tolist() for stage in range(3)]
    assert labels == [[1, 1, 1], [NUM_CLASSES, 1, 1], [NUM_CLASSES, NUM_CLASSES, 1]]
    weights = [head.coder.weights for head in model.box_heads]
    assert weights[0] == pytest.approx((10, 10, 5, 5))
    assert weights[1] == pytest.approx((20, 20, 10, 10))
    assert weights[2] == pytest.approx((1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067))


def test_losses_are_weighted_by_stage(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for head in model.box_heads:
        monkeypatch.setattr(head, "compute_losses", lambda *_: (torch.tensor(8.0), torch.tensor(4.0)))
    monkeypatch.setattr("harness.tasks.detection.detector.compute_mask_loss", lambda *_: torch.tensor(2.0))
    losses = compute_losses(model, [make_objects((50, 63), [[8, 10, 40, 30]], [1])])
    heads = {name: loss.item() for name, loss in losses.items() if not name.startswith("rpn")}
    assert heads == {
        f"{name}_{stage}": weight * value
        for stage, weight in [(1, 1.0), (2, 0.5), (3, 0.25)]
        for name, value in [("class", 8.0), ("box", 4.0), ("mask", 2.0)]
    }


def test_scores_are_those_of_the_mean_logits_and_masks_the_mean_of_probabilities(model: Any) -> None:
    model.eval()
    images, sizes = torch.randn(1, 3, 61, 63), [(50, 63)]
    maps = model.pyramid(images)[:-1]
    proposals = [torch.tensor([[4.0, 4.0, 30.0, 40.0], [20.0, 10.0, 60.0, 44.0], [0.0, 0.0, 12.0, 9.0]])]
    found = model.find_objects(maps, proposals, sizes)[0]
    regions, logits = proposals, []
    for stage, head in enumerate(model.box_heads):
        stage_logits, deltas = model.predict_boxes(stage, maps, regions)
        logits.append(stage_logits)
        if stage < 2:
            regions = head.refine(stage_logits, deltas, regions, sizes)
    scores = (sum(logits) / 3).softmax(dim=1)
    for box, score, label, mask in zip(*found, strict=True):
        (region,) = [i for i in range(3) if torch.isclose(scores[i, label], score, rtol=1e-5)]
        decoded = model.box_heads[2].coder.decode_single(deltas[region, label][None], regions[0][region][None])
        limits = torch.tensor([63.0, 50.0, 63.0, 50.0])
        torch.testing.assert_close(box, decoded[0].clamp(min=0).minimum(limits))
        masks = [model.predict_masks(stage, maps, [box[None]])[0, label].sigmoid() for stage in range(3)]
        torch.testing.assert_close(mask, sum(masks) / 3)
    assert len(found.scores)
