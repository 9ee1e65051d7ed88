"""timm's Swin Transformer (arXiv:2103.14030) with operators in its blocks."""

from collections.abc import Sequence
from typing import Any, cast

from jaxtyping import Float
from timm.models import swin_transformer as timm_swin
from torch import Tensor, nn

from paradigms.attention import LocalAttention
from paradigms.backbones.stages import Fitted, OperatorStages, Placement, refit
from paradigms.config import AttentionConfig
from paradigms.facts import Size, to_pair
from paradigms.requirements import MapSize


class SwinBlock(timm_swin.SwinTransformerBlock):
    """timm's block with an operator that shifts, pads and partitions the map itself."""

    placement: Placement

    def _attn(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        return self.attn(x)  # type: ignore[no-any-return]

    def _init_buffers(self) -> None:
        """Create no mask: the operator has its own."""

    def set_input_size(self, feat_size: MapSize, window_size: Size, always_partition: bool | None = None) -> None:
        """Fit the operator to a map, with the window size that timm has scaled."""
        self.input_resolution = to_pair(feat_size)
        if always_partition is not None:
            self.always_partition = always_partition
        window = to_pair(window_size)
        self.window_size, self.shift_size = self._calc_window_shift(window, self.placement.target_shift(window))
        operator = cast("LocalAttention", self.attn)
        self.attn = refit(operator, self.placement, self.window_size, self.shift_size)  # type: ignore[assignment]


class SwinTransformer(OperatorStages, timm_swin.SwinTransformer):
    """timm's model; sizes are its own arguments (`img_size`, `patch_size`, `embed_dim`, `depths`, `mlp_ratio`, ...).

    Windows follow timm: they are not larger than the map, and every second block shifts them by half, unless a config
    states `shift_size` or the map is a single window. `set_input_size` scales them with the map.

    Args:
        attention: the operator of each stage; None keeps timm's windows.
        num_heads: number of heads in each stage.
        sizes: further arguments of timm's SwinTransformer.

    Raises:
        ValueError: the number of operators is not that of the stages, or heads do not divide the width.
    """

    def __init__(self, *, attention: Sequence[AttentionConfig | None], num_heads: Sequence[int], **sizes: Any) -> None:
        super().__init__(num_heads=tuple(num_heads), **sizes)
        if len(num_heads) != self.num_stages:
            raise ValueError(f"{self.num_stages} stages need one number of heads each, got {len(num_heads)}")
        self.set_operators(attention)

    @property
    def num_stages(self) -> int:
        """The number of entries of `depths`."""
        return len(self.layers)

    @property
    def operator_stages(self) -> tuple[int, ...]:  # type: ignore[override]  # a constant of other backbones
        """All stages."""
        return tuple(range(1, self.num_stages + 1))

    def _install(self, stage: int, prepared: Sequence[Fitted]) -> None:
        """Replace the attention of a stage, and let timm scale the window of the operator with the map."""
        super()._install(stage, prepared)
        timm = cast("Any", self)  # timm's annotations do not cover these attributes
        grid = to_pair(timm.patch_embed.grid_size)
        windows = list(timm_swin.calc_stage_window_sizes(grid, timm._ref_window_sizes, timm._ref_grid_size))
        windows[stage - 1] = to_pair(prepared[0].placement.config.window_size)
        timm._ref_window_sizes, timm._ref_grid_size = tuple(windows), grid

    def list_blocks(self, stage: int) -> nn.Sequential:
        """The blocks of the stage's layer."""
        return cast("nn.Sequential", self.layers[stage - 1].blocks)

    def get_map_size(self, stage: int) -> MapSize:
        """The size of the map, as stored in the first block."""
        return to_pair(cast("timm_swin.SwinTransformerBlock", self.list_blocks(stage)[0]).input_resolution)

    def _fit(self, block: nn.Module, map_size: MapSize, placement: Placement) -> tuple[MapSize, MapSize]:
        swin_block = cast("timm_swin.SwinTransformerBlock", block)
        return swin_block._calc_window_shift(*placement.target_window(map_size))

    def put_operator(self, block: nn.Module, operator: LocalAttention, map_size: MapSize) -> None:
        """Put the operator into a `SwinBlock`, which leaves windows to it."""
        block.__class__ = SwinBlock
        block.register_buffer("attn_mask", None, persistent=False)
        super().put_operator(block, operator, map_size)
