from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.models import create_model
from timm.models.vision_transformer import VisionTransformer

from paradigms.backbones import DeiT
from paradigms.config import AttentionConfig
from paradigms.presets import PRESETS

from .conftest import copy_from_timm, size_on_meta

WIDTHS: dict[str, Any] = {"patch_size": 4, "embed_dim": 12, "depth": 2}
SMALL: dict[str, Any] = {**WIDTHS, "in_chans": 1, "num_classes": 10, "img_size": (28, 20)}
GLOBAL = AttentionConfig(parameterization=("query_key",), window_size=(7, 5))
POOLED = {"class_token": False, "global_pool": "avg", "fc_norm": False}


@pytest.mark.parametrize("operator", [None, AttentionConfig(parameterization=("query_key",), window_size=14)])
def test_deit_tiny_without_tokens_has_the_size_of_timms(operator: AttentionConfig | None) -> None:
    with torch.device("meta"):
        ours = DeiT(attention=[operator], num_heads=(3,), embed_dim=192)
        theirs = create_model("deit_tiny_patch16_224", class_token=False, global_pool="avg")
    assert size_on_meta(ours, 224) == size_on_meta(theirs, 224)
    assert size_on_meta(ours, 224)[0] == pytest.approx(5.717, abs=5e-4)  # 6 M are printed


def test_without_operator_it_is_timms_with_the_norm_before_the_pooling() -> None:
    ours = DeiT(attention=[None], num_heads=(3,), **SMALL).eval()
    theirs = VisionTransformer(num_heads=3, **POOLED, **SMALL).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 1, 28, 20)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("window", [(7, 5), 1024], ids=["of the map", "larger than any map"])
@pytest.mark.parametrize("qkv_bias", [True, False], ids=["bias", "no bias"])
def test_timms_attention_is_query_key_in_one_window(window: Any, qkv_bias: bool) -> None:
    torch.manual_seed(0)
    config = AttentionConfig(parameterization=("query_key",), window_size=window)
    ours = DeiT(attention=[config], num_heads=(3,), qkv_bias=qkv_bias, **SMALL).double()
    theirs = VisionTransformer(num_heads=3, qkv_bias=qkv_bias, **POOLED, **SMALL).double()
    copy_from_timm(ours, theirs)
    x = torch.randn(2, 1, 28, 20, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))
    for model in (ours, theirs):
        model(x).square().sum().backward()
    torch.testing.assert_close(ours.pos_embed.grad, theirs.pos_embed.grad)
    torch.testing.assert_close(ours.patch_embed.proj.weight.grad, theirs.patch_embed.proj.weight.grad)


TRAINED = {
    "net7": PRESETS["net7"].config,
    "net7_n": PRESETS["net7_n"].config,
    "ghost head": replace(GLOBAL, aggregation="ghost_head", ghost_heads="2x"),
}


@pytest.mark.parametrize("config", TRAINED.values(), ids=TRAINED)
def test_operators_train_in_all_blocks(config: AttentionConfig) -> None:
    model = DeiT(attention=[config], num_heads=(3,), **SMALL)
    assert [(stage, map_size) for stage, map_size, _ in model.operators()] == [(1, (7, 5))] * 2
    model(torch.randn(2, 1, 28, 20)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_window_smaller_than_the_map_shifts_in_every_second_block() -> None:
    config = AttentionConfig(window_size=4)
    model = DeiT(attention=[config], num_heads=(3,), **{**SMALL, "depth": 3})
    shifts = [operator.neighborhood.geometry.shift for _, _, operator in model.operators()]
    assert shifts == [(0, 0), (2, 2), (0, 0)]


def test_global_attention_stays_global_when_the_images_grow() -> None:
    model = DeiT(attention=[PRESETS["net7"].config], num_heads=(3,), **SMALL)
    model.set_input_size((56, 40))
    geometries = [operator.neighborhood.geometry for _, _, operator in model.operators()]
    assert [geometry.kernel_size for geometry in geometries] == [(14, 10)] * 2
    assert model(torch.randn(2, 1, 56, 40)).shape == (2, 10)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"class_token": True, "global_pool": "token"}, "tokens that are a map"),
        ({"reg_tokens": 2}, "tokens that are a map"),
        ({"dynamic_img_size": True}, "a map of fixed size"),
        ({"patch_drop_rate": 0.5}, "a map of fixed size"),
    ],
    ids=["class token", "register tokens", "dynamic", "dropped patches"],
)
def test_an_operator_needs_a_map(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeiT(attention=[GLOBAL], num_heads=(3,), **{**SMALL, **sizes})


def test_an_operator_takes_no_other_mask() -> None:
    model = DeiT(attention=[GLOBAL], num_heads=(3,), **SMALL)
    with pytest.raises(ValueError, match="its only mask"):
        model.blocks[0](torch.randn(1, 35, 12), is_causal=True)


def test_a_deit_has_one_stage() -> None:
    with pytest.raises(ValueError, match="1 stages need one operator each, got 2"):
        DeiT(attention=[GLOBAL, GLOBAL], num_heads=(3,), **SMALL)
    with pytest.raises(ValueError, match="1 stage needs one number of heads, got 2"):
        DeiT(attention=[GLOBAL], num_heads=(3, 3), **SMALL)
