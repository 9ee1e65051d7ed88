"""timm's VOLO, built here, becomes ours with every tensor."""

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models import create_model
from timm.models import volo as timm_volo
from torch import nn

from paradigms import load_released
from paradigms.backbones import VOLO
from paradigms.models import SIZES, build_size
from paradigms.released import LAYOUTS, convert_released, find_layout

SMALL: dict[str, Any] = {
    "layers": (2, 1, 1, 1),
    "embed_dims": (8, 16, 16, 16),
    "num_heads": (2, 4, 4, 4),
    "stem_hidden_dim": 4,
    "num_classes": 10,
    "img_size": 32,
}


def draw_all(model: nn.Module) -> None:
    """Every parameter and every running mean and variance gets a value of its own."""
    for tensor in [*model.parameters(), *(buffer for buffer in model.buffers() if buffer.is_floating_point())]:
        nn.init.uniform_(tensor.data, 0.1, 0.6)


@pytest.mark.parametrize("use_aux_head", [True, False], ids=["aux head", "no aux head"])
def test_timms_volo_becomes_ours(use_aux_head: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = timm_volo.VOLO(**SMALL, use_aux_head=use_aux_head).double().eval()
    draw_all(theirs)
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "volo.pth.tar")
    ours = VOLO(attention=[None] * 4, patch_size=8, use_aux_head=use_aux_head, **SMALL).double().eval()
    ours.load_state_dict(load_released(tmp_path / "volo.pth.tar"))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize(
    "model", ["d1", *(pytest.param(name, marks=pytest.mark.slow) for name in ("d2", "d3", "d4", "d5"))]
)
def test_every_published_volo_fits_ours_name_by_name(model: str) -> None:
    with torch.device("meta"):
        released = create_model(f"volo_{model}_224").state_dict()
        ours = build_size(SIZES[f"volo_{model}"], (None,) * 4).state_dict()
    converted = convert_released(released)
    assert {name: tensor.shape for name, tensor in converted.items()} == {n: x.shape for n, x in ours.items()}


def test_a_tensor_that_no_volo_has_is_named() -> None:
    released = {**timm_volo.VOLO(**SMALL).state_dict(), "network.0.0.attn.qkv2.weight": torch.zeros(1)}
    assert find_layout(released) is LAYOUTS["volo"]
    with pytest.raises(ValueError, match=r"no rule of VOLO .* takes network\.0\.0\.attn\.qkv2\.weight"):
        convert_released(released)
