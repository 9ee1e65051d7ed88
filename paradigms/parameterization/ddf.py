"""The spatial filter of decoupled dynamic filters (arXiv:2104.14107)."""

from jaxtyping import Float
from torch import Tensor, nn

from paradigms.config import AttentionConfig
from paradigms.functional import Geometry
from paradigms.parameterization.generated_filter import GeneratedFilter


class DDF(GeneratedFilter):
    """Logits W x_i + b, one filter for all channels of a pixel.

    Differs from the released layer, which applies filters to the map that generates them. Here, the input generates the
    filters, which are applied to the projected values. If the projection is linear and invertible, both layers can
    represent the same functions.

    Args:
        dim: channels.
        num_taps: K.

    Shape:
        (batch, height, width, dim) to (batch, height, width, 1, taps), for any number of heads.
    """

    def __init__(self, dim: int, *, num_taps: int) -> None:
        super().__init__()
        self.to_logits = nn.Linear(dim, num_taps)

    @classmethod
    def from_config(
        cls,
        config: AttentionConfig,  # noqa: ARG003 - no field of its own
        dim: int,
        num_heads: int,  # noqa: ARG003 - all share the filter
        *,
        geometry: Geometry,
        qkv_bias: bool,  # noqa: ARG003 - it has no such projection
    ) -> "DDF":
        """This level has no fields."""
        return cls(dim, num_taps=geometry.num_taps)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width 1 taps"]:
        """Generate a filter from the channels of every pixel."""
        return self.to_logits(x).unsqueeze(-2)  # type: ignore[no-any-return]
