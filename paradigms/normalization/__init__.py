"""The room of normalizations: logits to weights (Norm of Eq. 4, arXiv:2112.12786)."""

from paradigms.normalization.filter_norm import FilterNorm
from paradigms.normalization.identity import Identity
from paradigms.normalization.level import Normalization
from paradigms.normalization.softmax import Softmax

NORMALIZATIONS: dict[str, type[Normalization]] = {
    "softmax": Softmax,
    "filter_norm": FilterNorm,
    "identity": Identity,
}

__all__ = ["NORMALIZATIONS", "FilterNorm", "Identity", "Normalization", "Softmax"]
