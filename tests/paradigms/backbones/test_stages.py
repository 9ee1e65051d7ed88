"""What a backbone from a plug-in overrides is enough: the guide's ConvNeXt, without its entry in any room."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.convnext import ConvNeXt as Convolutions

from paradigms.attention import LocalAttention
from paradigms.config import AttentionConfig

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "convnext.py"
DIMS = (8, 8, 16, 16)
SIZES: dict[str, Any] = {"depths": (1, 2, 1, 1), "dims": DIMS, "num_classes": 5, "ls_init_value": 1.0}
DWCONV = AttentionConfig(
    parameterization=("position_bias",), normalization="identity", neighborhood="sliding_window", projections="none"
)
"""A depthwise convolution of 7x7 pixels, without bias."""


@pytest.fixture(scope="module")
def backbone() -> Any:
    spec = importlib.util.spec_from_file_location("example_of_a_backbone", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ConvNeXt


def test_operators_with_the_weights_of_the_convolutions_are_the_model_of_timm(backbone: Any) -> None:
    theirs = Convolutions(**SIZES, conv_bias=False).double()
    ours = backbone(**SIZES, conv_bias=False, attention=[DWCONV] * 4, num_heads=DIMS, img_size=64).double()
    weights = {name.replace("conv_dw.weight", "conv_dw.operator.parameterization.rb.weight"): tensor.flatten(1)
               if "conv_dw" in name else tensor for name, tensor in theirs.state_dict().items()}  # fmt: skip
    ours.load_state_dict(weights)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert torch.allclose(ours(images), theirs(images), rtol=1e-10, atol=1e-10)


def test_stages_without_an_operator_keep_their_convolutions(backbone: Any) -> None:
    model = backbone(**SIZES, attention=[None, DWCONV, None, None], num_heads=DIMS, img_size=(64, 32))
    assert [(stage, size) for stage, size, _ in model.operators()] == [(2, (8, 4)), (2, (8, 4))]
    assert sum(isinstance(module, LocalAttention) for module in model.modules()) == 2
    assert model.stages[0].blocks[0].conv_dw.weight.shape == (8, 1, 7, 7)
    assert model(torch.zeros(1, 3, 64, 32)).shape == (1, 5)


def test_an_operator_that_does_not_fit_changes_nothing(backbone: Any) -> None:
    model = backbone(**SIZES, attention=[DWCONV, None, None, None], num_heads=DIMS, img_size=64)
    before = list(model.operators())
    with pytest.raises(ValueError, match="4 stages need one operator each, got 1; None keeps"):
        model.set_operators([DWCONV])
    assert list(model.operators()) == before
