import pytest
from pydantic import ValidationError

from harness.spec import BackbonesSpec, CellSpec


def test_a_row_may_name_every_backbone_that_a_recipe_can_give_sizes_to() -> None:
    for name in BackbonesSpec.model_fields:
        assert CellSpec(backbone=name).backbone == name
    with pytest.raises(ValidationError, match="unknown backbone 'volo_d6'; did you mean 'volo_d5'"):
        CellSpec(backbone="volo_d6")
