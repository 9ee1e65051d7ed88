"""What a user writes, frozen: an experiment, its rows, its recipe.

The shape of a file is the shape of these models: YAML keys are field names. `harness.reading` reads them.
"""

from typing import cast

from pydantic.fields import FieldInfo

from harness.spec.backbone import BackboneSpec, BackbonesSpec, DeitSpec, LinearSpec, MlpSpec, SwinSpec, VoloSpec
from harness.spec.data import AugmentationSpec, DataSpec
from harness.spec.experiment import (
    CellSpec,
    ClaimSpec,
    Column,
    Expectation,
    ExperimentSpec,
    FactorsSpec,
    Plot,
    PublishedSpec,
    RowSpec,
    SourceSpec,
    Stages,
    split_overrides,
)
from harness.spec.field import Name, Spec
from harness.spec.operator import Heads, OperatorSpec
from harness.spec.recipe import RecipeSpec
from harness.spec.training import LimitsSpec, TokenLabelsSpec, TrainingSpec

__all__ = [
    "AugmentationSpec",
    "BackboneSpec",
    "BackbonesSpec",
    "CellSpec",
    "ClaimSpec",
    "Column",
    "DataSpec",
    "DeitSpec",
    "Expectation",
    "ExperimentSpec",
    "FactorsSpec",
    "Heads",
    "LimitsSpec",
    "LinearSpec",
    "MlpSpec",
    "Name",
    "OperatorSpec",
    "Plot",
    "PublishedSpec",
    "RecipeSpec",
    "RowSpec",
    "SourceSpec",
    "Spec",
    "Stages",
    "SwinSpec",
    "TokenLabelsSpec",
    "TrainingSpec",
    "VoloSpec",
    "add_backbone",
    "split_overrides",
]


def add_backbone(name: str, sizes: type[BackboneSpec]) -> None:
    """Let recipes give sizes to a backbone of one's own; `sizes` is the model of what they say of it."""
    BackbonesSpec.model_fields[name] = FieldInfo(annotation=cast("type", sizes | None), default=None)
    for model in (BackbonesSpec, RecipeSpec, ExperimentSpec):
        model.model_rebuild(force=True)
