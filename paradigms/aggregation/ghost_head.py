"""The ghost head (Eq. 8 of arXiv:2112.12786)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paradigms.config import AttentionConfig
from paradigms.functional import Aggregation


class StaticFilter(nn.Module):
    """A learned number for each ghost and offset; a module of its own so that it is drawn by itself."""

    weighs_neighbor: ClassVar[bool] = True
    """What it is multiplied with is of the neighbor: nothing where that is zero."""

    def __init__(self, ghosts: int, num_offsets: int, *, truncated_std: float | None) -> None:
        super().__init__()
        self.truncated_std = truncated_std
        self.weight = nn.Parameter(torch.empty(ghosts, num_offsets))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrix: standard normal, or truncated normal; every rule of timm's calls this."""
        if self.truncated_std is None:
            nn.init.normal_(self.weight)
        else:
            nn.init.trunc_normal_(self.weight, std=self.truncated_std)


def signed_power(base: Tensor, exponent: float) -> Tensor:
    """`base` to a power that is real for every `exponent` ≥ 0: for fractions sign(o)·|o|^λ, with gradient 0 at 0."""
    if exponent == int(exponent):
        return base ** int(exponent)
    zero = base == 0
    size = torch.where(zero, 1, base.abs()) ** exponent
    return torch.where(zero, 0, base.sign() * size)


class GhostHead(nn.Module):
    """ĥ^c_{j-i} = Pow(o^c_{j-i}, λ)·h^{c'}_{j-i} + γ·s^c_{j-i}: static filters make more heads out of few.

    O starts as a standard normal, S as a truncated normal with standard deviation 0.02 (Algorithm 1). A filter that
    λ = 0 or γ = 0 leaves without effect does not exist; λ = 0 is the weighted sum plus a depthwise convolution of the
    values. The filters are tables by offset, so that they serve windows and global attention too.

    Differs from the paper: where λ is no whole number, Pow is sign(o)·|o|^λ, since the paper's is not real there.
    Its channels take heads interleaved, c' = c mod heads; the released code groups them, c' = c // (dim / heads). They
    are not compatible in weights.

    Args:
        dim: channels.
        num_heads: heads of the attention.
        num_offsets: rows of a position table.
        ghosts: filters, shared by dim / ghosts channels each; a multiple of `num_heads` that divides `dim`.
        power: λ.
        gain: γ.
        interleaved: whether ghost g has head g mod heads, else g // (ghosts / heads).

    Shape:
        Input (batch, height, width, dim), which is not looked at; `mul`, `add` (ghosts, offsets).

    Raises:
        ValueError: `ghosts` is no multiple of `num_heads` or does not divide `dim`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_offsets: int,
        *,
        ghosts: int,
        power: float,
        gain: float,
        interleaved: bool,
    ) -> None:
        super().__init__()
        if ghosts % num_heads or dim % ghosts:
            raise ValueError(
                f"ghost_heads must be a multiple of the heads and divide dim, got {ghosts=}, {num_heads=}, {dim=}"
            )
        self.power, self.gain, self.ghosts = power, gain, ghosts
        self.copies = ghosts // num_heads if interleaved else 1
        self.mul = StaticFilter(ghosts, num_offsets, truncated_std=None) if power else None
        self.add = StaticFilter(ghosts, num_offsets, truncated_std=0.02) if gain else None

    @classmethod
    def from_config(cls, config: AttentionConfig, dim: int, num_heads: int, num_offsets: int) -> "GhostHead":
        """Read the fields of this level."""
        stated = config.ghost_heads
        ghosts = stated if isinstance(stated, int) else {"C": dim, "2x": 2 * num_heads}[stated]
        return cls(
            dim,
            num_heads,
            num_offsets,
            ghosts=ghosts,
            power=config.ghost_lambda,
            gain=config.ghost_gamma,
            interleaved=config.ghost_map == "interleaved",
        )

    @property
    def kind(self) -> str:
        """Which formula kernels may use."""
        mul, add = (None if table is None else table.weight for table in (self.mul, self.add))
        return Aggregation(mul, add).kind

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Aggregation:  # noqa: ARG002
        """Pow(O, λ) and γ·S, in the order of the heads."""
        mul = None if self.mul is None else self._by_head(signed_power(self.mul.weight, self.power))
        add = None if self.add is None else self._by_head(self.gain * self.add.weight)
        return Aggregation(mul, add)

    def _by_head(self, filters: Float[Tensor, "ghosts offsets"]) -> Float[Tensor, "1 ghosts offsets"]:
        return filters.unflatten(0, (self.copies, -1)).transpose(0, 1).flatten(0, 1)[None]  # type: ignore[no-any-return]

    def split_heads(self, v: Float[Tensor, "*map dim"], num_heads: int) -> Float[Tensor, "*map heads head_dim"]:
        """The channels of a head's ghosts together."""
        ghosts = v.unflatten(-1, (self.copies, self.ghosts // self.copies, -1))
        return ghosts.transpose(-3, -2).flatten(-3).unflatten(-1, (num_heads, -1))  # type: ignore[no-any-return]

    def join_heads(
        self, v: Float[Tensor, "batch height width heads head_dim"]
    ) -> Float[Tensor, "batch height width dim"]:
        """The inverse of `split_heads`."""
        ghosts = v.flatten(-2).unflatten(-1, (self.ghosts // self.copies, self.copies, -1))
        return ghosts.transpose(-3, -2).flatten(-3)  # type: ignore[no-any-return]

    def position_tables(self) -> Mapping[str, StaticFilter]:
        """The filters that exist, by name."""
        return {name: table for name, table in self.named_children() if isinstance(table, StaticFilter)}
