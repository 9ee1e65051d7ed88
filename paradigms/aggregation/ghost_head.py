"""The ghost head (Eq. 8 of arXiv:2112.12786)."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paradigms.config import AttentionConfig
from paradigms.functional import Aggregation
from paradigms.requirements import count_ghosts


class StaticFilter(nn.Module):
    """A learned number for each ghost and offset. It is a separate module with its own initialization.

    Args:
        ghosts: number of rows.
        num_offsets: number of columns.
        start: initializes a tensor in place.
        rate: the parameter stores the number divided by `rate`, and `forward` returns the number. Steps of Adam and
            similar optimizers, which do not depend on the size of the gradient, are thus `rate` times as large.

    Attributes:
        is_position_table: tells the optimizer that weight decay may exclude it. The paper does not state this; our
            choice is one rule for all tables by offset.
        weighs_neighbor: whether it is multiplied with a value of the neighbor, and has no effect if that is zero.
    """

    is_position_table: ClassVar[bool] = True
    weighs_neighbor: ClassVar[bool] = True

    def __init__(self, ghosts: int, num_offsets: int, *, start: Callable[[Tensor], Tensor], rate: float = 1.0) -> None:
        super().__init__()
        self.start, self.rate = start, rate
        self.weight = nn.Parameter(torch.empty(ghosts, num_offsets))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the matrix; all initialization rules of timm call this."""
        self.start(self.weight)
        with torch.no_grad():
            self.weight.div_(self.rate)

    def forward(self) -> Float[Tensor, "ghosts offsets"]:
        """The matrix, multiplied by `rate`."""
        return self.weight if self.rate == 1 else self.rate * self.weight


def start_small(weight: Tensor) -> Tensor:
    """Truncated normal with standard deviation 0.02, the initialization of S in Algorithm 1."""
    return nn.init.trunc_normal_(weight, std=0.02)


STARTS = {"normal": nn.init.normal_, "ones": nn.init.ones_}
"""Initializations of O."""


def signed_power(base: Tensor, exponent: float) -> Tensor:
    """`base` to the power `exponent` ≥ 0; for fractions sign(o)·|o|^λ, which is real and has gradient 0 at 0."""
    if exponent == int(exponent):
        return base ** int(exponent)
    zero = base == 0
    size = torch.where(zero, 1, base.abs()) ** exponent
    return torch.where(zero, 0, base.sign() * size)


class GhostHead(nn.Module):
    """ĥ^c_{j-i} = Pow(o^c_{j-i}, λ)·h^{c'}_{j-i} + γ·s^c_{j-i}: static filters expand few heads to many.

    Initial values of O are standard normal, those of S truncated normal with standard deviation 0.02 (Algorithm 1). If
    λ = 0, O is absent; if γ = 0, S is absent. λ = 0 is the weighted sum plus a depthwise convolution of the values. The
    filters are tables over offsets, so they also work with windows and global attention.

    Differs from the paper: if λ is not an integer, Pow is sign(o)·|o|^λ, because the paper's power is not real for
    negative o. The paper interleaves heads over channels, c' = c mod heads. The released code groups them,
    c' = c // (dim / heads). Their weights are not compatible.

    Args:
        num_heads: heads of the attention.
        mul: O; None if λ = 0.
        add: S; None if γ = 0.
        ghosts: number of filters, each for dim / ghosts channels; a multiple of `num_heads`.
        power: λ.
        gain: γ.
        interleaved: whether ghost g has head g mod heads, else g // (ghosts / heads).

    Shape:
        Input (batch, height, width, dim), whose values are not used; `mul`, `add` (ghosts, offsets).
    """

    is_global: ClassVar[bool] = False

    def __init__(
        self,
        num_heads: int,
        *,
        mul: StaticFilter | None,
        add: StaticFilter | None,
        ghosts: int,
        power: float,
        gain: float,
        interleaved: bool,
    ) -> None:
        super().__init__()
        self.power, self.gain, self.ghosts = power, gain, ghosts
        self.copies = ghosts // num_heads if interleaved else 1
        self.mul, self.add = mul, add

    @classmethod
    def from_config(cls, config: AttentionConfig, dim: int, num_heads: int, num_offsets: int) -> "GhostHead":
        """Read the fields of this level.

        Raises:
            ValueError: `ghost_heads` is not a multiple of `num_heads`, or does not divide `dim`.
        """
        ghosts = count_ghosts(config, dim=dim, num_heads=num_heads)
        power, gain, rate = config.ghost_lambda, config.ghost_gamma, config.ghost_rate
        return cls(
            num_heads,
            mul=StaticFilter(ghosts, num_offsets, start=STARTS[config.ghost_start]) if power else None,
            add=StaticFilter(ghosts, num_offsets, start=start_small, rate=rate) if gain else None,
            ghosts=ghosts,
            power=power,
            gain=gain,
            interleaved=config.ghost_map == "interleaved",
        )

    @property
    def kind(self) -> str:
        """The kind of formula, by which kernels are selected."""
        mul, add = (None if table is None else table.weight for table in (self.mul, self.add))
        return Aggregation(mul, add).kind

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Aggregation:  # noqa: ARG002
        """Pow(O, λ) and γ·S, ordered by head."""
        mul = None if self.mul is None else self._by_head(signed_power(self.mul(), self.power))
        add = None if self.add is None else self._by_head(self.gain * self.add())
        return Aggregation(mul, add)

    def _by_head(self, filters: Float[Tensor, "ghosts offsets"]) -> Float[Tensor, "1 ghosts offsets"]:
        return filters.unflatten(0, (self.copies, -1)).transpose(0, 1).flatten(0, 1)[None]  # type: ignore[no-any-return]

    def split_heads(self, v: Float[Tensor, "*map dim"], num_heads: int) -> Float[Tensor, "*map heads head_dim"]:
        """Group channels by the head of their ghost."""
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
