"""The filter normalization of decoupled dynamic filters (arXiv:2104.14107)."""

import math
from typing import ClassVar

from paradigms.config import AttentionConfig
from paradigms.functional import standardize
from paradigms.normalization.level import Logits, Valid


class FilterNorm:
    """Filter normalization of DDF (arXiv:2104.14107): zero mean, fixed standard deviation over the counted taps.

    As in the spatial branch of DDF, the standard deviation is the unbiased one plus 1e-10, the gain is √2/k for a k x k
    neighborhood (√(2/K) in general), and there is no learned scale. The ELSA paper does not state which variant it used
    for Net7. If all logits are equal up to rounding, weights and gradients are zero.

    Attributes:
        minimum_taps: fewer taps have no standard deviation; `kernels.attend` then raises an error.
    """

    kind = "filter_norm"
    ignores_constant: ClassVar[bool] = True
    weight_sum: ClassVar[float | None] = 0.0
    minimum_taps: ClassVar[int] = 2

    @classmethod
    def from_config(cls, config: AttentionConfig) -> "FilterNorm":  # noqa: ARG003
        """This level has no fields."""
        return cls()

    def __call__(self, logits: Logits, valid: Valid | None) -> Logits:
        """Normalize over the last axis."""
        return standardize(logits, valid, gain=math.sqrt(2 / logits.shape[-1]))
