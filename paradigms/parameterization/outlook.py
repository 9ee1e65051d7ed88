"""The filter of outlook attention (arXiv:2106.13112) at stride 1."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from paradigms.config import AttentionConfig
from paradigms.functional import Geometry
from paradigms.parameterization.generated_filter import GeneratedFilter


class Outlook(GeneratedFilter):
    """Σ_n softmax_j(W x_n)_{i-n, j-n}, n over the window around i: one filter for all windows that contain i.

    In the Outlooker, every pixel n computes weights over the window around it, for each pixel i of this window. The
    results for pixel i are then summed (fold). Values do not depend on n, so the weights can be summed instead: 3x3
    windows give a filter of 5x5 taps. Only pixels n on the map contribute. Values outside the map are zero, but count
    in the softmax.

    Differs from the paper: dropout drops taps of the filter, not weights of the windows.

    Args:
        dim: channels.
        num_heads: heads.
        window: size of the window that a pixel computes weights for, (rows, columns), odd. The filter has 2 · rows - 1
            rows.

    Shape:
        (batch, height, width, dim) to (batch, height, width, heads, taps).
    """

    def __init__(self, dim: int, num_heads: int, *, window: tuple[int, int]) -> None:
        super().__init__()
        self.num_heads, self.window = num_heads, window
        self.scale = (dim // num_heads) ** -0.5
        self.to_logits = nn.Linear(dim, num_heads * (window[0] * window[1]) ** 2)

    @classmethod
    def from_config(
        cls,
        config: AttentionConfig,  # noqa: ARG003 - no field of its own
        dim: int,
        num_heads: int,
        *,
        geometry: Geometry,
        qkv_bias: bool,  # noqa: ARG003 - it has no such projection
    ) -> "Outlook":
        """Choose the window for the kernel size of the config; the config checks that one exists."""
        rows, columns = geometry.kernel_size
        return cls(dim, num_heads, window=((rows + 1) // 2, (columns + 1) // 2))

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width heads taps"]:
        """Compute the weights of every pixel for its window, and sum them by the pixel that they are for."""
        taps = self.window[0] * self.window[1]
        logits = self.scale * self.to_logits(x).unflatten(-1, (self.num_heads, taps, taps))  # (..., target, source)
        return _gather_outlooks(logits.softmax(dim=-1), self.window)


def _gather_outlooks(
    weights: Float[Tensor, "batch height width heads targets sources"], window: tuple[int, int]
) -> Float[Tensor, "batch height width heads taps"]:
    """Sum weights over windows: target a of the pixel i - a is i, and source b of its window is tap b - a of i."""
    (rows, columns), (height, width) = window, weights.shape[1:3]
    halo = pad(weights, (0, 0, 0, 0, 0, 0, columns // 2, columns // 2, rows // 2, rows // 2))
    filters: list[Tensor] = []
    for target in range(rows * columns):
        down, right = rows - 1 - target // columns, columns - 1 - target % columns
        of_target = halo[:, down : down + height, right : right + width, :, target].unflatten(-1, window)
        filters.append(pad(of_target, (right, columns - 1 - right, down, rows - 1 - down)))
    return torch.stack(filters).sum(dim=0).flatten(-2)
