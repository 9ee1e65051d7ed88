import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align

from harness.spec import BoxStageSpec, MaskRCNNSpec
from harness.tasks.detection.regions import BACKGROUND, IGNORED, align_regions, assign_objects, sample_regions

from .conftest import NUM_CLASSES, make_objects


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union of two boxes."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(areas) - width * height)


def assign_slowly(
    regions: list[list[float]], boxes: list[list[float]], positive: float, negative: float, lowest: float | None
) -> list[int]:
    """The rule of mmdetection's MaxIoUAssigner, region by region and object by object."""
    assigned = []
    for region in regions:
        overlaps = [overlap(box, region) for box in boxes]
        best = max(overlaps)
        if best >= positive:
            assigned.append(overlaps.index(best))
        else:
            assigned.append(BACKGROUND if best < negative else IGNORED)
    for index, box in enumerate(boxes):
        overlaps = [overlap(box, region) for region in regions]
        if lowest is not None and max(overlaps) >= lowest:
            for region, value in enumerate(overlaps):
                if value == max(overlaps):
                    assigned[region] = index
    return assigned


def make_boxes(number: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 12, (number, 2), generator=generator)
    return torch.cat([corners, corners + torch.randint(3, 12, (number, 2), generator=generator)], dim=1).double()


@pytest.mark.parametrize("lowest", [None, 0.3, 0.6], ids=lambda lowest: f"lowest-{lowest}")
@pytest.mark.parametrize(("positive", "negative"), [(0.7, 0.3), (0.5, 0.5)], ids=["anchors", "regions"])
def test_objects_are_assigned_as_one_by_one(positive: float, negative: float, lowest: float | None) -> None:
    regions, boxes = make_boxes(400, 0), make_boxes(5, 1)
    actual = assign_objects(regions, boxes, positive=positive, negative=negative, lowest=lowest)
    expected = assign_slowly(regions.tolist(), boxes.tolist(), positive, negative, lowest)
    assert actual.tolist() == expected
    assert {BACKGROUND, *range(5)} & set(expected) > {BACKGROUND}


def test_the_last_of_two_equal_objects_claims_their_region() -> None:
    box = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    region = torch.tensor([[0.0, 0.0, 8.0, 4.0]])
    found = assign_objects(region, box.repeat(2, 1), positive=0.7, negative=0.3, lowest=0.3)
    assert found.tolist() == [1]


def test_without_objects_everything_is_background() -> None:
    found = assign_objects(make_boxes(4, 0), torch.zeros(0, 4), positive=0.7, negative=0.3, lowest=0.3)
    assert found.tolist() == [BACKGROUND] * 4


def test_samples_have_at_most_the_fraction_of_objects_and_their_labels() -> None:
    objects = make_objects((40, 40), [[0, 0, 20, 20], [20, 20, 40, 40]], [2, 0])
    near = objects.boxes.repeat(20, 1) + torch.rand(40, 4)
    far = torch.tensor([[30.0, 0.0, 38.0, 8.0]]).repeat(40, 1)
    sizes = MaskRCNNSpec(region_samples=32, region_positives=0.25)
    found = sample_regions(torch.cat([near, far]), objects, NUM_CLASSES, BoxStageSpec(iou=0.5), sizes)
    assert len(found.regions) == 32
    assert (found.objects >= 0).sum() == 8
    for region, index, label in zip(found.regions, found.objects, found.labels, strict=True):
        overlaps = [overlap(box, region.tolist()) for box in objects.boxes.tolist()]
        assert (int(index) >= 0) == (max(overlaps) >= 0.5)
        assert label == (objects.labels[index] if index >= 0 else NUM_CLASSES)


def test_boxes_of_objects_are_regions_too() -> None:
    objects = make_objects((40, 40), [[0, 0, 20, 20]], [2])
    sizes = MaskRCNNSpec(region_samples=32)
    found = sample_regions(torch.tensor([[30.0, 30.0, 38.0, 38.0]]), objects, NUM_CLASSES, BoxStageSpec(), sizes)
    assert found.regions[found.are_objects].tolist() == objects.boxes.tolist()
    assert found.labels.tolist() == [NUM_CLASSES, 2]


def test_a_region_is_read_from_the_level_of_its_size() -> None:
    maps = [torch.randn(2, 3, 32 // scale, 40 // scale) for scale in (1, 2, 4)]
    regions = [torch.tensor([[1.0, 2.0, 28.0, 29.0], [4.0, 4.0, 60.0, 60.0]]), torch.tensor([[0.0, 0.0, 160.0, 128.0]])]
    actual = align_regions(maps, (4, 8, 16), regions, side=5, finest_side=14.0)
    # sides of 27, 56 and 143 are below 2 * 14, at 4 * 14, and above
    for index, (image, region, level) in enumerate([(0, 0, 0), (0, 1, 2), (1, 0, 2)]):
        roi = torch.cat([torch.tensor([float(image)]), regions[image][region]])[None]
        expected = roi_align(maps[level], roi, 5, 1 / (4 * 2**level), 0, aligned=True)
        torch.testing.assert_close(actual[index], expected[0])


def test_a_linear_map_is_read_exactly() -> None:
    stride, side = 4, 3
    columns = torch.arange(20.0).expand(1, 1, 16, 20)
    region = torch.tensor([[8.0, 12.0, 44.0, 30.0]])
    actual = align_regions([columns], (stride,), [region], side=side, finest_side=14.0)
    centers = 8 + (torch.arange(side) + 0.5) * 36 / side
    # the value at column i stands for the center of its pixels, (i + 1/2) * stride
    torch.testing.assert_close(actual[0, 0], (centers / stride - 0.5).expand(side, side))


def test_no_regions_are_an_empty_map() -> None:
    maps = [torch.randn(1, 3, 8, 8, requires_grad=True)]
    found = align_regions(maps, (4,), [torch.zeros(0, 4)], side=5, finest_side=14.0)
    assert found.shape == (0, 3, 5, 5)
