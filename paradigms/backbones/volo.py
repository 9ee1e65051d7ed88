"""timm's VOLO (arXiv:2106.13112) with operators in place of its Outlookers' attention."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from timm.layers import resample_abs_pos_embed_nhwc, trunc_normal_
from timm.models import named_apply
from timm.models import volo as timm_volo
from timm.models.vision_transformer import get_init_weights_vit
from torch import Tensor, nn

from paradigms.backbones.stages import OperatorStages
from paradigms.config import AttentionConfig
from paradigms.facts import Size, to_pair
from paradigms.requirements import MapSize

_SMALLEST_PATCH = 4


class VOLO(OperatorStages, timm_volo.VOLO):
    """timm's model; sizes are its own arguments (`layers`, `embed_dims`, `stem_hidden_dim`, `mlp_ratio`, ...).

    Only the first of its four stages, the Outlookers before the downsampling, takes operators. A local window is
    limited to the size of the map and shifted in every second block, as in Swin. Stages 2 to 4 keep timm's global
    attention. Drop path starts in stage 2, as in timm.

    Differs from timm: `patch_size` may be 2, for small images; the stem's first convolution then has no stride.

    Args:
        attention: the operator of each stage; None keeps timm's attention, and is required for stages 2 to 4.
        num_heads: number of heads in each stage.
        img_size: side, or rows and columns, of the images.
        patch_size: side of a patch in pixels of the image: 2, 4, 8 or 16.
        weight_init: timm's name of the rule that initializes weights.
        sizes: further arguments of timm's VOLO.

    Raises:
        ValueError: an operator for a stage that takes none, a number of entries other than the number of stages, or
            heads that do not divide the width.
    """

    operator_stages = (1,)
    map_size: MapSize | None = None
    """The map of stage 1, if it cannot be derived from the position embedding after the downsampling."""

    def __init__(
        self,
        *,
        attention: Sequence[AttentionConfig | None],
        num_heads: Sequence[int],
        img_size: Size = 224,
        patch_size: int = 8,
        weight_init: str = "",
        **sizes: Any,
    ) -> None:
        height, width = to_pair(img_size)
        scale = max(1, _SMALLEST_PATCH // patch_size)
        side = cast("int", (scale * height, scale * width))  # timm takes rows and columns too
        super().__init__(num_heads=list(num_heads), img_size=side, patch_size=scale * patch_size, **sizes)
        if scale > 1:
            self._remove_stride(scale)
        self.map_size = (height // patch_size, width // patch_size)
        self.weight_init_mode = weight_init
        if len(num_heads) != self.num_stages:
            raise ValueError(f"{self.num_stages} stages need one number of heads each, got {len(num_heads)}")
        named_apply(get_init_weights_vit(weight_init), cast("nn.Module", self))
        self.set_operators(attention)

    def _remove_stride(self, scale: int) -> None:
        """Remove strides of the stem, for patches smaller than timm's smallest; later maps keep their size."""
        if scale > 2:
            raise ValueError(f"patch_size must be 2, 4, 8 or 16, got {_SMALLEST_PATCH // scale}")
        self._stem_conv().stride = (1, 1)
        for info in cast("list[dict[str, Any]]", self.feature_info):
            info["reduction"] //= scale

    def _stem_conv(self) -> nn.Conv2d:
        return cast("nn.Conv2d", self.patch_embed.conv[0])

    def classify_tokens(
        self, images: Float[Tensor, "batch channels height width"], box: tuple[int, int, int, int]
    ) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch rows columns classes"]]:
        """The forward pass of token labeling with MixToken (arXiv:2104.10858): logits of images and of all tokens.

        Before the first stage, a box of each image's map is replaced by the same box of its counterpart in the reversed
        batch. The logits of these tokens are then moved back to the image that they came from.

        Differs from timm's `forward_train`, which draws the box itself and omits the head of the class token.

        Args:
            images: the images of the batch.
            box: first row, first column, end row and end column (exclusive), in tokens of the map after the
                downsampling.

        Raises:
            ValueError: the model was built without `use_aux_head`.
        """
        if self.aux_head is None:
            raise ValueError("no head over all tokens: build the model with use_aux_head=True")
        x = self.patch_embed(images).permute(0, 2, 3, 1)  # (B, H, W, C)
        rows, columns = (side // self.pooling_scale for side in x.shape[1:3])
        x = _exchange(x, [self.pooling_scale * side for side in box])
        x = self.head_drop(self.norm(self.forward_cls(self.forward_tokens(x))))  # (B, 1 + tokens, C)
        token_logits = self.aux_head(x[:, 1:]).unflatten(1, (rows, columns))
        return self.head(x[:, 0]), _exchange(token_logits, box)

    def reset_parameters(self) -> None:
        """Initialize the parameters that belong to no submodule, as timm does."""
        for parameter in self.parameters(recurse=False):
            trunc_normal_(parameter, std=0.02)

    def set_input_size(self, img_size: Size) -> None:
        """Change the size of the images; the position embedding and the position tables are interpolated.

        Args:
            img_size: side, or rows and columns; multiples of the patch size.
        """
        height, width = to_pair(img_size)
        self.map_size = (height // self.patch_size, width // self.patch_size)
        grid = [side // self.pooling_scale for side in self.map_size]
        with torch.no_grad():
            resized = resample_abs_pos_embed_nhwc(self.pos_embed, grid)
        self.pos_embed = nn.Parameter(resized, requires_grad=self.pos_embed.requires_grad)
        self.fit_operators()

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels of the image."""
        return self._stem_conv().stride[0] * self.patch_embed.proj.stride[0]

    @property
    def num_stages(self) -> int:
        """The number of entries of `layers`."""
        return len(self.stage_ends)

    def list_blocks(self, stage: int) -> nn.Sequential:
        """The blocks of a stage."""
        return cast("nn.Sequential", self.network[self.stage_ends[stage - 1]])

    def get_map_size(self, stage: int) -> MapSize:  # noqa: ARG002  # stage 1 alone has operators
        """The size of the map before the downsampling."""
        if self.map_size is not None:
            return self.map_size
        _, rows, columns, _ = self.pos_embed.shape
        return rows * self.pooling_scale, columns * self.pooling_scale


def _exchange(x: Float[Tensor, "batch rows columns _"], box: Sequence[int]) -> Float[Tensor, "batch rows columns _"]:
    """Replace `box` in each map by that of its counterpart in the reversed batch; applied twice it changes nothing."""
    top, left, bottom, right = box
    inside = torch.zeros(x.shape[1:3], dtype=torch.bool, device=x.device)
    inside[top:bottom, left:right] = True
    return torch.where(inside[..., None], x.flip(0), x)
