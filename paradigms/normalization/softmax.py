"""Softmax, the normalization of attention (arXiv:1706.03762, Eq. 1)."""

import math
from typing import ClassVar

from paradigms.config import AttentionConfig
from paradigms.normalization.level import Logits, Valid


class Softmax:
    """Positive weights that sum to one over the counted taps."""

    kind = "softmax"
    ignores_constant: ClassVar[bool] = True
    weight_sum: ClassVar[float | None] = 1.0

    @classmethod
    def from_config(cls, config: AttentionConfig) -> "Softmax":  # noqa: ARG003
        """This level has no fields."""
        return cls()

    def __call__(self, logits: Logits, valid: Valid | None) -> Logits:
        """Normalize over the last axis."""
        if valid is not None:
            excluded = logits.new_zeros(valid.shape).masked_fill(~valid, -math.inf)
            logits = logits + excluded  # adding -inf to a few taps is cheaper than masking all logits
        return logits.softmax(dim=-1)
