"""Weights plus a static filter: the weighted sum plus a convolution of the values, two kernels that exist already.

Σ_j (w_ij + s_{j-i}) v_j = Σ_j w_ij v_j + Σ_j s_{j-i} v_j, and the second sum is Eq. 4 (arXiv:2112.12786) with r^b = s
alone, without a normalization, every ghost being a head. The ghost head at λ = 0 is this (Eq. 8).
"""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from paradigms.functional import Aggregation, Geometry, Normalization, Outside, Scores, Terms
from paradigms.kernels.case import Map, regroup

Attend = Callable[[Scores, Map, Geometry, Normalization, Aggregation, Outside, float], Tensor]


class _Unnormalized:
    """Logits as they are, zero where they are not counted."""

    kind = "identity"

    def __call__(self, logits: Tensor, valid: Tensor | None) -> Tensor:
        return logits if valid is None else logits * valid


UNNORMALIZED = _Unnormalized()


def attend(  # noqa: PLR0913 - the seam's arguments and the two kernels
    scores: Scores,
    v: Map,
    geometry: Geometry,
    normalization: Normalization,
    aggregation: Aggregation,
    outside: Outside,
    dropout_p: float,
    *,
    weigh: Attend,
    convolve: Attend,
) -> Map:
    """Eq. 4 with what `aggregation` adds; `weigh` computes the first sum, `convolve` the second."""
    add = aggregation.add
    assert add is not None
    weighed = weigh(scores, v, geometry, normalization, Aggregation(), outside, dropout_p)
    static = Terms(None, None, None, None, add[0], None) if len(add) == 1 else add[:, None, None]
    # beyond the map values are zero under either rule; without a mask all images and pixels share the filter
    area = replace(geometry, border="zero") if geometry.border == "mask" else geometry
    ghosts, carried = regroup(v, outside, add.shape[1])
    return weighed + convolve(static, ghosts, area, UNNORMALIZED, Aggregation(), carried, 0.0).view_as(v)
