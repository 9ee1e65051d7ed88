import pytest
from pydantic import ValidationError

from harness.spec import AugmentationSpec, OperatorSpec, SwinSpec


def test_a_spec_is_frozen_and_strict() -> None:
    spec = AugmentationSpec(hflip=0.5)
    with pytest.raises(ValidationError):
        spec.hflip = 0.1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        AugmentationSpec.model_validate({"hflip": "0.5"})
    with pytest.raises(ValidationError):
        AugmentationSpec.model_validate({"hflop": 0.5})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_is_finite(value: float) -> None:
    with pytest.raises(ValidationError):
        AugmentationSpec(mixup=value)


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


def test_stated_is_what_stands_there_of_the_operator() -> None:
    spec = OperatorSpec(preset="net7", parameterization=("query_key",), kernel_size=(3, 5), heads="2x")
    assert spec.stated() == {"parameterization": ("query_key",), "kernel_size": (3, 5)}
