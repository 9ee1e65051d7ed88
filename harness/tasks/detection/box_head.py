"""A head that classifies regions and refines their boxes (arXiv:1506.01497, arXiv:1712.00726)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, clip_boxes_to_image, generalized_box_iou_loss

from harness.spec import BoxStageSpec, DetectorSpec
from harness.tasks.detection.regions import Regions, Samples

Logits = Float[Tensor, "regions classes_and_background"]
Deltas = Float[Tensor, "regions classes 4"]


class BoxHead(nn.Module):
    """Classes of regions, and for each class the difference of its box to the region.

    Shape:
        (regions, channels, side, side) to logits (regions, classes + 1), background last, and (regions, classes, 4).
    """

    def __init__(self, channels: int, num_classes: int, stage: BoxStageSpec, sizes: DetectorSpec) -> None:
        super().__init__()
        self.stage, self.sizes = stage, sizes
        self.convolutions = nn.Sequential()
        for _ in range(sizes.box_convolutions):
            self.convolutions.extend([nn.Conv2d(channels, channels, 3, padding=1, bias=False)])
            self.convolutions.extend([nn.BatchNorm2d(channels), nn.ReLU(inplace=True)])
        self.layers = nn.Sequential()
        width = channels * sizes.box_side**2
        for _ in range(sizes.box_layers):
            self.layers.extend([nn.Linear(width, sizes.box_width), nn.ReLU(inplace=True)])
            width = sizes.box_width
        self.classes = nn.Linear(width, num_classes + 1)
        self.boxes = nn.Linear(width, 4 * num_classes)
        self.coder = BoxCoder(tuple(1 / deviation for deviation in stage.deviations))

    def forward(self, x: Float[Tensor, "regions channels side side"]) -> tuple[Logits, Deltas]:
        """Logits and differences, in single precision."""
        x = self.layers(self.convolutions(x).flatten(1))
        return self.classes(x).float(), self.boxes(x).float().unflatten(1, (-1, 4))

    def compute_losses(
        self, logits: Logits, deltas: Deltas, samples: Sequence[Samples], boxes: Sequence[Float[Tensor, "_ 4"]]
    ) -> tuple[Tensor, Tensor]:
        """The losses of classes and of boxes per sampled region; `boxes` are those of the objects of each image."""
        labels = torch.cat([each.labels for each in samples])
        regions = torch.cat([each.regions for each in samples])
        is_object = labels < deltas.shape[1]
        class_loss = functional.cross_entropy(logits, labels, reduction="sum")
        targets = torch.cat(
            [each[found.objects[found.objects >= 0]] for each, found in zip(boxes, samples, strict=True)]
        )
        predicted, regions = deltas[is_object, labels[is_object]], regions[is_object]
        if self.sizes.box_loss == "l1":
            box_loss = functional.l1_loss(predicted, self.coder.encode_single(targets, regions), reduction="sum")
        else:
            decoded = self.coder.decode_single(predicted, regions)
            box_loss = generalized_box_iou_loss(decoded, targets, reduction="sum")
        num_samples = max(len(labels), 1)
        return class_loss / num_samples, self.sizes.box_loss_weight * box_loss / num_samples

    @torch.no_grad()
    def refine(
        self,
        logits: Logits,
        deltas: Deltas,
        regions: Sequence[Regions],
        sizes: Sequence[tuple[int, int]],
        labels: Int[Tensor, "regions"] | None = None,
    ) -> list[Regions]:
        """The regions with their boxes refined and clipped to their images.

        Each is refined as a region of its label; where that is background, or not known, as one of the likeliest class.
        """
        num_classes = deltas.shape[1]
        likeliest = logits[:, :num_classes].argmax(dim=1)
        chosen = likeliest if labels is None else torch.where(labels == num_classes, likeliest, labels)
        picked = deltas[torch.arange(len(deltas), device=deltas.device), chosen]
        refined = self.coder.decode_single(picked, torch.cat(list(regions))).split([len(each) for each in regions])
        return [clip_boxes_to_image(each, size) for each, size in zip(refined, sizes, strict=True)]

    def find_boxes(
        self, logits: Logits, deltas: Deltas, regions: Regions, size: tuple[int, int]
    ) -> tuple[Float[Tensor, "detections 4"], Float[Tensor, "detections"], Int[Tensor, "detections"]]:
        """Boxes, scores and labels of the detections in one image, in descending order of scores."""
        num_classes = deltas.shape[1]
        scores = logits.softmax(dim=1)[:, :num_classes]
        decoded = self.coder.decode_single(deltas.flatten(1), regions).unflatten(1, (num_classes, 4))
        region, labels = torch.where(scores > self.sizes.lowest_score)
        boxes, scores = clip_boxes_to_image(decoded[region, labels], size), scores[region, labels]
        kept = batched_nms(boxes, scores, labels, self.sizes.detection_nms)[: self.sizes.max_detections]
        return boxes[kept], scores[kept], labels[kept]
