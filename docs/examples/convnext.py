"""A backbone: timm's ConvNeXt (arXiv:2201.03545) with operators in place of its depthwise convolutions."""

from timm.models import convnext

from harness.spec import BackboneSpec
from paradigms.backbones import ChannelsFirst, OperatorStages, Place
from paradigms.config import AttentionConfig
from paradigms.facts import to_pair


class Sizes(BackboneSpec):
    """What a recipe says of it: arguments of `ConvNeXt` below."""

    family = "convnext"
    label = "ConvNeXt"

    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int]
    ls_init_value: float = 1e-6

    @property
    def widths(self):
        return self.dims

    def base_operator(self, _image_size):
        """Where a row begins that states an operator: 7x7 pixels around the query."""
        return AttentionConfig(neighborhood="sliding_window", kernel_size=7)

    def map_size(self, stage, image_size):
        return (image_size // self.patch_size // 2 ** (stage - 1),) * 2


class ConvNeXt(OperatorStages, convnext.ConvNeXt):
    """An operator where a block has its depthwise convolution; None keeps the convolution."""

    sizes = Sizes
    operator_stages = (1, 2, 3, 4)
    num_stages = 4

    def __init__(self, *, attention, num_heads, img_size=224, qkv_bias=True, weight_init="", **sizes):
        super().__init__(**sizes)
        self.img_size, self.num_heads, self.qkv_bias = img_size, num_heads, qkv_bias
        self.weight_init_mode = weight_init
        self.set_operators(attention)

    def list_blocks(self, stage):
        return self.stages[stage - 1].blocks

    def get_map_size(self, stage):
        rows, columns = to_pair(self.img_size)
        reduction = self.feature_info[stage - 1]["reduction"]
        return rows // reduction, columns // reduction

    def describe_place(self, stage, block):
        return Place(dim=block.conv_dw.out_channels, num_heads=self.num_heads[stage - 1], qkv_bias=self.qkv_bias)

    def put_operator(self, block, operator, map_size):
        block.conv_dw = ChannelsFirst(operator)


BACKBONES = {"convnext": ConvNeXt}
