"""The room of normalizations: logits to weights (Norm of Eq. 4, arXiv:2112.12786)."""

import math
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from paradigms import functional
from paradigms.functional import standardize

Logits = Float[Tensor, "... taps"]
Valid = Bool[Tensor, "... taps"]


@runtime_checkable
class Normalization(functional.Normalization, Protocol):
    """A level of this room.

    Attributes:
        ignores_constant: whether adding one number to all logits of a query leaves its weights alone.
        weight_sum: of the counted taps; None where it depends on the logits.
    """

    ignores_constant: ClassVar[bool]
    weight_sum: ClassVar[float | None]


class Softmax:
    """Positive weights that sum to one over the counted taps."""

    kind = "softmax"
    ignores_constant: ClassVar[bool] = True
    weight_sum: ClassVar[float | None] = 1.0

    def __call__(self, logits: Logits, valid: Valid | None) -> Logits:
        """Normalize over the last axis."""
        if valid is not None:
            excluded = logits.new_zeros(valid.shape).masked_fill(~valid, -math.inf)
            logits = logits + excluded  # adding to a few taps is cheaper, forward and back, than filling all logits
        return logits.softmax(dim=-1)


class FilterNorm:
    """Filter normalization of DDF (arXiv:2104.14107): zero mean, fixed standard deviation over the counted taps.

    The standard deviation is the unbiased one plus 1e-10, the gain √2/k for a k x k neighborhood (√(2/K) in general),
    without a learned scale: the spatial branch of DDF. Which variant the ELSA paper used for Net7 is not printed.
    Logits that are equal but for rounding give weights, and a gradient, of zero.

    Attributes:
        minimum_taps: fewer have no standard deviation; `kernels.attend` refuses a map where a query counts fewer.
    """

    kind = "filter_norm"
    ignores_constant: ClassVar[bool] = True
    weight_sum: ClassVar[float | None] = 0.0
    minimum_taps: ClassVar[int] = 2

    def __call__(self, logits: Logits, valid: Valid | None) -> Logits:
        """Normalize over the last axis."""
        return standardize(logits, valid, gain=math.sqrt(2 / logits.shape[-1]))


class Identity:
    """The logits themselves; zero where a tap is not counted."""

    kind = "identity"
    ignores_constant: ClassVar[bool] = False
    weight_sum: ClassVar[float | None] = None

    def __call__(self, logits: Logits, valid: Valid | None) -> Logits:
        """Pass the logits on."""
        return logits if valid is None else logits * valid


NORMALIZATIONS: dict[str, type[Normalization]] = {
    "softmax": Softmax,
    "filter_norm": FilterNorm,
    "identity": Identity,
}
