import pytest
from pydantic import ValidationError

from harness.spec import AugmentationSpec


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
