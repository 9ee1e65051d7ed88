"""The reference: every query's K neighbours gathered, then the mathematics as one reads it. The oracle of every law."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import dropout

from paradigms.functional import (
    Aggregation,
    Geometry,
    Normalization,
    Outside,
    Scores,
    Terms,
    apply_weights,
    gather_taps,
    make_logits,
    make_neighbors,
)
from paradigms.kernels.case import Map


def attend(
    scores: Scores,
    v: Float[Tensor, "batch height width heads head_dim"],
    geometry: Geometry,
    normalization: Normalization,
    aggregation: Aggregation,
    outside: Outside,
    dropout_p: float,
) -> Float[Tensor, "batch height width heads head_dim"]:
    """Eq. 4 of arXiv:2112.12786 over gathered taps; twice differentiable, any dtype."""
    index, valid, offset = make_neighbors(geometry, v.shape[1], v.shape[2], v.device)
    if isinstance(scores, Terms):
        keys = None if scores.k is None else gather_taps(scores.k, outside.k, index)
        logits = make_logits(scores, keys, offset)
    else:
        logits = scores.expand(*v.shape[:4], -1).flatten(1, 2).transpose(1, 2)
    weights = dropout(normalization(logits, valid).expand(len(v), -1, -1, -1), dropout_p)
    values = gather_taps(v, outside.v, index)
    return apply_weights(weights, values, aggregation, valid, offset).view_as(v)


def convolve(table: Float[Tensor, "#batch heads offsets"], v: Map, geometry: Geometry, outside: Outside) -> Map:
    """A static filter for each head."""
    index, valid, offset = make_neighbors(geometry, v.shape[1], v.shape[2], v.device)
    filters = table.index_select(-1, offset.flatten()).unflatten(-1, offset.shape) * valid
    values = gather_taps(v, outside.v, index)
    return apply_weights(filters.expand(len(v), -1, -1, -1), values, Aggregation(), valid, offset).view_as(v)
