"""The operator that a cell, a row or a stage states."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field as Limits
from pydantic import create_model
from pydantic.fields import FieldInfo

from harness.spec.field import MAX_CHANNELS, Channels, ForStages, OneOrMore, Pixels, Spec, described, known
from paradigms.config import BACKENDS, CORE, PROJECTIONS
from paradigms.facts import AGGREGATIONS, BORDERS, FIELDS, NEIGHBORHOODS, NORMALIZATIONS, PARAMETERIZATIONS, Field
from paradigms.presets import PRESETS

Heads = Annotated[
    Channels | Annotated[tuple[Channels, ...], ForStages] | Literal["1x", "2x", "C"],
    described(f"a number from 1 to {MAX_CHANNELS}, a list with one per stage, 1x, 2x or C"),
]
Term = Annotated[str, known("term", PARAMETERIZATIONS)]
Normalization = Annotated[str, known("normalization", NORMALIZATIONS)]
Neighborhood = Annotated[str, known("neighborhood", NEIGHBORHOODS)]
Aggregation = Annotated[str, known("aggregation", AGGREGATIONS)]


def _to_type(name: str, field: Field) -> Any:
    """The type of a field of a level in YAML."""
    if field.kind == "size":
        return Pixels
    if field.kind == "bool":
        return bool
    if field.kind == "name":
        return Annotated[str, known(name, field.names)]
    limits = Limits(ge=field.minimum, gt=field.above, le=field.maximum)
    number: Any = Annotated[int, limits] if field.kind == "int" else Annotated[float, limits]
    return Annotated[number | Literal[field.names], described(field.expected)] if field.names else number


def _make_types(fields: Iterable[str]) -> dict[str, Any]:
    return {name: (_to_type(name, FIELDS[name]) | None, None) for name in fields}


if TYPE_CHECKING:

    class LevelsSpec(Spec):
        """The fields of all levels."""

else:
    LevelsSpec = create_model("LevelsSpec", __base__=Spec, **_make_types(FIELDS))


class OperatorSpec(LevelsSpec):
    """Fields of the operator that a cell, a row or a stage states; None is inherited.

    The fields are those of `paradigms.config.AttentionConfig`, including those of every level
    (`paradigms.facts.FIELDS`). There are two more: `preset` replaces all of them at once; `heads` is one number for all
    stages, a list with one entry per stage, `1x` or `2x` (times those of the backbone), or `C` (one head per channel).
    """

    preset: Annotated[str, known("preset", tuple(PRESETS))] | None = None
    parameterization: Annotated[tuple[Term, ...], OneOrMore] | None = None
    normalization: Normalization | None = None
    neighborhood: Neighborhood | None = None
    aggregation: Aggregation | None = None
    border: Annotated[str, known("border", BORDERS)] | None = None
    projections: Annotated[str, known("projections", PROJECTIONS)] | None = None
    backend: Annotated[str, known("backend", BACKENDS)] | None = None
    heads: Heads | None = None

    def stated(self) -> dict[str, Any]:
        """The stated fields of `AttentionConfig`."""
        return self.model_dump(include={*CORE, *FIELDS}, exclude_none=True)


def add_field(model: type[OperatorSpec], name: str) -> None:
    """Add the field of a plug-in's level to a model; models that contain it must be rebuilt afterwards."""
    model.model_fields[name] = FieldInfo(annotation=_to_type(name, FIELDS[name]) | None, default=None)
