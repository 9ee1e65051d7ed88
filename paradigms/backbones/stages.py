"""Puts operators in place of attention or convolution in a backbone's stages; follows changes of map size."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from timm.models import named_apply
from timm.models.vision_transformer import get_init_weights_vit
from torch import Tensor, nn

from paradigms.attention import LocalAttention, build_attention
from paradigms.config import AttentionConfig
from paradigms.facts import to_pair
from paradigms.functional import Geometry
from paradigms.requirements import MapSize, choose_shift, fit_window


@dataclass(frozen=True, kw_only=True)
class Place:
    """The properties of a block that its operator must match.

    Attributes:
        dim: channels.
        num_heads: heads of the operator; they divide `dim`.
        qkv_bias: whether the query, key and value projections have a bias.
        attn_drop: probability of dropping a weight.
        proj_drop: probability of dropping an output channel.
    """

    dim: int
    num_heads: int
    qkv_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The config of an operator and its place in a block, to build the operator for any map.

    Attributes:
        map_size: the map that the window of the config is stated for.
        depth: the block's index in its stage; every second one shifts its windows.
    """

    config: AttentionConfig
    map_size: MapSize
    depth: int
    place: Place

    def target_window(self, map_size: MapSize) -> tuple[MapSize, MapSize]:
        """The window, scaled with the map, and the shift: half a window in every second block unless stated."""
        window = to_pair(self.config.window_size)
        if map_size != self.map_size:
            rows, columns = (
                max(1, w * new // old) for w, new, old in zip(window, map_size, self.map_size, strict=True)
            )
            window = rows, columns
        return window, self.target_shift(window)

    def target_shift(self, window: MapSize) -> MapSize:
        """The shift of windows of this size, on a map that is large enough."""
        return choose_shift(self.config, window, self.depth)

    def build(self, window_size: MapSize, shift_size: MapSize) -> LocalAttention:
        """The operator with windows of this size."""
        return build_attention(self.config, window_size=window_size, shift_size=shift_size, **vars(self.place))


class Fitted(NamedTuple):
    """An operator with its placement."""

    placement: Placement
    operator: LocalAttention


class ChannelsFirst(nn.Module):
    """An operator in place of a convolution.

    Shape:
        (batch, dim, height, width) to the same.
    """

    def __init__(self, operator: LocalAttention) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """Apply the operator to the map with channels last."""
        return self.operator(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class OperatorStages:
    """A backbone in which operators can replace the attention or convolution of blocks, stage by stage.

    A subclass derives from this class and from a model of timm. It defines `operator_stages`, `num_stages`,
    `list_blocks` and `get_map_size`, and calls `set_operators` at the end of its `__init__`. If its blocks have no
    attention of timm named `attn`, it also overrides `describe_place` and `put_operator`.
    """

    operator_stages: tuple[int, ...]
    """The stages, from 1, that take operators."""

    @property
    def num_stages(self) -> int:
        """Number of stages, with or without operators."""
        raise NotImplementedError

    def list_blocks(self, stage: int) -> Iterable[nn.Module]:
        """The blocks of a stage, from 1; each takes one operator."""
        raise NotImplementedError

    def get_map_size(self, stage: int) -> MapSize:
        """Rows and columns of the map in the blocks of a stage."""
        raise NotImplementedError

    def describe_place(self, _stage: int, block: nn.Module) -> Place:
        """Channels, heads, bias and dropout of the operator in a block; by default those of timm's `attn`."""
        attn = cast("Any", block).attn
        values = attn.v if hasattr(attn, "v") else attn.qkv
        return Place(
            dim=attn.proj.out_features,
            num_heads=attn.num_heads,
            qkv_bias=values.bias is not None,
            attn_drop=attn.attn_drop.p,
            proj_drop=attn.proj_drop.p,
        )

    def put_operator(self, block: nn.Module, operator: LocalAttention, _map_size: MapSize) -> None:
        """Put `operator`, or a module around it, into a block; by default as `block.attn`."""
        block.attn = operator

    def get_operator(self, block: nn.Module) -> LocalAttention:
        """The operator that was put into a block."""
        return next(module for module in block.modules() if isinstance(module, LocalAttention))

    def _fit(self, _block: nn.Module, map_size: MapSize, placement: Placement) -> tuple[MapSize, MapSize]:
        """Window and shift of an operator on this map."""
        return fit_window(map_size, *placement.target_window(map_size))

    def set_operators(self, attention: Sequence[AttentionConfig | None]) -> None:
        """Put an operator into every stage; None keeps the present layers. New weights follow the backbone's rule.

        Raises:
            ValueError: the number of entries is not that of the stages, the attention of a stage cannot be replaced, or
                an operator does not fit the width of its stage. Nothing is replaced then.
        """
        if len(attention) != self.num_stages:
            raise ValueError(
                f"{self.num_stages} stages need one operator each, got {len(attention)}; None keeps timm's attention"
            )
        chosen = {stage: config for stage, config in enumerate(attention, start=1) if config is not None}
        fixed = sorted(set(chosen) - set(self.operator_stages))
        if fixed:
            raise ValueError(
                f"the attention of stages {fixed} cannot be replaced, that of stages {list(self.operator_stages)} can"
            )
        prepared = {stage: self._prepare(stage, config) for stage, config in chosen.items()}
        for stage, fitted in prepared.items():
            self._install(stage, fitted)

    def _prepare(self, stage: int, config: AttentionConfig) -> list[Fitted]:
        """The operators of a stage, block by block; changes nothing."""
        map_size, prepared = self.get_map_size(stage), []
        for depth, block in enumerate(self.list_blocks(stage)):
            earlier = _find_placement(block)
            place = self.describe_place(stage, block) if earlier is None else earlier.place
            placement = Placement(config=config, map_size=map_size, depth=depth, place=place)
            weight = next(block.parameters())
            operator = placement.build(*self._fit(block, map_size, placement)).to(weight.device, weight.dtype)
            named_apply(get_init_weights_vit(self._weight_init(), needs_reset=False), operator, name="attn")
            prepared.append(Fitted(placement, operator.train(block.training)))
        return prepared

    def _install(self, stage: int, prepared: Sequence[Fitted]) -> None:
        """Replace the attention of a stage's blocks."""
        for block, (placement, operator) in zip(self.list_blocks(stage), prepared, strict=True):
            block.placement = placement  # type: ignore[assignment]  # plain data beside the modules
            self.put_operator(block, operator, placement.map_size)

    def fit_operators(self) -> None:
        """Fit windows to the present maps; position tables that depend on the window are interpolated."""
        for stage in self.operator_stages:
            map_size = self.get_map_size(stage)
            for block in self.list_blocks(stage):
                placement = _find_placement(block)
                if placement is not None:
                    window, shift = self._fit(block, map_size, placement)
                    self.put_operator(block, refit(self.get_operator(block), placement, window, shift), map_size)

    def operators(self) -> Iterator[tuple[int, MapSize, LocalAttention]]:
        """The stage (from 1), the map (rows, columns) and the operator of every block that has one, in order."""
        for stage in self.operator_stages:
            for block in self.list_blocks(stage):
                if _find_placement(block) is not None:
                    yield stage, self.get_map_size(stage), self.get_operator(block)

    def _weight_init(self) -> str:
        """The rule that initializes the backbone, by timm's name."""
        return cast("str", getattr(self, "weight_init_mode", ""))


def _find_placement(block: nn.Module) -> Placement | None:
    """The placement of the operator in a block; None for timm's own attention."""
    return block.__dict__.get("placement")


def refit(operator: LocalAttention, placement: Placement, window: MapSize, shift: MapSize) -> LocalAttention:
    """Rebuild an operator with another window; if nothing changes, the operator itself is returned.

    Tables with one entry per offset are interpolated as in timm; those of a sliding window do not depend on the map.

    Raises:
        ValueError: a parameter depends on the window in another way.
    """
    fitted = placement.build(window, shift)
    before, after = operator.neighborhood.geometry, fitted.neighborhood.geometry
    if before == after:
        return operator
    weights = operator.state_dict()
    for name, parameter in fitted.state_dict().items():
        if weights[name].shape != parameter.shape:
            weights[name] = resize_table(name, weights[name], before, after)
    fitted.to(next(operator.parameters()).device, next(operator.parameters()).dtype)
    fitted.load_state_dict(weights)
    trained = dict(operator.named_parameters())
    for name, parameter in fitted.named_parameters():
        parameter.requires_grad_(trained[name].requires_grad)
    return fitted.train(operator.training)


@torch.no_grad()
def resize_table(name: str, table: Tensor, before: Geometry, after: Geometry) -> Tensor:
    """Interpolate a table over offsets, (first, offsets, ...), from one window to another.

    Raises:
        ValueError: the second axis of the table is not the offsets.
    """
    if table.ndim < 2 or table.shape[1] != before.num_offsets:
        raise ValueError(f"{name} depends on the window but is not a table over offsets: shape {tuple(table.shape)}")
    rows = table.movedim(1, 0)
    resized: Tensor = resize_rel_pos_bias_table(
        rows.flatten(1),
        new_window_size=after.kernel_size,
        new_bias_shape=(after.num_offsets, rows[0].numel()),
        old_window_size=before.kernel_size,
    )
    return resized.reshape(-1, *rows.shape[1:]).movedim(0, 1).contiguous()
