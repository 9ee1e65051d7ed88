"""timm's DeiT (arXiv:2012.12877) without class token, with operators in place of its global attention."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from timm.layers import trunc_normal_
from timm.models import vision_transformer as timm_vit
from torch import Tensor, nn

from paradigms.attention import LocalAttention
from paradigms.backbones.stages import Fitted, OperatorStages
from paradigms.config import AttentionConfig
from paradigms.requirements import MapSize


class MapAttention(nn.Module):
    """An operator on the tokens of a transformer, which are a map, row by row.

    Shape:
        (batch, tokens, dim) to the same.
    """

    def __init__(self, operator: LocalAttention, map_size: MapSize) -> None:
        super().__init__()
        self.operator = operator
        self.map_size = map_size

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Float[Tensor, "batch tokens dim"]:
        """Apply the operator; masks are not supported, since the operator defines the neighborhood."""
        if attn_mask is not None or is_causal:
            raise ValueError("attn_mask and is_causal are not supported: an operator's neighborhood is its only mask")
        return self.operator(x.unflatten(1, self.map_size)).flatten(1, 2)  # type: ignore[no-any-return]


class DeiT(OperatorStages, timm_vit.VisionTransformer):
    """timm's model without class and distillation token (arXiv:2112.12786, Table 11: global average pooling).

    Sizes are timm's arguments (`img_size`, `patch_size`, `embed_dim`, `depth`, `mlp_ratio`, ...). The model has one
    stage, and all of its blocks take operators. timm's global attention equals `query_key` in a `local_window` as large
    as the map. A larger window is global on every map. A smaller window is local and shifted in every second block, as
    in Swin.

    The paper does not state the position of the last norm. Our choice: before the pooling, as in DeiT.

    Args:
        attention: the operator of the only stage; None keeps timm's attention.
        num_heads: number of heads in the only stage.
        sizes: further arguments of timm's VisionTransformer.

    Raises:
        ValueError: there is not exactly one operator and one number of heads, or the heads do not divide the width.
    """

    operator_stages = (1,)
    num_stages = 1

    def __init__(self, *, attention: Sequence[AttentionConfig | None], num_heads: Sequence[int], **sizes: Any) -> None:
        if len(num_heads) != self.num_stages:
            raise ValueError(f"{self.num_stages} stage needs one number of heads, got {len(num_heads)}")
        pooling = {"class_token": False, "global_pool": "avg", "fc_norm": False}
        super().__init__(num_heads=num_heads[0], **{**pooling, **sizes})
        self.set_operators(attention)

    def reset_parameters(self) -> None:
        """Initialize the parameters that belong to no submodule, as timm does."""
        for parameter in self.parameters(recurse=False):
            trunc_normal_(parameter, std=0.02)

    def _prepare(self, stage: int, config: AttentionConfig) -> list[Fitted]:
        if self.num_prefix_tokens:
            raise ValueError(
                "an operator needs tokens that are a map, got a model with class, distillation or register tokens; "
                "build it with class_token=False, global_pool='avg'"
            )
        if self.dynamic_img_size or not isinstance(self.patch_drop, nn.Identity):
            raise ValueError("an operator needs a map of fixed size, got dynamic_img_size or patch_drop_rate")
        return super()._prepare(stage, config)

    def set_input_size(self, img_size: MapSize | None = None, patch_size: MapSize | None = None) -> None:
        """Change the size of the images; the position embedding and the position tables are interpolated."""
        super().set_input_size(img_size=img_size, patch_size=patch_size)
        self.fit_operators()

    def list_blocks(self, stage: int) -> nn.Sequential:  # noqa: ARG002  # there is one
        """All blocks."""
        return self.blocks

    def get_map_size(self, stage: int) -> MapSize:  # noqa: ARG002  # there is one
        """The size of the map of patches."""
        rows, columns = self.patch_embed.grid_size
        return rows, columns

    def put_operator(self, block: nn.Module, operator: LocalAttention, map_size: MapSize) -> None:
        """Put the operator into a block, between conversions of tokens to a map and back."""
        block.attn = MapAttention(operator, map_size)
