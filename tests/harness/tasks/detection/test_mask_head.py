import pytest
import torch

from harness.batch import Objects
from harness.tasks.detection.mask_head import compute_mask_loss, crop_masks, keep_objects
from harness.tasks.detection.regions import Samples

from .conftest import NUM_CLASSES, make_objects


def test_a_mask_is_cropped_to_its_region() -> None:
    objects = make_objects((40, 50), [[8, 4, 32, 28], [0, 0, 10, 10]], [0, 1])
    regions = torch.tensor([[8.0, 4.0, 32.0, 28.0], [8.0, 16.0, 32.0, 28.0], [32.0, 4.0, 44.0, 28.0]])
    crops = crop_masks(objects.masks, regions, torch.zeros(3, dtype=torch.long), 6)
    whole = torch.ones(6, 6)
    whole[:3, :3] = 0
    assert crops[0].tolist() == whole.tolist()
    assert crops[1].tolist() == torch.ones(6, 6).tolist()
    assert crops[2].tolist() == torch.zeros(6, 6).tolist()


def test_a_mask_is_read_at_the_centers_of_pixels_and_rounded() -> None:
    masks = torch.zeros(1, 4, 20, dtype=torch.bool)
    masks[..., 10:] = True
    region = torch.tensor([[8.25, 0.0, 12.25, 4.0]])
    # columns at 8.75, 9.75, 10.75 and 11.75; the mask is 0 at the center 9.5 and 1 at 10.5, so that 9.75 has 0.25
    assert crop_masks(masks, region, torch.zeros(1, dtype=torch.long), 4)[0].tolist() == [[0, 0, 1, 1]] * 4


def make_samples(objects: list[int], labels: list[int], regions: list[list[float]]) -> Samples:
    index = torch.tensor(objects)
    return Samples(torch.tensor(regions).reshape(-1, 4), index, torch.tensor(labels), index < -1)


def test_the_loss_is_the_mean_over_the_masks_of_the_own_class() -> None:
    objects = [
        make_objects((40, 50), [[8, 4, 32, 28]], [2]),
        make_objects((30, 30), [[0, 0, 8, 8], [10, 10, 22, 22]], [0, 1]),
    ]
    region = [[8.0, 4.0, 32.0, 28.0], [10.0, 10.0, 22.0, 22.0]]
    samples = [
        make_samples([0, -1], [2, NUM_CLASSES], [region[0], [0.0, 0.0, 4.0, 4.0]]),
        make_samples([1], [1], [region[1]]),
    ]
    logits = torch.randn(2, NUM_CLASSES, 6, 6)
    loss = compute_mask_loss(logits, [keep_objects(each) for each in samples], objects)
    target = torch.ones(6, 6)
    target[:3, :3] = 0
    total = torch.zeros(())
    for own in (logits[0, 2], logits[1, 1]):
        probability = own.sigmoid()
        total -= torch.where(target == 1, probability, 1 - probability).log().sum()
    torch.testing.assert_close(loss, total / 72)


@pytest.mark.parametrize("objects", [make_objects((9, 9), [], []), make_objects((9, 9), [[0, 0, 4, 4]], [0])])
def test_without_regions_the_loss_is_zero_with_a_gradient(objects: Objects) -> None:
    logits = torch.zeros(0, NUM_CLASSES, 6, 6, requires_grad=True)
    empty = Samples(torch.zeros(0, 4), *(torch.zeros(0, dtype=torch.long) for _ in range(3)))
    loss = compute_mask_loss(logits, [empty], [objects])
    assert loss == 0
    loss.backward()
    assert logits.grad is not None
