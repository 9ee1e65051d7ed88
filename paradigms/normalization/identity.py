"""No normalization: the logits are the weights, as in dynamic filters and static convolutions."""

from typing import ClassVar

from paradigms.config import AttentionConfig
from paradigms.normalization.level import Logits, Valid


class Identity:
    """The logits themselves; zero where a tap is not counted."""

    kind = "identity"
    ignores_constant: ClassVar[bool] = False
    weight_sum: ClassVar[float | None] = None

    @classmethod
    def from_config(cls, config: AttentionConfig) -> "Identity":  # noqa: ARG003
        """This level has no fields."""
        return cls()

    def __call__(self, logits: Logits, valid: Valid | None) -> Logits:
        """Return the logits."""
        return logits if valid is None else logits * valid
