"""The model of an experiment: its rows, factors, claims and published numbers."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt, create_model, model_validator

from harness.errors import SpecError
from harness.positions import Positions, to_key_path
from harness.spec.backbone import Backbone
from harness.spec.claim import Claim, Expectation, OutcomeSpec
from harness.spec.field import Line, Name, OneOrMore, Replicates, Side, Spec, described
from harness.spec.framework import Framework
from harness.spec.operator import Aggregation, Neighborhood, Normalization, OperatorSpec, Term
from harness.spec.recipe import RecipeSpec

Stages = Annotated[
    PositiveInt | Literal["all", "last", "not_last"],
    described("a stage's number (from 1), all, last or not_last"),
]
MaxSeeds = Literal[5, 7, 9, 12]
"""The maximal numbers of seeds of a table whose rows get seeds until resolved: `harness.statistics.sequential`."""

SCORE = "score"
"""The key of the column of the deciding measure."""

COLUMNS = ["parameterization", "normalization", "neighborhood", "params", "macs", "throughput", SCORE, "curve", "delta"]
"""The keys for `columns` besides the measures of the task: keys of `harness.table.Column`. Plug-ins add their own."""

Plot = Literal["delta", "curve", "size", "heads"]


class SourceSpec(Spec):
    """The place where the experiment is published."""

    paper: Line
    table: int | None = None
    figure: int | None = None


class CellSpec(OperatorSpec):
    """The common part of all rows.

    `sizes` replaces some sizes of the backbone, by recipe: `{laptop: {mlp_ratio: 3.5}}`. Other recipes keep theirs.
    `framework` is what is put on the backbone for tasks that need one, such as `mask_rcnn`.
    """

    backbone: Backbone = "swin"
    framework: Framework | None = None
    sizes: dict[str, dict[str, Any]] = {}


class MatchSpec(Spec):
    """A size of the backbone that is solved, so that a row costs as much as another one under the recipe.

    Attributes:
        params: the row whose number of parameters is matched; either this or `macs` is stated.
        macs: the row whose number of multiply-adds is matched.
        by: the size that is solved, such as `mlp_ratio` or `embed_dim`.
    """

    params: str | None = None
    macs: str | None = None
    by: str

    @model_validator(mode="after")
    def _check_measure(self) -> Self:
        if (self.params is None) == (self.macs is None):
            raise ValueError("needs either params or macs, the row that it is matched with")
        return self

    @property
    def measure(self) -> Literal["params", "macs"]:
        """The cost that is matched."""
        return "macs" if self.params is None else "params"

    @property
    def row(self) -> str:
        """The row that it is matched with."""
        row = self.macs if self.params is None else self.params
        assert row is not None
        return row


class RowSpec(OperatorSpec):
    """The changes of a row to the cell; `stages` changes some stages only, `under` applies under some recipes only.

    Cell and row apply to every stage whose attention can be replaced; `stages` may name only such stages.

    `init_from` is another row, or a file of weights, from which a recipe with `init_recipe` starts this row; other
    recipes skip the row. From another row, the run of the same seed is used, and this row inherits all of its fields.
    `image_size` replaces that of the recipe.
    `also_changes` names differences from the baseline that no field of the row states, such as `training.lr` or
    `initial_values`; a note under the table lists them. An undeclared one is an error, see `harness.confounds`.
    `sizes` are as in the cell; they are merged with those of the cell unless the row has another backbone. A recipe
    with `init_recipe` also uses the sizes stated for that recipe, here and in `under`.
    `match` lets the plan solve one of the sizes, see `harness.matching`.
    `placebo` makes the row the baseline again with other random streams: a control of the table, whose verdict should
    be unresolved or equivalent. Such a row states nothing else, see `harness.placebo`.
    """

    former_keys = {"expect": "a claim of the experiment: `claims: [{outcome: ROW, status: diverged}]`"}

    backbone: Backbone | None = None
    framework: Framework | None = None
    sizes: dict[str, dict[str, Any]] = {}
    under: dict[str, OperatorSpec] = {}
    stages: dict[Stages, OperatorSpec] = {}
    init_from: str | None = None
    image_size: Side | None = None
    also_changes: Annotated[tuple[Line, ...], OneOrMore] = ()
    match: MatchSpec | None = None
    placebo: bool = False


class FactorsSpec(Spec):
    """Levels of which every combination is a row; factors that are not stated keep the level of the cell.

    `parameterization: subsets` stands for all 15 sets of the four terms of Eq. 4 (arXiv:2112.12786).
    """

    parameterization: (
        Annotated[
            Literal["subsets"] | tuple[Annotated[tuple[Term, ...], Field(min_length=1), OneOrMore], ...],
            described("subsets, or a list of lists of terms"),
        ]
        | None
    ) = None
    normalization: Annotated[tuple[Normalization, ...], OneOrMore] | None = None
    neighborhood: Annotated[tuple[Neighborhood, ...], OneOrMore] | None = None
    aggregation: Annotated[tuple[Aggregation, ...], OneOrMore] | None = None


if TYPE_CHECKING:

    class _SourceRow(Spec):
        """The key `from`, which is a keyword in Python."""

else:
    _SourceRow = create_model("_SourceRow", __base__=Spec, **{"from": (str, ...)})


class AblateSpec(_SourceRow):
    """Rows that are generated from a row, one for each of its parts; see `harness.ablation`.

    Attributes:
        remove: `each`: the row without one part, named `ROW - PART`.
        add: `each`: the baseline with one part of the row, named `BASELINE + PART`.
    """

    remove: Literal["each"] | None = None
    add: Literal["each"] | None = None

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.remove is None and self.add is None:
            raise ValueError("needs remove: each, add: each or both")
        return self

    @property
    def row(self) -> str:
        """The row whose parts are left out or added: the key `from`."""
        row: str = getattr(self, "from")
        return row


class PublishedSpec(Spec):
    """The numbers that the paper prints for a row; further keys are names of the task's measures.

    Attributes:
        params: millions of parameters.
        macs: multiply-adds per image, in 10⁹.
        throughput: images/s.
        curve: the deciding measure by epoch.
        quoted: whether the number is from another paper, not trained by the authors. Names that are not rows must be
            quoted.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float]

    params: PositiveFloat | None = None
    macs: PositiveFloat | None = None
    throughput: PositiveFloat | None = None
    curve: dict[PositiveInt, float] = {}
    quoted: bool = False

    @property
    def scores(self) -> dict[str, float]:
        """The printed value of each measure, by its name."""
        return self.__pydantic_extra__


