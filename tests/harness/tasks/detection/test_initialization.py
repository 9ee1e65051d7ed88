from typing import Any

import pytest
import torch
from torch import nn

from harness.tasks.detection.cascade_mask_rcnn import CascadeMaskRCNN
from harness.tasks.detection.initialization import initialize_head

from .conftest import BuildDetector


def test_values_have_the_spread_of_mmdetection(build_detector: BuildDetector) -> None:
    model = build_detector(CascadeMaskRCNN, pyramid_channels=64, box_width=64, mask_channels=64)
    box_head, mask_head, fpn = model.box_heads[1], model.mask_heads[2], model.pyramid.fpn
    kaiming = (2 / (64 * 9)) ** 0.5
    expected: dict[Any, float] = {
        model.proposals.head.conv[0][0]: 0.01,
        model.proposals.head.bbox_pred: 0.01,
        box_head.classes: 0.01,
        box_head.boxes: 0.001,
        box_head.layers[0]: (2 / (64 * 25 + 64)) ** 0.5,
        box_head.convolutions[0]: kaiming,
        mask_head.convolutions[0]: kaiming,
        mask_head.upsample: (2 / (64 * 4)) ** 0.5,
        fpn.inner_blocks[1][0]: (2 / (32 + 64)) ** 0.5,
        fpn.layer_blocks[0][0]: (2 / (64 * 9 * 2)) ** 0.5,
    }
    for layer, deviation in expected.items():
        assert layer.weight.std().item() == pytest.approx(deviation, rel=0.15)
    biases = [p for n, p in model.named_parameters() if n.endswith("bias") and not n.startswith("pyramid.backbone")]
    assert not any(bias.any() for bias in biases)


def test_every_module_outside_of_the_backbone_can_be_drawn_by_itself(
    detector: type[Any], build_detector: BuildDetector
) -> None:
    model = build_detector(detector)
    for path, module in model.named_modules():
        if path.startswith("pyramid.backbone"):
            continue
        drawn = []
        for _ in range(2):
            torch.manual_seed(3)
            initialize_head(module, path)
            drawn.append([parameter.clone() for parameter in module.parameters(recurse=False)])
        assert all(torch.equal(first, second) for first, second in zip(*drawn, strict=True))


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="no rule for the parameters of Embedding at"):
        initialize_head(nn.Embedding(2, 3), "box_heads.0.table")
