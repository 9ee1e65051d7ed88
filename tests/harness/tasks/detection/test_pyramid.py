import pytest
import torch
from torch import Tensor

from harness.tasks.detection.pyramid import PyramidBackbone
from tests.paradigms.backbones.conftest import copy_from_timm

from .conftest import build_backbone


@pytest.mark.parametrize("presets", [("swin", "swin"), ("elsa", "swin"), ("net7_n", "net7")], ids="-".join)
@pytest.mark.parametrize("size", [(64, 64), (37, 53), (16, 90), (3, 5)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_any_image_size_has_maps_of_every_stride(size: tuple[int, int], presets: tuple[str, str]) -> None:
    pyramid = PyramidBackbone(build_backbone(*presets), 16)
    assert pyramid.strides == (4, 8, 16)
    maps = pyramid(torch.randn(2, 3, *size))
    rows, columns = (-(-length // 4) for length in size)
    expected = [(rows, columns)]
    for _ in range(2):
        expected.append((-(-expected[-1][0] // 2), -(-expected[-1][1] // 2)))
    assert [tuple(x.shape) for x in maps] == [(2, 16, *each) for each in expected]


def test_maps_are_those_of_the_layers_one_by_one() -> None:
    pyramid = PyramidBackbone(build_backbone(), 16)
    with torch.no_grad():
        for norm in pyramid.norms:
            norm.weight.normal_()
    images = torch.randn(2, 3, 24, 40)
    fine, coarse = pyramid.backbone.forward_intermediates(images, intermediates_only=True)
    inner, outer = pyramid.fpn.inner_blocks, pyramid.fpn.layer_blocks

    def normalize(stage: int, x: Tensor) -> Tensor:
        mean, variance = x.mean(dim=1, keepdim=True), x.var(dim=1, keepdim=True, unbiased=False)
        weight, bias = (each[:, None, None] for each in (pyramid.norms[stage].weight, pyramid.norms[stage].bias))
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    top = inner[1](normalize(1, coarse))
    doubled = top.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = [outer[0](inner[0](normalize(0, fine)) + doubled), outer[1](top)]
    expected.append(expected[1][:, :, ::2, ::2])
    for actual, map_ in zip(pyramid(images), expected, strict=True):
        torch.testing.assert_close(actual, map_)


@pytest.mark.parametrize("size", [(64, 64), (40, 52), (24, 36)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_windows_that_leave_the_map_are_timms(size: tuple[int, int]) -> None:
    ours, theirs = build_backbone("swin", "swin").eval(), build_backbone(None, None).eval()
    copy_from_timm(ours, theirs)
    images = torch.randn(2, 3, *size)
    for actual, expected in zip(
        *(model.forward_intermediates(images, intermediates_only=True) for model in (ours, theirs)), strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("presets", [("swin", "swin"), ("elsa", "swin")], ids="-".join)
def test_classification_is_the_same_for_one_size_and_for_any(presets: tuple[str, str]) -> None:
    fixed = build_backbone(*presets, num_classes=10, strict_img_size=True, always_partition=False).eval()
    free = build_backbone(*presets, num_classes=10).eval()
    free.load_state_dict(fixed.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(free(images), fixed(images))


def test_windows_do_not_depend_on_the_size_that_the_backbone_was_built_for() -> None:
    small, large = build_backbone(image_size=8).eval(), build_backbone(image_size=64).eval()
    large.load_state_dict(small.state_dict())
    images = torch.randn(1, 3, 48, 40)
    assert torch.equal(small(images), large(images))


def test_no_parameter_is_left_over() -> None:
    pyramid = PyramidBackbone(build_backbone(num_classes=10), 16)
    assert not [name for name, _ in pyramid.named_parameters() if name.startswith(("backbone.norm", "backbone.head"))]
    sum(x.sum() for x in pyramid(torch.randn(1, 3, 37, 53))).backward()
    assert not [name for name, parameter in pyramid.named_parameters() if parameter.grad is None]


def test_a_backbone_for_one_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"takes images of \(64, 64\) only: strict_img_size=False"):
        PyramidBackbone(build_backbone(strict_img_size=True))
