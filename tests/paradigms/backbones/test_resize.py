"""Weights of one image size in a model of another: what `set_input_size` would have made of them."""

from typing import Any

import pytest
import torch

from paradigms.backbones import VOLO, DeiT, OperatorStages, SwinTransformer
from paradigms.backbones.resize import resize_weights
from paradigms.config import TERMS, AttentionConfig

SHARED: dict[str, Any] = {"in_chans": 1, "num_classes": 10}
VOLO_SIZES: dict[str, Any] = {"layers": (2, 1), "embed_dims": (8, 16), "num_heads": (2, 4), "stem_hidden_dim": 4}
NARROW, WIDE = 16, 24


def build(backbone: str, side: int, neighborhood: str = "local_window") -> Any:
    """With windows that grow with the image and every kind of position table."""
    config = AttentionConfig(parameterization=TERMS, neighborhood=neighborhood, window_size=side // 4)
    match backbone:
        case "swin":
            sizes = {"patch_size": 2, "embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2), "window_size": side // 4}
            return SwinTransformer(attention=[config] * 2, img_size=side, **sizes, **SHARED)
        case "volo":
            return VOLO(
                attention=[config, None], img_size=side, patch_size=2, use_aux_head=False, **VOLO_SIZES, **SHARED
            )
        case _:
            sizes = {"patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": (2,)}
            return DeiT(attention=[config], img_size=side, **sizes, **SHARED)


@pytest.mark.parametrize("backbone", ["swin", "volo", "deit"])
def test_weights_are_resized_as_the_model_would_be(backbone: str) -> None:
    before, after = build(backbone, NARROW), build(backbone, WIDE)
    weights = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    assert any(weights[name].shape != tensor.shape for name, tensor in after.state_dict().items())
    after.load_state_dict(resize_weights(weights, after))
    before.set_input_size(WIDE if backbone == "volo" else (WIDE, WIDE))
    images = torch.randn(2, 1, WIDE, WIDE)
    torch.testing.assert_close(after.eval()(images), before.eval()(images))


def test_what_depends_on_no_map_is_left_alone() -> None:
    model = build("swin", NARROW, "sliding_window")
    weights = model.state_dict()
    resized = resize_weights(weights, build("swin", WIDE, "sliding_window"))
    assert all(resized[name] is weights[name] for name in weights)


def test_a_kernel_of_another_size_is_no_window_that_grew() -> None:
    def build_sliding(kernel_size: int) -> OperatorStages:
        config = AttentionConfig(parameterization=TERMS, neighborhood="sliding_window", kernel_size=kernel_size)
        return VOLO(attention=[config, None], img_size=16, patch_size=2, **VOLO_SIZES, **SHARED)

    with pytest.raises(ValueError, match=r"parameterization\.rk\.weight depends on the window but is not a table"):
        resize_weights(build_sliding(5).state_dict(), build_sliding(3))  # type: ignore[attr-defined]
