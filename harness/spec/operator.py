"""The operator that a cell, a row or a stage states."""

from typing import Annotated, Any, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from harness.spec.field import MAX_CHANNELS, Channels, ForStages, OneOrMore, Pixels, Ratio, Spec, described, known
from paradigms.config import (
    AGGREGATIONS,
    BACKENDS,
    BORDERS,
    COMBINATIONS,
    GHOST_MAPS,
    GHOST_STARTS,
    INITIALIZATIONS,
    NEIGHBORHOODS,
    NORMALIZATIONS,
    PARAMETERIZATIONS,
    PROJECTIONS,
    AttentionConfig,
)
from paradigms.presets import PRESETS

Heads = Annotated[
    Channels | Annotated[tuple[Channels, ...], ForStages] | Literal["1x", "2x", "C"],
    described(f"a number from 1 to {MAX_CHANNELS}, a list with one per stage, 1x, 2x or C"),
]
GhostHeads = Annotated[Channels | Literal["2x", "C"], described(f"a number from 1 to {MAX_CHANNELS}, 2x or C")]
Term = Annotated[str, known("term", PARAMETERIZATIONS)]
Normalization = Annotated[str, known("normalization", NORMALIZATIONS)]
Neighborhood = Annotated[str, known("neighborhood", NEIGHBORHOODS)]
Aggregation = Annotated[str, known("aggregation", AGGREGATIONS)]


class OperatorSpec(Spec):
    """Fields of the operator that a cell, a row or a stage states; what is None is inherited.

    The fields are those of `paradigms.config.AttentionConfig`, and besides `preset`, which replaces all of them at
    once, and `heads`: one number for every stage, a list per stage, `1x` or `2x` of the backbone's, `C` for as many
    heads as channels.
    """

    preset: Annotated[str, known("preset", tuple(PRESETS))] | None = None
    parameterization: Annotated[tuple[Term, ...], OneOrMore] | None = None
    normalization: Normalization | None = None
    neighborhood: Neighborhood | None = None
    aggregation: Aggregation | None = None
    window_size: Pixels | None = None
    shift_size: Pixels | None = None
    kernel_size: Pixels | None = None
    dilation: Pixels | None = None
    chunk_size: Pixels | None = None
    exact: bool | None = None
    border: Annotated[str, known("border", sorted({b for names in BORDERS.values() for b in names}))] | None = None
    group_width: Channels | None = None
    hadamard_size: Pixels | None = None
    ghost_lambda: NonNegativeFloat | None = None
    ghost_gamma: NonNegativeFloat | None = None
    ghost_heads: GhostHeads | None = None
    ghost_map: Annotated[str, known("ghost_map", GHOST_MAPS)] | None = None
    ghost_start: Annotated[str, known("ghost_start", GHOST_STARTS)] | None = None
    ghost_rate: PositiveFloat | None = None
    se_ratio: Ratio | None = None
    combine: Annotated[str, known("combine", COMBINATIONS)] | None = None
    projections: Annotated[str, known("projections", PROJECTIONS)] | None = None
    initialization: Annotated[str, known("initialization", INITIALIZATIONS)] | None = None
    backend: Annotated[str, known("backend", BACKENDS)] | None = None
    heads: Heads | None = None

    def stated(self) -> dict[str, Any]:
        """The fields of `AttentionConfig` that stand here."""
        return self.model_dump(include=set(AttentionConfig.__dataclass_fields__), exclude_none=True)
