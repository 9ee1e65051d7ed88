"""timm's Swin Transformer (arXiv:2103.14030) with the operator in every block."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from jaxtyping import Float
from timm.models import swin_transformer as timm_swin
from torch import Tensor

from paradigms.attention import LocalAttention, build_attention
from paradigms.config import AttentionConfig, to_pair


class SwinBlock(timm_swin.SwinTransformerBlock):
    """timm's block, whose attention moves, pads and cuts the map itself."""

    def _attn(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        return self.attn(x)  # type: ignore[no-any-return]


class SwinTransformer(timm_swin.SwinTransformer):
    """timm's model; sizes are its own arguments (`img_size`, `patch_size`, `embed_dim`, `depths`, `mlp_ratio`, ...).

    Windows follow timm: no larger than the map, and every second block shifts them by half unless `shift_size` of a
    config says otherwise or the map is a single window.

    Args:
        attention: the operator of each stage.
        num_heads: of each stage.
        attn_drop_rate: probability of dropping an attention weight.
        proj_drop_rate: probability of dropping a channel after the attention or in the MLP.
        qkv_bias: whether the query, key and value projections have a bias.
        sizes: further arguments of timm's SwinTransformer.

    Raises:
        ValueError: not one operator a stage, or heads that do not divide the width.
    """

    def __init__(
        self,
        *,
        attention: Sequence[AttentionConfig],
        num_heads: Sequence[int],
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        qkv_bias: bool = True,
        **sizes: Any,
    ) -> None:
        super().__init__(num_heads=tuple(num_heads), proj_drop_rate=proj_drop_rate, qkv_bias=qkv_bias, **sizes)
        if not len(attention) == len(num_heads) == len(self.layers):
            raise ValueError(f"{len(self.layers)} stages, got {len(attention)} operators and {len(num_heads)} heads")
        for blocks, config, heads in zip(self._blocks(), attention, num_heads, strict=True):
            for depth, block in enumerate(blocks):
                window_size, shift_size = fit_window(block, config, depth)
                block.__class__ = SwinBlock
                block.register_buffer("attn_mask", None, persistent=False)
                block.attn = build_attention(  # type: ignore[assignment]  # declared as timm's own
                    config,
                    dim=block.dim,
                    num_heads=heads,
                    window_size=window_size,
                    shift_size=shift_size,
                    qkv_bias=qkv_bias,
                    attn_drop=attn_drop_rate,
                    proj_drop=proj_drop_rate,
                )

    def operators(self) -> Iterator[tuple[int, tuple[int, int], LocalAttention]]:
        """Every block's stage (1-based), map (rows, columns) and operator, in order."""
        for stage, blocks in enumerate(self._blocks(), start=1):
            for block in blocks:
                yield stage, to_pair(block.input_resolution), cast("LocalAttention", block.attn)

    def _blocks(self) -> Iterator[Sequence[timm_swin.SwinTransformerBlock]]:
        """The blocks of each stage."""
        for stage in self.layers:
            yield cast("Sequence[timm_swin.SwinTransformerBlock]", stage.blocks)


def fit_window(
    block: timm_swin.SwinTransformerBlock, config: AttentionConfig, depth: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Window and shift of a block, by timm's rule for the block's map and its place in the stage."""
    window = to_pair(config.window_size)
    half = (window[0] // 2, window[1] // 2) if depth % 2 else (0, 0)
    shift = half if config.shift_size is None else to_pair(config.shift_size)
    return block._calc_window_shift(window, shift)
