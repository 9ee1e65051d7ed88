"""timm's DeiT has a class token, ours has none: what both share is loaded, and what is left out is named."""

from typing import Any

import pytest
import torch
from timm.models import create_model
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from paradigms.backbones import DeiT
from paradigms.models import SIZES, build_size
from paradigms.released import LAYOUTS, convert_released

SMALL: dict[str, Any] = {"img_size": 12, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_classes": 10}


@pytest.fixture
def theirs() -> VisionTransformer:
    torch.manual_seed(1)
    model = VisionTransformer(num_heads=2, **SMALL).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def test_patches_become_the_same_tokens_and_tokens_the_same_logits(theirs: VisionTransformer) -> None:
    ours = DeiT(attention=[None], num_heads=(2,), **SMALL).double().eval()
    ours.load_state_dict(convert_released(theirs.state_dict()))
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    patches = theirs._pos_embed(theirs.patch_embed(images))[:, 1:]
    torch.testing.assert_close(ours._pos_embed(ours.patch_embed(images)), patches)
    torch.testing.assert_close(ours(images), theirs.head(theirs.norm(theirs.blocks(patches)).mean(dim=1)))


def test_only_the_class_token_and_its_position_are_left_out(theirs: VisionTransformer) -> None:
    released = theirs.state_dict()
    converted = convert_released(released)
    assert released.keys() - converted.keys() == {"cls_token"}
    assert torch.equal(converted["pos_embed"], released["pos_embed"][:, 1:])
    assert all(converted[name] is released[name] for name in converted.keys() - {"pos_embed"})
    assert "cls_token" in LAYOUTS["deit"].left_out


def test_the_published_deit_fits_ours_name_by_name() -> None:
    with torch.device("meta"):
        converted = convert_released(create_model("deit_tiny_patch16_224").state_dict())
        ours = build_size(SIZES["deit_tiny"], (None,)).state_dict()
    assert {name: tensor.shape for name, tensor in converted.items()} == {n: x.shape for n, x in ours.items()}


def test_a_distilled_deit_is_refused() -> None:
    released = VisionTransformerDistilled(num_heads=2, **SMALL).state_dict()
    with pytest.raises(ValueError, match=r"no rule of timm's DeiT .* takes dist_token, head_dist\.bias"):
        convert_released(released)
