"""What parameterizations have in common that make a number for each tap directly, without keys."""

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from paradigms.parameterization.terms import PositionTable


class GeneratedFilter(nn.Module):
    """Logits (batch, height, width, heads, taps) as they are, made where the query is.

    Attributes:
        is_global: whether they depend on the whole map.
    """

    scores: ClassVar[str] = "logits"
    is_global: ClassVar[bool] = False

    def project_zero_key(self) -> None:
        """There is no key."""

    def position_tables(self) -> Mapping[str, PositionTable]:
        """None."""
        return {}

    def constant_parameters(self) -> frozenset[str]:
        """None: no parameter adds the same number to all of a query's logits."""
        return frozenset()
