"""What a user writes, frozen: an experiment, its rows, its recipe.

The shape of a file is the shape of these models: YAML keys are field names. `harness.reading` reads them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.fields import FieldInfo

from paradigms.config import (
    AGGREGATIONS,
    BACKENDS,
    BORDERS,
    COMBINATIONS,
    GHOST_MAPS,
    GHOST_STARTS,
    NEIGHBORHOODS,
    NORMALIZATIONS,
    PARAMETERIZATIONS,
    PROJECTIONS,
    AttentionConfig,
    Size,
    unknown_name,
)
from paradigms.presets import PRESETS


def _known(kind: str, names: Sequence[str]) -> AfterValidator:
    """A name that is one of `names`; another one is told with the nearest."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(unknown_name(kind, name, tuple(names)))
        return name

    return AfterValidator(check)


def _described(expected: str) -> WrapValidator:
    """One message for a value that may have several types."""

    def check(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError:
            shown = list(value) if isinstance(value, tuple) else value
            raise ValueError(f"must be {expected}, got {shown!r}") from None

    return WrapValidator(check)


def _check_backbone(name: str) -> str:
    """A name that a recipe may give sizes to; `BackbonesSpec` stands further down."""
    if name not in BackbonesSpec.model_fields:
        raise ValueError(unknown_name("backbone", name, tuple(BackbonesSpec.model_fields)))
    return name


Backbone = Annotated[str, AfterValidator(_check_backbone)]
Probability = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[Size, _described("a number of pixels or [rows, columns]")]
Heads = Annotated[
    PositiveInt | tuple[PositiveInt, ...] | Literal["1x", "2x", "C"],
    _described("a positive number, a list with one per stage, 1x, 2x or C"),
]
GhostHeads = Annotated[PositiveInt | Literal["2x", "C"], _described("a positive number, 2x or C")]
Stages = Annotated[
    PositiveInt | Literal["all", "last", "not_last"],
    _described("a stage's number (from 1), all, last or not_last"),
]
Term = Annotated[str, _known("term", PARAMETERIZATIONS)]
Normalization = Annotated[str, _known("normalization", NORMALIZATIONS)]
Neighborhood = Annotated[str, _known("neighborhood", NEIGHBORHOODS)]
Aggregation = Annotated[str, _known("aggregation", AGGREGATIONS)]
Expectation = Literal["diverged", "out_of_memory", "timed_out"]
Column = Literal[
    "parameterization", "normalization", "neighborhood", "params", "macs", "throughput", "top1", "curve", "delta"
]
Plot = Literal["delta", "curve", "size", "heads"]


class Spec(BaseModel):
    """A part of a file: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SourceSpec(Spec):
    """Where the experiment is printed."""

    paper: str
    table: int | None = None
    figure: int | None = None


class OperatorSpec(Spec):
    """Fields of the operator that a cell, a row or a stage states; what is None is inherited.

    The fields are those of `paradigms.config.AttentionConfig`, and besides `preset`, which replaces all of them at
    once, and `heads`: one number for every stage, a list per stage, `1x` or `2x` of the backbone's, `C` for as many
    heads as channels.
    """

    preset: Annotated[str, _known("preset", tuple(PRESETS))] | None = None
    parameterization: tuple[Term, ...] | None = None
    normalization: Normalization | None = None
    neighborhood: Neighborhood | None = None
    aggregation: Aggregation | None = None
    window_size: Pixels | None = None
    shift_size: Pixels | None = None
    kernel_size: Pixels | None = None
    dilation: Pixels | None = None
    chunk_size: Pixels | None = None
    exact: bool | None = None
    border: Annotated[str, _known("border", sorted({b for names in BORDERS.values() for b in names}))] | None = None
    group_width: PositiveInt | None = None
    hadamard_size: Pixels | None = None
    ghost_lambda: NonNegativeFloat | None = None
    ghost_gamma: NonNegativeFloat | None = None
    ghost_heads: GhostHeads | None = None
    ghost_map: Annotated[str, _known("ghost_map", GHOST_MAPS)] | None = None
    ghost_start: Annotated[str, _known("ghost_start", GHOST_STARTS)] | None = None
    ghost_rate: PositiveFloat | None = None
    se_ratio: PositiveFloat | None = None
    combine: Annotated[str, _known("combine", COMBINATIONS)] | None = None
    projections: Annotated[str, _known("projections", PROJECTIONS)] | None = None
    backend: Annotated[str, _known("backend", BACKENDS)] | None = None
    heads: Heads | None = None

    def stated(self) -> dict[str, Any]:
        """The fields of `AttentionConfig` that stand here."""
        return self.model_dump(include=set(AttentionConfig.__dataclass_fields__), exclude_none=True)


class CellSpec(OperatorSpec):
    """Where every row starts.

    `sizes` replaces some of the backbone's sizes, by recipe: `{laptop: {mlp_ratio: 3.5}}`. Other recipes keep theirs.
    """

    backbone: Backbone = "swin"
    sizes: dict[str, dict[str, Any]] = {}


class RowSpec(OperatorSpec):
    """What a row changes of the cell; `stages` replaces fields in some stages only, `under` under some recipes only.

    What the cell and the row state holds in every stage whose attention can be replaced; `stages` may name those alone.

    `init_from` is another row, or a file of weights, from which a recipe with `init_recipe` starts this one; other
    recipes skip it. Of another row it is the run of the same seed, and this row is that one but for what it states.
    `image_size` replaces the recipe's.
    `expect` is the outcome that the paper reports for a row without a number. It adds a verdict and changes nothing.
    `sizes` are those of a cell; they stand beside the cell's unless the row has a backbone of its own. A recipe with
    `init_recipe` takes what is stated here, and `under`, for that recipe too.
    """

    backbone: Backbone | None = None
    sizes: dict[str, dict[str, Any]] = {}
    under: dict[str, OperatorSpec] = {}
    stages: dict[Stages, OperatorSpec] = {}
    init_from: str | None = None
    image_size: PositiveInt | None = None
    expect: Expectation | None = None


class FactorsSpec(Spec):
    """Levels whose every combination is a row; a factor that is not stated stays the cell's.

    `parameterization: subsets` stands for all 15 sets of the four terms of Eq. 4 (arXiv:2112.12786).
    """

    parameterization: (
        Annotated[
            Literal["subsets"] | tuple[Annotated[tuple[Term, ...], Field(min_length=1)], ...],
            _described("subsets, or a list of lists of terms"),
        ]
        | None
    ) = None
    normalization: tuple[Normalization, ...] | None = None
    neighborhood: tuple[Neighborhood, ...] | None = None
    aggregation: tuple[Aggregation, ...] | None = None


class ClaimSpec(Spec):
    """A sentence of the paper made checkable: the first row has a better top-1 than the second."""

    better: tuple[str, str]
    source: str | None = None


class PublishedSpec(Spec):
    """What the paper prints for a row.

    Attributes:
        top1: percent.
        params: millions.
        macs: multiply-adds an image, 10⁹.
        throughput: images/s.
        curve: top-1 in percent by epoch.
        quoted: from another paper, not trained by the authors. A name that is no row can only be quoted.
    """

    top1: float | None = None
    params: PositiveFloat | None = None
    macs: PositiveFloat | None = None
    throughput: PositiveFloat | None = None
    curve: dict[PositiveInt, float] = {}
    quoted: bool = False


class AugmentationSpec(Spec):
    """Random changes of training images. The first block works on batches in memory, the second on image files.

    Attributes:
        hflip: probability of a horizontal flip.
        shift: largest translation in pixels; what moves in is black.
        reprob: probability of random erasing (pixel mode).
        scale: area of the random crop, of the image's.
        auto_augment: timm's policy string.
        color_jitter: strength; without effect where `auto_augment` is set, as in timm.
        mixup: alpha; 0 is off.
        cutmix: alpha; 0 is off.
    """

    hflip: Probability = 0.0
    shift: NonNegativeInt = 0
    reprob: Probability = 0.0
    scale: tuple[Probability, Probability] | None = None
    auto_augment: str | None = None
    color_jitter: NonNegativeFloat | None = None
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0


class DataSpec(Spec):
    """Which images. `train_images` and `val_images` are stratified, disjoint samples of the training set.

    Attributes:
        name: a dataset family, a key of `harness.data.DATASETS`.
        image_size: side in pixels of what the model sees.
        train_images: how many are trained on; None means all that validation leaves.
        val_images: how many are held out for every curve and choice; 0 means that the test set is used for both.
        test_images: how many of the test set are measured; None means all.
        source: timm's name of a dataset (family `timm` alone).
        train_split: the dataset's own name of what is trained on (likewise).
        test_split: the dataset's own name of the test set (likewise).
        crop_pct: the part of the image that evaluation keeps (image files only).
        interpolation: how image files are resized.
        loading_workers: processes that decode image files; 0 decodes in the run's own process.
    """

    name: str
    num_classes: PositiveInt
    channels: PositiveInt
    image_size: PositiveInt
    train_images: PositiveInt | None = None
    val_images: NonNegativeInt
    test_images: PositiveInt | None = None
    source: str | None = None
    train_split: str = "train"
    test_split: str = "validation"
    crop_pct: Probability = 1.0
    interpolation: str = "bicubic"
    loading_workers: NonNegativeInt = 0


class BackboneSpec(Spec):
    """Sizes of a backbone (timm's argument names), in lists with one entry per stage.

    `num_heads` is what `heads: 1x` means. `weight_init` is timm's: the empty string draws linear layers with standard
    deviation 0.02 whatever their width, which suits wide models; `jax` (Xavier) and `reset` (torch's own) follow the
    width.
    """

    family: ClassVar[str]
    """The level that it is a size of: a key of `paradigms.backbones.BACKBONES`."""

    patch_size: PositiveInt
    num_heads: tuple[PositiveInt, ...]
    mlp_ratio: PositiveFloat = 4.0
    qkv_bias: bool = True
    drop_path_rate: Probability = 0.0
    weight_init: Literal["", "jax", "moco", "reset"] = ""

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        raise NotImplementedError

    @property
    def operator_stages(self) -> tuple[int, ...]:
        """The stages, from 1, whose attention can be replaced."""
        raise NotImplementedError

    def base_operator(self, image_size: int) -> AttentionConfig:
        """What a row that states an operator starts from, on images of this side."""
        raise NotImplementedError

    def own_operator(self, _image_size: int) -> AttentionConfig | None:
        """What stands where a row states no operator; None: the attention that timm's model has."""
        return None

    def token_grid(self, _image_size: int) -> int | None:
        """Tokens a side of the map that a head over all tokens sees; None: there is no such head."""
        return None


class SwinSpec(BackboneSpec):
    """Sizes of a Swin; every stage takes operators."""

    family = "swin"

    embed_dim: PositiveInt
    depths: tuple[PositiveInt, ...]
    window_size: PositiveInt = 7

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        if len(self.num_heads) != len(self.depths):
            raise ValueError(
                f"depths and num_heads need one entry per stage, got {list(self.depths)} and {list(self.num_heads)}"
            )
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.embed_dim * 2**stage for stage in range(len(self.depths)))

    @property
    def operator_stages(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(range(1, len(self.depths) + 1))

    def base_operator(self, _image_size: int) -> AttentionConfig:
        """Swin's own attention."""
        return AttentionConfig(window_size=self.window_size)

    def own_operator(self, image_size: int) -> AttentionConfig | None:
        """Swin's own attention is an operator like any other."""
        return self.base_operator(image_size)


class VoloSpec(BackboneSpec):
    """Sizes of a VOLO; stage 1, the Outlookers, takes operators, the others are global attention and stay timm's.

    `use_aux_head` adds timm's head over all tokens, which is made for token labeling: half of a class's largest logit
    among the tokens is added to that of the class token.
    """

    family = "volo"

    patch_size: Literal[2, 4, 8, 16] = 8
    stem_hidden_dim: PositiveInt = 64
    layers: tuple[PositiveInt, ...]
    embed_dims: tuple[PositiveInt, ...]
    mlp_ratio: PositiveFloat = 3.0
    qkv_bias: bool = False
    use_aux_head: bool = False

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        lists = {"layers": self.layers, "embed_dims": self.embed_dims, "num_heads": self.num_heads}
        if len({len(entries) for entries in lists.values()}) != 1 or not 2 <= len(self.layers) <= 4:
            told = ", ".join(f"{name} {list(entries)}" for name, entries in lists.items())
            raise ValueError(f"a VOLO has 2 to 4 stages and one entry for each, got {told}")
        if len(set(self.embed_dims[1:])) != 1:
            raise ValueError(f"the stages after the first have one width, got embed_dims {list(self.embed_dims)}")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return self.embed_dims

    @property
    def operator_stages(self) -> tuple[int, ...]:
        """The Outlookers."""
        return (1,)

    def base_operator(self, _image_size: int) -> AttentionConfig:
        """Swin's attention in its own window: an Outlooker has none."""
        return AttentionConfig()

    def token_grid(self, image_size: int) -> int | None:
        """Of the map behind the downsampling."""
        return image_size // self.patch_size // 2 if self.use_aux_head else None


class DeitSpec(BackboneSpec):
    """Sizes of a DeiT without class token: one stage of `depth` blocks, all of which take operators."""

    family = "deit"

    patch_size: PositiveInt = 16
    embed_dim: PositiveInt
    depth: PositiveInt = 12

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        if len(self.num_heads) != 1:
            raise ValueError(f"a DeiT has one stage and num_heads one entry, got {list(self.num_heads)}")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the only stage."""
        return (self.embed_dim,)

    @property
    def operator_stages(self) -> tuple[int, ...]:
        """The only one."""
        return (1,)

    def base_operator(self, image_size: int) -> AttentionConfig:
        """The global attention of a DeiT: one window as large as the map, no term of position."""
        return AttentionConfig(parameterization=("query_key",), window_size=image_size // self.patch_size)


class LinearSpec(Spec):
    """The floor `linear`: one linear layer on the pixels."""


class MlpSpec(Spec):
    """The floor `mlp`: one hidden layer of `width` units on the pixels."""

    width: PositiveInt


class BackbonesSpec(Spec):
    """What each backbone's name means under a recipe; None: the recipe does not have it.

    A family's own name is the size that most tables use: Swin-T, VOLO-D1 and DeiT-Ti in the paper.
    """

    swin: SwinSpec | None = None
    swin_small: SwinSpec | None = None
    swin_base: SwinSpec | None = None
    volo: VoloSpec | None = None
    volo_d2: VoloSpec | None = None
    volo_d3: VoloSpec | None = None
    volo_d4: VoloSpec | None = None
    volo_d5: VoloSpec | None = None
    deit: DeitSpec | None = None


class TokenLabelsSpec(Spec):
    """Token labeling (arXiv:2104.10858): every token learns classes of its own, read from the label map of its image.

    The label maps lie in `label_maps/` of the data's folder. Needs a backbone with a head over all tokens.

    Attributes:
        grid: tokens a side of the map that the head sees.
        weight: of the tokens' mean loss, beside that of the image.
        mix_token: alpha of the Beta distribution from which MixToken draws the area that it leaves in place; 0 is off.
    """

    grid: PositiveInt
    weight: PositiveFloat = 0.5
    mix_token: NonNegativeFloat = 1.0


class TrainingSpec(Spec):
    """How a run is trained; every duration is in epochs and becomes steps in `harness.optim`.

    Attributes:
        opt: timm's name of the optimizer.
        lr: the peak learning rate, at `lr_base_size` images a step where that is given.
        lr_base_size: scales `lr` linearly with `batch_size`; None: `lr` is taken as it is.
        epochs: warm-up and cosine, without the cool-down.
        cooldown_epochs: further epochs at `min_lr`.
        warmup_lr: where warm-up starts.
        clip_grad: largest norm of all gradients; None: no clipping.
        smoothing: label smoothing.
        position_decay: weight decay of position tables too.
        ema_decay: evaluates an exponential moving average of the weights; None: the weights themselves.
        amp: automatic mixed precision (bfloat16 on CPU, float16 with loss scaling on CUDA).
        augmentation: random changes of the images.
        token_labels: what the tokens are trained on; None: the class of the image alone is learned.
    """

    opt: str = "adamw"
    lr: PositiveFloat
    lr_base_size: PositiveInt | None = None
    batch_size: PositiveInt
    weight_decay: NonNegativeFloat = 0.05
    position_decay: bool = False
    epochs: PositiveInt
    warmup_epochs: NonNegativeFloat = 0.0
    cooldown_epochs: NonNegativeInt = 0
    warmup_lr: NonNegativeFloat = 0.0
    min_lr: NonNegativeFloat = 0.0
    clip_grad: PositiveFloat | None = None
    smoothing: Probability = 0.0
    ema_decay: Probability | None = None
    amp: bool = False
    augmentation: AugmentationSpec = AugmentationSpec()
    token_labels: TokenLabelsSpec | None = None

    @model_validator(mode="after")
    def _check_mixing(self) -> Self:
        mixed = [name for name in ("mixup", "cutmix") if getattr(self.augmentation, name) > 0]
        if self.token_labels is not None and mixed:
            raise ValueError(
                f"token_labels have MixToken in place of mixup and cutmix: set augmentation.{mixed[0]} to 0"
            )
        return self

    @property
    def total_epochs(self) -> int:
        """All that are trained, those of the cool-down too."""
        return self.epochs + self.cooldown_epochs

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs must not exceed epochs, got {self.warmup_epochs} of {self.epochs}")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr must not exceed lr, got {self.min_lr} and {self.lr}")
        return self


class LimitsSpec(Spec):
    """What a run may use; beyond it the run ends as `timed_out` or `out_of_memory`. None: no limit."""

    time_limit_minutes: PositiveFloat | None = None
    memory_limit_gb: PositiveFloat | None = None


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what `changes` replace; of a mapping in both they replace only what they state."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


class RecipeSpec(Spec):
    """Data, model sizes and schedule: what every row of a table shares. `name` is the stem of the file at `path`.

    `training_of` is the exception: for a backbone that is trained otherwise, the fields of `training` that differ. What
    rows these are stands under every table.

    `workers` is how many runs execute at once when the command line does not say. `note` stands under every table.
    `floor_width` is the hidden width of the network with one hidden layer that, beside a linear classifier, is trained
    on the same images as a floor: choose it so that its parameters equal the baseline's. None: no floors.
    `device_batch_size` is how many images of a step one GPU is meant to hold: `harness plan` forecasts the memory that
    they need. None: no forecast. It changes nothing that is trained.
    `init_recipe`, in a file its name, is the recipe whose runs rows with `init_from` start from; rows without are
    skipped. None: every row is trained from scratch.
    """

    name: str
    path: Path | None = None
    title: str
    note: str | None = None
    workers: PositiveInt = 1
    floor_width: PositiveInt | None = None
    device_batch_size: PositiveInt | None = None
    data: DataSpec
    backbones: BackbonesSpec
    training: TrainingSpec
    training_of: dict[Backbone, TrainingSpec] = {}
    limits: LimitsSpec = LimitsSpec()
    init_recipe: "RecipeSpec | None" = None

    @model_validator(mode="before")
    @classmethod
    def _complete_training_of(cls, stated: Any) -> Any:
        """What a backbone's training does not state is that of all."""
        shared, own = (stated.get(name) for name in ("training", "training_of"))
        if not isinstance(shared, Mapping) or not isinstance(own, Mapping):
            return stated
        try:
            TrainingSpec.model_validate(shared)
        except ValidationError:  # is told where it stands, not once more for each backbone
            return {**stated, "training_of": {}}
        complete = {
            name: _merge(shared, changes) if isinstance(changes, Mapping) else changes for name, changes in own.items()
        }
        return {**stated, "training_of": complete}

    @model_validator(mode="after")
    def _check_training_of(self) -> Self:
        sized = [name for name, sizes in self.backbones if sizes is not None]
        idle = [name for name in self.training_of if name not in sized]
        if idle:
            raise ValueError(f"training_of: the recipe has no backbone {', '.join(idle)}; it has {', '.join(sized)}")
        return self

    @model_validator(mode="after")
    def _check_floors(self) -> Self:
        if self.floor_width is not None and self.training.token_labels is not None:
            raise ValueError("floors have no tokens: state token_labels under training_of, or floor_width: null")
        if self.floor_width is not None and self.init_recipe is not None:
            raise ValueError("floor_width: floors are trained from scratch, a recipe with init_recipe has none")
        return self


class ExperimentSpec(Spec):
    """One YAML file with its recipe: one table of the paper, or of a user. `name` is the stem of the file at `path`.

    `overrides` are the `--set` pairs that were applied, in order: results made with them are kept apart. What rows
    there are, those of `factors` included, `harness.rows.list_rows` says. `plots` are the figures that stand in the
    table's Markdown, as files beside it.
    """

    name: str
    path: Path | None = None
    title: str
    source: SourceSpec | None = None
    recipe: RecipeSpec
    cell: CellSpec = CellSpec()
    baseline: str
    rows: dict[str, RowSpec] = {}
    factors: FactorsSpec | None = None
    seeds: PositiveInt = 3
    columns: tuple[Column, ...] = ("params", "macs", "throughput", "top1", "delta")
    plots: tuple[Plot, ...] = ()
    published: dict[str, PublishedSpec] = {}
    claims: tuple[ClaimSpec, ...] = ()
    overrides: tuple[str, ...] = ()


def add_backbone(name: str, sizes: type[BackboneSpec]) -> None:
    """Let recipes give sizes to a backbone of one's own; `sizes` is the model of what they say of it."""
    BackbonesSpec.model_fields[name] = FieldInfo(annotation=cast("type", sizes | None), default=None)
    for model in (BackbonesSpec, RecipeSpec, ExperimentSpec):
        model.model_rebuild(force=True)
