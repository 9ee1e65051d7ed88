"""Hadamard attention as released with arXiv:2112.12786; all printed ELSA numbers use this form."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from paradigms.config import AttentionConfig
from paradigms.facts import to_pair
from paradigms.functional import Geometry, multiply
from paradigms.parameterization.generated_filter import GeneratedFilter
from paradigms.pointwise import Linear, choose_linear


class HadamardConv(GeneratedFilter):
    """Logits of q⊙k by a grouped convolution as large as the neighborhood, GELU, and a 1x1 convolution to all taps.

    dim_qk is two thirds of the channels, rounded up to whole groups: ceil((dim // 3 · 2) / group_width) · group_width.

    Differs from the paper: Eq. 7 has no convolution over products of neighbors beyond r^q, and no non-linearity. The
    convolution pads with zeros outside the map for every `border`.

    In the released code, the projections to q, k, v and the logits are 1x1 convolutions, which keep torch's initial
    values under timm's rule. Here, they are initialized like the backbone's linear layers, unless `initialization` is
    `released`.

    Args:
        dim: channels.
        num_heads: heads.
        geometry: geometry of the neighborhood.
        conv_size: kernel size of the convolution, (rows, columns). Its dilation is that of the neighborhood.
        group_width: channels per group of the convolution.
        qkv_bias: whether the query and key projections have a bias.
        linear: class of the layers that project to queries, keys and logits.

    Shape:
        (batch, height, width, dim) to (batch, height, width, heads, taps).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        geometry: Geometry,
        conv_size: tuple[int, int],
        group_width: int,
        qkv_bias: bool,
        linear: Linear = nn.Linear,
    ) -> None:
        super().__init__()
        dim_qk = -(-(dim // 3 * 2) // group_width) * group_width
        dilation = geometry.dilation
        halo = (conv_size[0] // 2 * dilation[0], conv_size[1] // 2 * dilation[1])
        self.num_heads = num_heads
        self.q = linear(dim, dim_qk, bias=qkv_bias)
        self.k = linear(dim, dim_qk, bias=qkv_bias)
        self.mix = nn.Conv2d(dim_qk, dim_qk, conv_size, padding=halo, dilation=dilation, groups=dim_qk // group_width)
        self.to_logits = linear(dim_qk, num_heads * geometry.num_taps)

    @classmethod
    def from_config(
        cls, config: AttentionConfig, dim: int, num_heads: int, *, geometry: Geometry, qkv_bias: bool
    ) -> "HadamardConv":
        """Read the fields of this level."""
        return cls(
            dim,
            num_heads,
            geometry=geometry,
            conv_size=geometry.kernel_size if config.hadamard_size is None else to_pair(config.hadamard_size),
            group_width=config.group_width,
            qkv_bias=qkv_bias,
            linear=choose_linear(config),
        )

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width heads taps"]:
        """Multiply queries and keys of the same pixel, convolve, and project to one number per head and tap."""
        product = multiply(self.q(x), self.k(x)).permute(0, 3, 1, 2)  # (B, C_qk, H, W)
        mixed = gelu(self.mix(product)).permute(0, 2, 3, 1)
        return self.to_logits(mixed).unflatten(-1, (self.num_heads, -1))  # type: ignore[no-any-return]
