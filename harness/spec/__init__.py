"""Frozen models of the user's files: experiment, rows, recipe.

YAML keys are the field names of these models. `harness.reading` reads the files.
"""

from collections.abc import Iterable
from typing import cast

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness.spec.backbone import (
    BackboneSpec,
    BackbonesSpec,
    DeitSpec,
    LinearSpec,
    MlpSpec,
    SwinSpec,
    VoloSpec,
    find_sizes,
)
from harness.spec.claim import (
    CLAIMS,
    BetterSpec,
    ClaimSpec,
    EarlierSpec,
    EqualSpec,
    Expectation,
    FasterSpec,
    OrderSpec,
    OutcomeSpec,
)
from harness.spec.data import AugmentationSpec, DataSpec
from harness.spec.experiment import (
    AblateSpec,
    CellSpec,
    ExperimentSpec,
    FactorsSpec,
    MatchSpec,
    Plot,
    PublishedSpec,
    RowSpec,
    SourceSpec,
    Stages,
)
from harness.spec.field import Name, Spec
from harness.spec.framework import (
    BoxStageSpec,
    CascadeMaskRCNNSpec,
    DetectorSpec,
    FrameworkSpec,
    FrameworksSpec,
    MaskRCNNSpec,
    find_framework,
)
from harness.spec.operator import Heads, OperatorSpec, add_field
from harness.spec.recipe import RecipeSpec
from harness.spec.training import LimitsSpec, TokenLabelsSpec, TrainingSpec
from paradigms.facts import FIELDS

__all__ = [
    "CLAIMS",
    "AblateSpec",
    "AugmentationSpec",
    "BackboneSpec",
    "BackbonesSpec",
    "BetterSpec",
    "BoxStageSpec",
    "CascadeMaskRCNNSpec",
    "CellSpec",
    "ClaimSpec",
    "DataSpec",
    "DeitSpec",
    "DetectorSpec",
    "EarlierSpec",
    "EqualSpec",
    "Expectation",
    "ExperimentSpec",
    "FactorsSpec",
    "FasterSpec",
    "FrameworkSpec",
    "FrameworksSpec",
    "Heads",
    "LimitsSpec",
    "LinearSpec",
    "MaskRCNNSpec",
    "MatchSpec",
    "MlpSpec",
    "Name",
    "OperatorSpec",
    "OrderSpec",
    "OutcomeSpec",
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
    "add_level_fields",
    "find_framework",
    "find_sizes",
]


def add_backbone(name: str, sizes: type[BackboneSpec]) -> None:
    """Let recipes state sizes of a custom backbone; `sizes` is the model of these sizes."""
    BackbonesSpec.model_fields[name] = FieldInfo(annotation=cast("type", sizes | None), default=None)
    _rebuild(BackbonesSpec, RecipeSpec)


def add_level_fields(fields: Iterable[str]) -> None:
    """Let experiments state the fields of a level from a plug-in, which must be in `paradigms.facts.FIELDS`.

    Raises:
        ValueError: a field has the name of another key.
    """
    models = (OperatorSpec, CellSpec, RowSpec)
    for name in [name for name in fields if name not in _LEVEL_FIELDS]:
        if any(name in model.model_fields for model in models):
            raise ValueError(f"a field cannot be called {name!r}, which is another key of experiments")
        for model in models:
            add_field(model, name)
        _LEVEL_FIELDS.add(name)
    _rebuild(*models)


_LEVEL_FIELDS = set(FIELDS)
"""The fields of levels that the models have."""


def _rebuild(*models: type[BaseModel]) -> None:
    """Rebuild the models whose fields have changed, and then every model that contains them."""
    rebuilt: list[type[BaseModel]] = [*models, ExperimentSpec, *ExperimentSpec.__subclasses__()]
    for model in rebuilt:
        model.model_rebuild(force=True)
