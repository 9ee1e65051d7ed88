from typing import Any

import pytest
import timm
import torch
from torch import nn

from paradigms import replace_attention
from paradigms.config import AttentionConfig

SIZES: dict[str, Any] = {"img_size": 64, "in_chans": 1, "num_classes": 10}


def make_swin() -> nn.Module:
    sizes = {"patch_size": 2, "embed_dim": 8, "depths": (2, 1), "num_heads": (2, 4)}
    return timm.models.SwinTransformer(**SIZES, **sizes)


def make_volo() -> nn.Module:
    sizes = {"layers": (2, 1), "embed_dims": (8, 16), "num_heads": (2, 4), "stem_hidden_dim": 4}
    return timm.models.VOLO(**SIZES, **sizes)


def make_vit(**changes: Any) -> nn.Module:
    sizes = {"patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2, "class_token": False, "global_pool": "avg"}
    return timm.models.VisionTransformer(**{**SIZES, **sizes, **changes})


MODELS = {"swin": make_swin, "volo": make_volo, "vit": make_vit}
BLOCKS = {"swin": [1, 1, 2], "volo": [1, 1], "vit": [1, 1]}

every_model = pytest.mark.parametrize("name", MODELS)


@every_model
@pytest.mark.parametrize("operator", ["net7", "elsa", AttentionConfig(window_size=3, normalization="filter_norm")])
def test_every_attention_that_can_be_replaced_is(name: str, operator: Any) -> None:
    model = replace_attention(MODELS[name](), operator)
    assert [stage for stage, _, _ in model.operators()] == BLOCKS[name]
    model(torch.randn(2, 1, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@every_model
def test_the_other_weights_stay(name: str) -> None:
    model = MODELS[name]()
    before = dict(model.named_parameters())
    replace_attention(model, "net7")
    after = dict(model.named_parameters())
    assert all(value is after[key] for key, value in before.items() if key in after and ".attn." not in key)
    assert {key for key in before if ".attn." not in key} <= set(after)


@every_model
def test_device_type_mode_and_biases_are_the_models(name: str) -> None:
    model = replace_attention(MODELS[name]().double().eval(), "net7")
    for _, _, operator in model.operators():
        assert {parameter.dtype for parameter in operator.parameters()} == {torch.float64}
        assert not operator.training
        assert (operator.v.bias is None) == (name == "volo")


@every_model
def test_an_operator_can_be_replaced_again(name: str) -> None:
    model = replace_attention(replace_attention(MODELS[name](), "net7"), "net4")
    for _, _, operator in model.operators():
        assert set(operator.parameterization.position_tables()) == {"rb"}


@every_model
def test_a_replaced_model_takes_other_sizes(name: str) -> None:
    model = replace_attention(MODELS[name](), "net7")
    model.set_input_size((128, 64))
    assert model(torch.randn(1, 1, 128, 64)).shape == (1, 10)


def test_stages_that_are_not_named_keep_timms_attention() -> None:
    model = replace_attention(make_swin(), "net7_n", stages=[2])
    assert [stage for stage, _, _ in model.operators()] == [2]
    model.set_input_size((128, 128))
    assert model(torch.randn(1, 1, 128, 128)).shape == (1, 10)


@pytest.mark.parametrize(
    ("model", "stages", "message"),
    [
        (nn.Linear(2, 2), None, "Linear has no attention that can be replaced; models that have: timm"),
        (make_swin(), [3], r"stages must name some of 1 to 2, got \[3\]"),
        (make_swin(), [], "stages must name some of 1 to 2, got none"),
        (make_volo(), [1, 2], r"the attention of stages \[2\] cannot be replaced"),
        (make_vit(class_token=True, global_pool="token"), None, "tokens that are a map"),
        (make_vit(reg_tokens=1), None, "tokens that are a map"),
    ],
    ids=["no transformer", "no such stage", "no stage", "global stage", "class token", "register token"],
)
def test_a_model_with_nothing_to_replace_is_told_and_left_alone(
    model: nn.Module, stages: list[int] | None, message: str
) -> None:
    kind, names = type(model), set(model.state_dict())
    with pytest.raises(ValueError, match=message):
        replace_attention(model, "net7", stages=stages)
    assert (type(model), set(model.state_dict())) == (kind, names)
