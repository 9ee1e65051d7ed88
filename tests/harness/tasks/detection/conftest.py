"""Detectors small enough to train on a CPU in seconds, and objects to find."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from harness.batch import Objects
from harness.spec import CascadeMaskRCNNSpec, DetectorSpec, MaskRCNNSpec
from harness.tasks.detection.cascade_mask_rcnn import CascadeMaskRCNN
from harness.tasks.detection.detector import Detector
from harness.tasks.detection.mask_rcnn import MaskRCNN
from harness.tasks.detection.pyramid import PyramidBackbone
from paradigms.backbones import SwinTransformer
from paradigms.config import AttentionConfig
from paradigms.presets import get_preset

NUM_CLASSES = 3

SMALL: dict[str, Any] = {
    "pyramid_channels": 16,
    "anchor_scale": 4.0,
    "anchor_samples": 64,
    "train_candidates": 100,
    "train_proposals": 50,
    "test_candidates": 100,
    "test_proposals": 50,
    "finest_side": 14.0,
    "box_side": 5,
    "box_width": 32,
    "region_samples": 32,
    "mask_side": 14,
    "mask_convolutions": 1,
    "mask_channels": 16,
    "max_detections": 10,
}

SIZES: dict[type[Detector], DetectorSpec] = {
    MaskRCNN: MaskRCNNSpec(**SMALL),
    CascadeMaskRCNN: CascadeMaskRCNNSpec(**SMALL),
}

BuildDetector = Callable[..., Any]


def build_backbone(*presets: str | None, image_size: int = 64, **changes: Any) -> SwinTransformer:
    """Two stages at strides 4 and 8, for any image size."""
    chosen = [None if name is None else get_preset(name).config for name in presets or ("swin", "swin")]
    sizes: dict[str, Any] = {"depths": (2, 2), "num_heads": (1, 2), "embed_dim": 16, "patch_size": 4}
    sizes |= {"window_size": 4, "num_classes": 0, "drop_path_rate": 0.0, "img_size": image_size}
    sizes |= {"strict_img_size": False, "always_partition": True, **changes}
    return SwinTransformer(attention=[shrink_window(config) for config in chosen], **sizes)


def shrink_window(config: AttentionConfig | None) -> AttentionConfig | None:
    """A window of four where there is one."""
    return config.replace(window_size=4) if config is not None and config.neighborhood == "local_window" else config


@pytest.fixture(params=[MaskRCNN, CascadeMaskRCNN], ids=["mask_rcnn", "cascade_mask_rcnn"])
def detector(request: pytest.FixtureRequest) -> type[Any]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def build_detector() -> BuildDetector:
    """A small detector, the same at every call."""

    def build(kind: type[Any], *presets: str, **changes: Any) -> Any:
        torch.manual_seed(0)
        sizes = SIZES[kind].model_copy(update=changes)
        return kind(PyramidBackbone(build_backbone(*presets), sizes.pyramid_channels), NUM_CLASSES, sizes)

    return build


def make_objects(size: tuple[int, int], boxes: Sequence[Sequence[float]], labels: Sequence[int]) -> Objects:
    """Objects that fill their boxes but for the upper left quarter."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, box in zip(masks, boxes, strict=True):
        left, top, right, bottom = (int(edge) for edge in box)
        mask[top:bottom, left:right] = True
        mask[top : (top + bottom) // 2, left : (left + right) // 2] = False
    crowd = torch.zeros(len(boxes), dtype=torch.bool)
    return Objects(
        size, torch.tensor(boxes, dtype=torch.float).reshape(-1, 4), torch.tensor(labels).long(), masks, crowd
    )


def compute_losses(model: Any, objects: Sequence[Objects], seed: int = 0) -> dict[str, torch.Tensor]:
    """The losses on noise, with sizes that are no multiples of anything."""
    torch.manual_seed(seed)
    images = torch.randn(len(objects), 3, 61, 63)
    losses: dict[str, torch.Tensor] = model.train()(images, [each.size for each in objects], objects)
    return losses
