from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList

from harness.spec import DetectorSpec, MaskRCNNSpec
from harness.tasks.detection.proposals import Anchors, ProposalNetwork

from .conftest import SMALL

SIZES = MaskRCNNSpec(**SMALL)


def build(sizes: DetectorSpec = SIZES) -> ProposalNetwork:
    torch.manual_seed(0)
    return ProposalNetwork(16, (4, 8), sizes)


def test_anchors_are_boxes_of_every_ratio_at_every_position() -> None:
    maps = [torch.zeros(2, 16, 3, 5), torch.zeros(2, 16, 2, 3)]
    found = Anchors((4, 8), 8.0, (0.5, 1.0, 2.0))(SimpleNamespace(image_sizes=[(1, 1)] * 2), maps)
    expected = []
    for stride, rows, columns in [(4, 3, 5), (8, 2, 3)]:
        for row, column, ratio in product(range(rows), range(columns), (0.5, 1.0, 2.0)):
            width, height = 8 * stride / ratio**0.5, 8 * stride * ratio**0.5
            x, y = column * stride, row * stride
            expected.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    assert len(found) == 2
    for anchors in found:
        torch.testing.assert_close(anchors, torch.tensor(expected))


@pytest.mark.parametrize("border", [None, 0], ids=["any", "inside"])
def test_anchors_that_leave_the_image_are_ignored_where_asked(border: int | None) -> None:
    anchors = torch.tensor(
        [[0.0, 0.0, 8.0, 8.0], [-1.0, 0.0, 8.0, 8.0], [20.0, 4.0, 30.0, 14.0], [20.0, 4.0, 29.0, 9.0]]
    )
    network = build(SIZES.model_copy(update={"anchor_border": border}))
    target = {"boxes": torch.tensor([[0.0, 0.0, 8.0, 8.0]]), "size": (20, 30)}
    (labels,), (boxes,) = network.assign_targets_to_anchors([anchors], [target])
    assert labels.tolist() == ([1, 1, 0, 0] if border is None else [1, -1, -1, 0])
    assert boxes[0].tolist() == [0, 0, 8, 8]


def test_anchors_in_the_padding_are_not_trained() -> None:
    anchors = torch.tensor(
        [[10.0, 0.0, 29.0, 8.0], [11.0, 0.0, 29.0, 8.0], [0.0, 6.0, 8.0, 13.0], [0.0, 7.0, 8.0, 13.0]]
    )
    target = {"boxes": torch.zeros(0, 4), "size": (10, 20)}
    (labels,), _ = build().assign_targets_to_anchors([anchors], [target])
    assert labels.tolist() == [0, -1, 0, -1]


def test_an_object_claims_its_best_anchor_only_if_it_is_good_enough() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    target = {"boxes": torch.tensor([[0.0, 0.0, 4.0, 10.0], [50.0, 50.0, 52.0, 60.0]]), "size": (60, 60)}
    (labels,), _ = build().assign_targets_to_anchors([anchors], [target])
    assert labels.tolist() == [1, 0]  # overlaps of 0.4 and 0.2


@pytest.mark.parametrize("beta", [0.0, 1 / 9], ids=["l1", "smooth_l1"])
def test_losses_are_means_over_the_sampled_anchors(beta: float) -> None:
    network = build(SIZES.model_copy(update={"anchor_beta": beta}))
    labels = torch.tensor([1.0, 0, 0, -1, 1, 0])
    logits, deltas, targets = torch.randn(6), torch.randn(6, 4), torch.randn(6, 4)
    class_loss, box_loss = network.compute_loss(logits, deltas, [labels], [targets])
    total = torch.zeros(())
    for i in (0, 1, 2, 4, 5):
        probability = logits[i].sigmoid()
        total -= (probability if labels[i] else 1 - probability).log()
    torch.testing.assert_close(class_loss, total / 5)
    error = (deltas - targets)[[0, 4]].abs()
    smooth = torch.where(error < beta, error**2 / (2 * beta), error - beta / 2) if beta else error
    torch.testing.assert_close(box_loss, smooth.sum() / 5)


def test_an_image_without_objects_trains_background_alone() -> None:
    network = build().train()
    maps = {str(level): torch.randn(1, 16, side, side) for level, side in enumerate((8, 4))}
    images = ImageList(torch.zeros(1, 3, 32, 32), [(32, 32)])
    _, losses = network(images, maps, [{"boxes": torch.zeros(0, 4), "size": (32, 32)}])
    logits = torch.cat([x.flatten() for x in network.head(list(maps.values()))[0]])
    assert losses["loss_rpn_box_reg"] == 0
    assert losses["loss_objectness"].item() == pytest.approx(functional.softplus(logits).mean().item(), rel=0.05)


def test_proposals_stay_inside_of_the_image_and_their_number_depends_on_the_mode() -> None:
    sizes = SIZES.model_copy(update={"train_proposals": 7, "test_proposals": 3, "proposal_nms": 0.99})
    network = build(sizes)
    maps = {str(level): torch.randn(1, 16, side, side) for level, side in enumerate((8, 4))}
    images = ImageList(torch.zeros(1, 3, 32, 32), [(20, 27)])
    target = {"boxes": torch.zeros(0, 4), "size": (20, 27)}
    trained, _ = network.train()(images, maps, [target])
    tested, _ = network.eval()(images, maps)
    assert [len(trained[0]), len(tested[0])] == [7, 3]
    assert (trained[0] >= 0).all()
    assert (trained[0] <= torch.tensor([27.0, 20.0, 27.0, 20.0])).all()
