"""Sizes of backbones and floors."""

from types import NoneType
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from harness.spec.field import MAX_WINDOW, Blocks, Channels, ForStages, Probability, Ratio, Side, Spec, known
from paradigms.config import AttentionConfig
from paradigms.facts import INITIALIZATIONS, unknown_name


class BackboneSpec(Spec):
    """Sizes of a backbone (timm's argument names), in lists with one entry per stage.

    `num_heads` is the number of heads of `heads: 1x`. `weight_init` is timm's rule: the empty string initializes linear
    layers with standard deviation 0.02 whatever their width, which suits wide models; `jax` (Xavier) and `reset`
    (torch's own) depend on the width. `initialization` is that of the operators (`paradigms.config.AttentionConfig`)
    unless a row states its own.
    """

    family: ClassVar[str]
    """The backbone: a key of `paradigms.backbones.BACKBONES`."""

    label: ClassVar[str]
    """The name of the family in texts."""

    has_pyramid: ClassVar[bool] = False
    """Whether its stages give maps of several scales for images of any size, which frameworks need."""

    patch_size: Side
    num_heads: Annotated[tuple[Channels, ...], ForStages]
    qkv_bias: bool = True
    drop_path_rate: Probability = 0.0
    weight_init: Literal["", "jax", "moco", "reset"] = ""
    initialization: Annotated[str, known("initialization", INITIALIZATIONS)] = "backbone"

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels of each stage."""
        raise NotImplementedError

    @property
    def operator_stages(self) -> tuple[int, ...]:
        """The stages, from 1, that take operators; all by default."""
        return tuple(range(1, len(self.num_heads) + 1))

    def base_operator(self, _image_size: int) -> AttentionConfig:
        """The operator whose fields a row replaces, on images of this side; Swin's attention by default."""
        return AttentionConfig()

    def own_operator(self, _image_size: int) -> AttentionConfig | None:
        """The operator of rows that state none; None: the attention of timm's model."""
        return None

    def token_grid(self, _image_size: int) -> int | None:
        """Tokens per side of the map that a head over all tokens gets; None: there is no such head."""
        return None

    def require_image(self, image_size: int) -> None:
        """Check that the backbone can be built for images of this size.

        Raises:
            ValueError: it cannot; the message says which sizes are possible.
        """
        if image_size % self.patch_size:
            raise ValueError(f"patch_size must divide image_size, got {self.patch_size} and {image_size}")

    def map_size(self, _stage: int, _image_size: int) -> tuple[int, int] | None:
        """Rows and columns of the map of a stage, from 1; None: unknown until the model is built."""
        return None

    def num_blocks(self, _stage: int) -> int:
        """The number of blocks of a stage, from 1; it matters whether there are two, since every second is shifted."""
        return 2


class SwinSpec(BackboneSpec):
    """Sizes of a Swin; every stage takes operators."""

    family = "swin"
    label = "Swin"
    has_pyramid = True

    embed_dim: Channels
    depths: Annotated[tuple[Blocks, ...], ForStages]
    mlp_ratio: Ratio = 4.0
    window_size: Annotated[int, Field(gt=0, le=MAX_WINDOW)] = 7

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        if len(self.num_heads) != len(self.depths):
            raise ValueError(
                f"depths and num_heads need one entry per stage, got {list(self.depths)} and {list(self.num_heads)}"
            )
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels of each stage."""
        return tuple(self.embed_dim * 2**stage for stage in range(len(self.depths)))

    def map_size(self, stage: int, image_size: int) -> tuple[int, int]:
        """Half as large in every further stage, rounded up."""
        return (-(-(image_size // self.patch_size) // 2 ** (stage - 1)),) * 2

    def num_blocks(self, stage: int) -> int:
        """The number of blocks of a stage."""
        return self.depths[stage - 1]

    def base_operator(self, _image_size: int) -> AttentionConfig:
        """The attention of timm's Swin."""
        return AttentionConfig(window_size=self.window_size)

    def own_operator(self, image_size: int) -> AttentionConfig | None:
        """The attention of Swin, which is an operator of ours too."""
        return self.base_operator(image_size)


