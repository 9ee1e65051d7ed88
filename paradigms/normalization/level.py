"""The protocol of a normalization."""

from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from paradigms import functional
from paradigms.config import AttentionConfig

Logits = Float[Tensor, "... taps"]
Valid = Bool[Tensor, "... taps"]


@runtime_checkable
class Normalization(functional.Normalization, Protocol):
    """How logits become weights: a class, or a module if it has parameters.

    Attributes:
        ignores_constant: whether adding one number to all logits of a query does not change its weights.
        weight_sum: the sum of the weights of the counted taps; None if it depends on the logits.
    """

    ignores_constant: ClassVar[bool]
    weight_sum: ClassVar[float | None]

    @classmethod
    def from_config(cls, config: AttentionConfig) -> "Normalization":
        """Read the fields of this level."""
        ...
