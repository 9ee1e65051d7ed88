"""What both detectors promise."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou

from harness.tasks.detection.detections import Detections

from .conftest import NUM_CLASSES, BuildDetector, compute_losses, make_objects

SOME = make_objects((50, 63), [[8, 10, 40, 30], [40, 32, 60, 48]], [1, 2])
NOTHING = make_objects((61, 40), [], [])
STEPS = 150


@pytest.mark.parametrize("presets", [("swin", "swin"), ("elsa", "swin")], ids="-".join)
def test_every_parameter_has_a_finite_gradient(
    detector: type[Any], build_detector: BuildDetector, presets: tuple[str, str]
) -> None:
    model = build_detector(detector, *presets)
    sum(compute_losses(model, [SOME, NOTHING]).values()).backward()  # type: ignore[union-attr]
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    heads = ("rpn", "proposals", "box_heads", "mask_heads", "pyramid.fpn", "pyramid.norms")
    assert all(parameter.grad.any() for name, parameter in model.named_parameters() if name.startswith(heads))


def test_images_without_objects_are_trained(detector: type[Any], build_detector: BuildDetector) -> None:
    model = build_detector(detector)
    losses = compute_losses(model, [NOTHING, NOTHING])
    assert all(loss == 0 for name, loss in losses.items() if "class" not in name)
    assert all(loss > 0 for name, loss in losses.items() if "class" in name)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_losses_repeat_bit_for_bit(detector: type[Any], build_detector: BuildDetector) -> None:
    runs = [compute_losses(build_detector(detector), [SOME, NOTHING], seed=5) for _ in range(2)]
    other = compute_losses(build_detector(detector), [SOME, NOTHING], seed=6)
    assert runs[0].keys() == runs[1].keys()
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert any(not torch.equal(runs[0][name], other[name]) for name in other)


def test_crowds_and_empty_boxes_are_not_trained_on(detector: type[Any], build_detector: BuildDetector) -> None:
    boxes = [*SOME.boxes.tolist(), [2, 40, 30, 48], [5, 5, 5, 9]]
    more = make_objects(SOME.size, boxes, [1, 2, 0, 1])
    more.crowd[2] = True
    expected = compute_losses(build_detector(detector), [SOME])
    actual = compute_losses(build_detector(detector), [more])
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@pytest.mark.filterwarnings("ignore:.*CPU Autocast")
def test_half_precision_keeps_boxes_and_losses_in_single(detector: type[Any], build_detector: BuildDetector) -> None:
    model = build_eager(detector, build_detector)
    with torch.autocast("cpu", torch.bfloat16):
        losses = compute_losses(model, [SOME, NOTHING])
        (found,) = detect(model, torch.randn(1, 3, 40, 52), [(40, 52)])
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    assert all(field.dtype == torch.float32 for field in (found.boxes, found.scores, found.masks))


def detect(model: Any, images: Tensor, sizes: list[tuple[int, int]]) -> list[Detections]:
    with torch.no_grad():
        return model.eval()(images, sizes)  # type: ignore[no-any-return]


def build_eager(detector: type[Any], build_detector: BuildDetector, **changes: Any) -> Any:
    """A detector that finds something, though it is not trained."""
    model = build_detector(detector, lowest_score=0.3, **changes)
    with torch.no_grad():
        for head in model.box_heads:
            head.classes.weight.normal_()
            head.boxes.weight.normal_(std=0.3)
        model.proposals.head.cls_logits.weight.normal_()
    return model


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (20, 90)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_any_image_has_sorted_detections_inside(
    detector: type[Any], build_detector: BuildDetector, size: tuple[int, int]
) -> None:
    model = build_eager(detector, build_detector)
    sizes = [size, (size[0] - 7, size[1] - 12)]
    found = detect(model, torch.randn(2, 3, *size), sizes)
    assert len(found) == 2
    for (rows, columns), each in zip(sizes, found, strict=True):
        number = len(each.scores)
        assert 0 < number <= 10
        assert each.boxes.shape == (number, 4)
        assert each.masks.shape == (number, 14, 14)
        assert (each.boxes >= 0).all()
        assert (each.boxes <= torch.tensor([columns, rows, columns, rows])).all()
        assert (each.scores[:-1] >= each.scores[1:]).all()
        assert ((each.labels >= 0) & (each.labels < NUM_CLASSES)).all()
        assert ((each.masks >= 0) & (each.masks <= 1)).all()


def test_an_image_may_have_no_detection(detector: type[Any], build_detector: BuildDetector) -> None:
    model = build_eager(detector, build_detector)
    model.box_heads[-1].classes.bias.data[:NUM_CLASSES] = -1000
    (found,) = detect(model, torch.randn(1, 3, 40, 40), [(40, 40)])
    assert [tuple(field.shape) for field in found] == [(0, 4), (0,), (0,), (0, 14, 14)]


def assert_same(actual: Detections, expected: Detections) -> None:
    for first, second in zip(actual, expected, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


def test_detections_do_not_depend_on_the_other_images(detector: type[Any], build_detector: BuildDetector) -> None:
    model = build_eager(detector, build_detector)
    images, sizes = torch.randn(3, 3, 40, 52), [(40, 52), (33, 52), (40, 41)]
    together = detect(model, images, sizes)
    for index, expected in enumerate(together):
        assert_same(detect(model, images[index : index + 1], sizes[index : index + 1])[0], expected)


def test_padding_to_whole_patches_changes_nothing(detector: type[Any], build_detector: BuildDetector) -> None:
    model = build_eager(detector, build_detector)
    image = torch.randn(1, 3, 37, 50)
    padded = functional.pad(image, (0, 2, 0, 3))
    assert_same(detect(model, image, [(37, 50)])[0], detect(model, padded, [(37, 50)])[0])


def test_padding_is_seen_by_windows_near_it_alone(detector: type[Any], build_detector: BuildDetector) -> None:
    """A padded image has other maps than the image alone, but only as far as windows and convolutions reach."""
    pyramid = build_detector(detector).pyramid.eval()
    image = torch.randn(1, 3, 64, 256)
    padded = functional.pad(image, (0, 64))
    alone, beside = pyramid(image)[0], pyramid(padded)[0][..., :64]
    difference = (alone - beside).abs().amax(dim=(0, 1, 2))
    assert difference[-8:].max() > 1e-3
    assert difference[:24].max() < 1e-5


def test_training_needs_objects(detector: type[Any], build_detector: BuildDetector) -> None:
    model = build_detector(detector)
    images = torch.randn(2, 3, 32, 32)
    with pytest.raises(ValueError, match="training needs the objects of each of the 2 images"):
        model(images, [(32, 32)] * 2)
    with pytest.raises(ValueError, match="2 images need one size each, got 1"):
        model(images, [(32, 32)], [NOTHING])


def test_the_pyramid_must_have_the_channels_of_the_sizes(detector: type[Any], build_detector: BuildDetector) -> None:
    model = build_detector(detector)
    with pytest.raises(ValueError, match="pyramid_channels is 256, but the pyramid has 16"):
        detector(model.pyramid, NUM_CLASSES)


@pytest.mark.slow
def test_one_image_is_learned_by_heart(detector: type[Any], build_detector: BuildDetector) -> None:
    size = (64, 72)
    objects = make_objects(size, [[8, 12, 40, 36], [44, 36, 64, 60]], [1, 2])
    image = torch.zeros(1, 3, *size)
    for channel, mask in enumerate(objects.masks):
        image[0, channel, mask] = 1.0
    image -= image.mean()
    model = build_detector(detector).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        sum(model(image, [size], [objects]).values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    (found,) = detect(model, image, [size])
    for box, label, mask in zip(objects.boxes, objects.labels, objects.masks, strict=True):
        best = torch.where(found.labels == label)[0][0]
        assert box_iou(found.boxes[best][None], box[None]) > 0.7
        left, top, right, bottom = found.boxes[best].round().int().tolist()
        inside = found.masks[best][None, None]
        pasted = torch.zeros(size, dtype=torch.bool)
        pasted[top:bottom, left:right] = functional.interpolate(inside, (bottom - top, right - left))[0, 0] > 0.5
        assert (pasted & mask).sum() / (pasted | mask).sum() > 0.7