class VoloSpec(BackboneSpec):
    """Sizes of a VOLO; stage 1, the Outlookers, takes operators; the others keep timm's global attention.

    `use_aux_head` adds timm's head over all tokens, for token labeling: half of the largest logit of a class among the
    tokens is added to the logit of the class token.
    """

    family = "volo"
    label = "VOLO"

    patch_size: Literal[2, 4, 8, 16] = 8
    stem_hidden_dim: Channels = 64
    layers: Annotated[tuple[Blocks, ...], ForStages]
    embed_dims: Annotated[tuple[Channels, ...], ForStages]
    mlp_ratio: Ratio = 3.0
    qkv_bias: bool = False
    use_aux_head: bool = False

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        lists = {"layers": self.layers, "embed_dims": self.embed_dims, "num_heads": self.num_heads}
        if len({len(entries) for entries in lists.values()}) != 1 or not 2 <= len(self.layers) <= 4:
            got = ", ".join(f"{name} {list(entries)}" for name, entries in lists.items())
            raise ValueError(f"a VOLO has 2 to 4 stages and one entry for each, got {got}")
        if len(set(self.embed_dims[1:])) != 1:
            raise ValueError(f"the stages after the first have one width, got embed_dims {list(self.embed_dims)}")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels of each stage."""
        return self.embed_dims

    @property
    def operator_stages(self) -> tuple[int, ...]:
        """The stage of the Outlookers."""
        return (1,)

    def require_image(self, image_size: int) -> None:
        """The map is halved after stage 1, so that at least two patches per side are needed."""
        super().require_image(image_size)
        if image_size < 2 * self.patch_size:
            raise ValueError(
                f"a VOLO needs 2 patches a side, got patch_size {self.patch_size}, image_size {image_size}"
            )

    def map_size(self, _stage: int, image_size: int) -> tuple[int, int]:
        """The map of stage 1, the only stage with operators."""
        return (image_size // self.patch_size,) * 2

    def num_blocks(self, stage: int) -> int:
        """The number of blocks of a stage."""
        return self.layers[stage - 1]

    def token_grid(self, image_size: int) -> int | None:
        """The map after the downsampling."""
        return image_size // self.patch_size // 2 if self.use_aux_head else None


class DeitSpec(BackboneSpec):
    """Sizes of a DeiT without class token: one stage of `depth` blocks, all of which take operators."""

    family = "deit"
    label = "DeiT"

    patch_size: Side = 16
    embed_dim: Channels
    depth: Blocks = 12
    mlp_ratio: Ratio = 4.0

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        if len(self.num_heads) != 1:
            raise ValueError(f"a DeiT has one stage and num_heads one entry, got {list(self.num_heads)}")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the only stage."""
        return (self.embed_dim,)

    def map_size(self, _stage: int, image_size: int) -> tuple[int, int]:
        """The same in every block."""
        return (image_size // self.patch_size,) * 2

    def num_blocks(self, _stage: int) -> int:
        """The number of all blocks."""
        return self.depth

    def base_operator(self, image_size: int) -> AttentionConfig:
        """The global attention of a DeiT: one window as large as the map, without position terms."""
        return AttentionConfig(parameterization=("query_key",), window_size=image_size // self.patch_size)


class BackbonesSpec(Spec):
    """The sizes of each backbone under a recipe; None: the recipe has no sizes for it.

    The name of a family stands for the size that most tables use: Swin-T, VOLO-D1 and DeiT-Ti in the paper.
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


class LinearSpec(Spec):
    """The floor `linear`: one linear layer on the pixels."""


class MlpSpec(Spec):
    """The floor `mlp`: one hidden layer of `width` units on the pixels."""

    width: Channels


FLOOR_SIZES: dict[str, type[Spec]] = {"linear": LinearSpec, "mlp": MlpSpec}
"""The model of each floor's sizes."""


def find_sizes(family: str) -> type[Spec]:
    """The model of the sizes of a backbone's family, or of a floor.

    Raises:
        ValueError: there is no such family; the message gives the nearest name.
    """
    members = (member for field in BackbonesSpec.model_fields.values() for member in get_args(field.annotation))
    known: dict[str, type[Spec]] = {member.family: member for member in members if member is not NoneType}
    known |= FLOOR_SIZES
    if family not in known:
        raise ValueError(unknown_name("backbone", family, tuple(known)))
    return known[family]


def _check_backbone(name: str) -> str:
    """Check that a backbone has this name."""
    if name not in BackbonesSpec.model_fields:
        raise ValueError(unknown_name("backbone", name, tuple(BackbonesSpec.model_fields)))
    return name


Backbone = Annotated[str, AfterValidator(_check_backbone)]
