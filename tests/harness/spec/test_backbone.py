from typing import Any

import pytest
from pydantic import ValidationError

from harness.spec import BackboneSpec, DeitSpec, SwinSpec, VoloSpec
from paradigms.config import BACKBONES


def test_widths_double_from_stage_to_stage() -> None:
    assert SwinSpec(patch_size=4, embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)).widths == (
        96,
        192,
        384,
        768,
    )


def test_a_swin_needs_heads_for_every_stage() -> None:
    with pytest.raises(ValidationError, match="one entry per stage"):
        SwinSpec(patch_size=2, embed_dim=8, depths=(2, 1), num_heads=(1,))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"layers": (2, 1), "embed_dims": (8, 16), "num_heads": (2,)}, "one entry for each"),
        ({"layers": (2,), "embed_dims": (8,), "num_heads": (2,)}, "2 to 4 stages"),
        ({"layers": (2, 1, 1), "embed_dims": (8, 16, 32), "num_heads": (2, 2, 2)}, "have one width"),
        ({"layers": (2, 1), "embed_dims": (8, 16), "num_heads": (2, 2), "patch_size": 3}, "patch_size"),
    ],
    ids=["heads", "one stage", "widths", "patch"],
)
def test_a_volo_that_timm_cannot_build_is_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VoloSpec(**sizes)


def test_a_deit_has_one_number_of_heads() -> None:
    with pytest.raises(ValidationError, match="one stage and num_heads one entry"):
        DeitSpec(embed_dim=12, num_heads=(2, 4))


@pytest.mark.parametrize("sizes", BackboneSpec.__subclasses__())
def test_the_family_of_a_backbone_is_a_level(sizes: type[BackboneSpec]) -> None:
    assert sizes.family in BACKBONES
