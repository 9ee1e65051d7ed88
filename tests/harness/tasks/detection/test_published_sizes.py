"""Parameters and multiply-adds that arXiv:2112.12786 prints in Table 7, at 1280x800."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.evaluate import count_multiply_adds, count_parameters
from harness.spec import CascadeMaskRCNNSpec, MaskRCNNSpec
from harness.tasks.detection.cascade_mask_rcnn import CascadeMaskRCNN
from harness.tasks.detection.mask_rcnn import MaskRCNN
from harness.tasks.detection.pyramid import PyramidBackbone
from paradigms.backbones import SwinTransformer
from paradigms.config import AttentionConfig
from paradigms.presets import get_preset

pytestmark = pytest.mark.usefixtures("quick_meta")

DEPTHS = {"T": (2, 2, 6, 2), "S": (2, 2, 18, 2)}
GROUP_WIDTHS = {"T": 4, "S": 8}
COCO_CLASSES = 80
SHAPE = (3, 800, 1280)

PARAMETERS = [
    (MaskRCNN, "Swin-T", 48),
    (MaskRCNN, "ELSA-T", 49),
    (MaskRCNN, "Swin-S", 69),
    (MaskRCNN, "ELSA-S", 72),
    (CascadeMaskRCNN, "Swin-T", 86),
    (CascadeMaskRCNN, "ELSA-T", 86),
    (CascadeMaskRCNN, "Swin-S", 107),
    (CascadeMaskRCNN, "ELSA-S", 110),
]


def test_settings_are_those_released_for_elsa() -> None:
    """Of det/configs in the released code, what differs between the two detectors."""
    plain, cascade = MaskRCNNSpec(), CascadeMaskRCNNSpec()
    assert (plain.anchor_beta, cascade.anchor_beta) == (0, 1 / 9)
    assert (plain.anchor_border, cascade.anchor_border) == (None, 0)
    assert (plain.train_proposals, cascade.train_proposals) == (1000, 2000)
    assert (plain.box_loss, cascade.box_loss) == ("l1", "giou")
    assert (plain.box_loss_weight, cascade.box_loss_weight) == (1, 10)
    assert [stage.lowest_iou for stage in (*plain.stages, *cascade.stages)] == [0.5, None, None, None]


def build(kind: type[Any], backbone: str, *, timm_windows: bool = False) -> Any:
    """On the meta device, with the operators of Table 6."""
    name, size = backbone.split("-")
    swin, elsa = get_preset("swin").config, get_preset("elsa").config.replace(group_width=GROUP_WIDTHS[size])
    attention: list[AttentionConfig | None] = [swin] * 4 if name == "Swin" else [elsa] * 3 + [swin]
    with torch.device("meta"):
        model = SwinTransformer(
            attention=[None] * 4 if timm_windows else attention,
            num_heads=(3, 6, 12, 24),
            depths=DEPTHS[size],
            num_classes=0,
            strict_img_size=False,
            always_partition=True,
        )
        return kind(PyramidBackbone(model), COCO_CLASSES)


def count_as_mmcv(model: Any) -> int:
    """Multiply-adds as mmcv's counter has them: layers with biases and norms, but no products inside of attention."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        match layer:
            case nn.Linear():
                total += inputs[0].numel() * layer.out_features
            case nn.Conv2d():
                total += output[0, 0].numel() * len(output) * layer.weight.numel()
                total += output.numel() if layer.bias is not None else 0
            case nn.ConvTranspose2d():
                total += inputs[0][0, 0].numel() * len(output) * layer.weight.numel() + output.numel()
            case nn.LayerNorm() | nn.BatchNorm2d():
                total += 2 * output.numel()
            case nn.ReLU():
                total += output.numel()

    for layer in model.modules():
        layer.register_forward_hook(count)
    with torch.no_grad():
        model.eval().count_forward(torch.empty(1, *SHAPE, device="meta"))
    return total


@pytest.mark.parametrize(
    ("kind", "backbone", "millions"), PARAMETERS, ids=lambda value: getattr(value, "__name__", value)
)
def test_parameters_are_the_printed_millions(kind: type[Any], backbone: str, millions: int) -> None:
    assert round(count_parameters(build(kind, backbone)) / 1e6) == millions


@pytest.mark.parametrize(
    ("kind", "backbone", "printed"),
    [
        (MaskRCNN, "ELSA-T", 269),
        (MaskRCNN, "ELSA-S", 367),
        (CascadeMaskRCNN, "ELSA-T", 748),
        (CascadeMaskRCNN, "ELSA-S", 846),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_multiply_adds_of_elsa_are_the_printed_ones(kind: type[Any], backbone: str, printed: int) -> None:
    assert count_multiply_adds(build(kind, backbone), SHAPE) / 1e9 == pytest.approx(printed, rel=3e-3)


@pytest.mark.parametrize(
    ("kind", "backbone", "printed"),
    [(MaskRCNN, "Swin-T", 267), (CascadeMaskRCNN, "Swin-T", 745), (CascadeMaskRCNN, "Swin-S", 838)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_multiply_adds_of_swin_are_printed_with_windows_that_are_padded_before_the_projections(
    kind: type[Any], backbone: str, printed: int
) -> None:
    theirs = count_multiply_adds(build(kind, backbone, timm_windows=True), SHAPE) / 1e9
    assert theirs == pytest.approx(printed, rel=2e-3)
    ours = count_multiply_adds(build(kind, backbone), SHAPE) / 1e9
    assert 0.98 * printed < ours < theirs


def test_the_quoted_multiply_adds_of_swin_s_are_without_products_inside_of_attention() -> None:
    assert count_as_mmcv(build(MaskRCNN, "Swin-S", timm_windows=True)) / 1e9 == pytest.approx(354, abs=0.5)
