"""The region proposal network (arXiv:1506.01497) with the anchors, targets and losses of mmdetection 2.x."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from harness.spec import DetectorSpec
from harness.tasks.detection.regions import BACKGROUND, IGNORED, Regions, assign_objects


class Anchors(nn.Module):
    """Boxes at every position of every map, centered at multiples of the map's stride, without rounding."""

    def __init__(self, strides: Sequence[int], scale: float, ratios: Sequence[float]) -> None:
        super().__init__()
        self.strides, self.scale, self.ratios = tuple(strides), scale, tuple(ratios)

    def forward(self, images: ImageList, maps: Sequence[Float[Tensor, "batch channels _ _"]]) -> list[Regions]:
        """The same anchors for each image: map by map, row by row, the ratios of one position in a row."""
        device = maps[0].device
        ratios = torch.tensor(self.ratios, device=device).sqrt()
        halves = torch.stack([1 / ratios, ratios], dim=1) * self.scale / 2  # width and height
        shapes = torch.cat([-halves, halves], dim=1)
        levels = []
        for x, stride in zip(maps, self.strides, strict=True):
            rows, columns = (torch.arange(length, device=device) for length in x.shape[-2:])
            y, x_ = torch.meshgrid(rows, columns, indexing="ij")
            centers = torch.stack([x_, y, x_, y], dim=-1).reshape(-1, 1, 4)
            levels.append(((centers + shapes) * stride).reshape(-1, 4))
        return [torch.cat(levels)] * len(images.image_sizes)


class ProposalHead(RPNHead):  # type: ignore[misc]  # torchvision has no types
    """Torchvision's head; its outputs are in single precision, since boxes are decoded from them."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits and differences to the anchors of each map."""
        logits, deltas = super().forward(x)
        return [each.float() for each in logits], [each.float() for each in deltas]


class ProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]  # torchvision has no types
    """Torchvision's network, which samples anchors, decodes boxes and suppresses overlapping ones.

    Differs from torchvision: the loss of boxes is L1 or has the given `anchor_beta`, an object claims anchors only from
    `anchor_lowest_iou` on, anchors in the padding are not trained, and those that leave the image may be left out.
    """

    def __init__(self, channels: int, strides: Sequence[int], sizes: DetectorSpec) -> None:
        super().__init__(
            Anchors(strides, sizes.anchor_scale, sizes.anchor_ratios),
            ProposalHead(channels, len(sizes.anchor_ratios)),
            fg_iou_thresh=sizes.anchor_iou,
            bg_iou_thresh=sizes.anchor_background_iou,
            batch_size_per_image=sizes.anchor_samples,
            positive_fraction=sizes.anchor_positives,
            pre_nms_top_n={"training": sizes.train_candidates, "testing": sizes.test_candidates},
            post_nms_top_n={"training": sizes.train_proposals, "testing": sizes.test_proposals},
            nms_thresh=sizes.proposal_nms,
        )
        self.sizes = sizes

    def assign_targets_to_anchors(
        self, anchors: list[Regions], targets: list[Mapping[str, Any]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels of the anchors of each image (1 object, 0 background, -1 ignored), and the boxes of their objects."""
        labels, matched = [], []
        for regions, target in zip(anchors, targets, strict=True):
            boxes, trained = target["boxes"], self._find_trained(regions, target["size"])
            assigned = torch.full((len(regions),), IGNORED, device=regions.device)
            assigned[trained] = assign_objects(
                regions[trained],
                boxes,
                positive=self.sizes.anchor_iou,
                negative=self.sizes.anchor_background_iou,
                lowest=self.sizes.anchor_lowest_iou,
            )
            labels.append((assigned - BACKGROUND).clamp(-1, 1).float())
            # background needs some box too: its own anchor, of which no loss is taken
            matched.append(torch.where(assigned[:, None] >= 0, _take(boxes, assigned), regions))
        return labels, matched

    def _find_trained(self, anchors: Regions, size: tuple[int, int]) -> Tensor:
        """Which anchors may be trained in an image of this size: those centered in it that do not leave it too far."""
        limits = torch.tensor([size[1], size[0]], device=anchors.device)
        trained: Tensor = ((anchors[:, :2] + anchors[:, 2:]) / 2 < limits).all(dim=1)
        if self.sizes.anchor_border is not None:
            trained &= (anchors[:, :2] >= -self.sizes.anchor_border).all(dim=1)
            trained &= (anchors[:, 2:] < limits + self.sizes.anchor_border).all(dim=1)
        return trained

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy of the sampled anchors, and the loss of the boxes of objects among them, per sampled anchor."""
        positives, negatives = (torch.cat(masks).bool() for masks in self.fg_bg_sampler(labels))
        sampled = positives | negatives
        num_samples = sampled.sum().clamp(min=1)
        class_loss = functional.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        box_loss = functional.smooth_l1_loss(
            pred_bbox_deltas[positives],
            torch.cat(regression_targets)[positives],
            beta=self.sizes.anchor_beta,
            reduction="sum",
        )
        return class_loss / num_samples, box_loss / num_samples


def _take(boxes: Tensor, index: Tensor) -> Tensor:
    """The boxes of the objects; any box where there is no object."""
    return boxes[index.clamp(min=0)] if len(boxes) else boxes.new_zeros(len(index), 4)