class ExperimentSpec(Spec):
    """One YAML file with its recipe: one table of the paper, or of a user. `name` is the stem of the file at `path`.

    `seeds_under` replaces the number of seeds under some recipes: `{laptop: 7}`.
    `until_resolved` is the maximal number of seeds of a row that gets seeds until its verdict is resolved; floors keep
    `seeds`. None: every row has `seeds`.
    `measure` is the score for differences, verdicts and claims. None: the first measure of the task.
    `margin` is the largest difference that does not matter, in the unit of that measure; None: its relevant gain.
    `columns` may name any measure of the task; `score` is the deciding one.

    `overrides` are the `--set` pairs that were applied, in order; their results have their own folder.
    `harness.rows.list_rows` lists all rows, including those of `factors` and `ablate`. `plots` are the figures in the
    Markdown of the table, as files in the same folder.
    """

    name: str
    path: Path | None = None
    title: Line
    source: SourceSpec | None = None
    recipe: RecipeSpec
    cell: CellSpec = CellSpec()
    baseline: str
    rows: Annotated[dict[Name, RowSpec], Field(max_length=1_000)] = {}
    factors: FactorsSpec | None = None
    ablate: AblateSpec | None = None
    seeds: Replicates = 3
    seeds_under: dict[str, Replicates] = {}
    until_resolved: MaxSeeds | None = None
    measure: str | None = None
    margin: PositiveFloat | None = None
    columns: Annotated[tuple[str, ...], OneOrMore] = ("params", "macs", "throughput", SCORE, "delta")
    plots: Annotated[tuple[Plot, ...], OneOrMore] = ()
    published: dict[Name, PublishedSpec] = {}
    claims: tuple[Claim, ...] = ()
    overrides: tuple[str, ...] = ()
    _positions: Positions | None = None

    def with_positions(self, positions: Positions | None) -> Self:
        """The same experiment with positions for its errors; None: errors report the keys only."""
        spec = self.model_copy()
        spec._positions = positions
        return spec

    def error(self, message: str, *key: str | int) -> SpecError:
        """Make an error at `key` with its position: an option, or file and line."""
        if self._positions is None:
            return SpecError(message, key=to_key_path(key))
        return self._positions.error(message, *key)

    def find_expected(self, row: str) -> Expectation | None:
        """The outcome that a claim states for a row."""
        outcomes = (claim for claim in self.claims if isinstance(claim, OutcomeSpec) and row in claim.outcome)
        return next((claim.status for claim in outcomes), None)

    @property
    def shown_overrides(self) -> str:
        """The overrides as one text, quoted for a shell, as an argument of `--set`."""
        return shlex.join(self.overrides)
