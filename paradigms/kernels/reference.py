"""The reference: every query's K neighbours gathered, then the mathematics as one reads it. The oracle of every law."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import dropout

from paradigms.functional import (
    Aggregation,
    Geometry,
    Normalization,
    Outside,
    Terms,
    gather_taps,
    make_logits,
    make_neighbors,
)


def attend(
    terms: Terms,
    v: Float[Tensor, "batch height width heads head_dim"],
    geometry: Geometry,
    normalization: Normalization,
    aggregation: Aggregation,
    outside: Outside,
    dropout_p: float,
) -> Float[Tensor, "batch height width heads head_dim"]:
    """Eq. 4 of arXiv:2112.12786 over gathered taps; twice differentiable, any dtype."""
    index, valid, offset = make_neighbors(geometry, v.shape[1], v.shape[2], v.device)
    keys = None if terms.k is None else gather_taps(terms.k, outside.k, index)
    logits = make_logits(terms, keys, offset)
    weights = normalization(logits, valid).expand(len(v), -1, -1, -1)
    values = gather_taps(v, outside.v, index)
    return aggregation(dropout(weights, dropout_p), values).view_as(v)
