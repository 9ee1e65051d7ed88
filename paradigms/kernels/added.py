"""Generated weights plus a static filter: a weighted sum and a convolution, each by its fastest kernel.

Σ_j (m_{j-i} w_ij + s_{j-i}) v_j = Σ_j m_{j-i} w_ij v_j + Σ_j s_{j-i} v_j. The ghost head has this form; at λ = 0,
m = 1 (Eq. 8 of arXiv:2112.12786).
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from paradigms.functional import Aggregation, Geometry, Normalization, Outside, Scores
from paradigms.kernels.problem import Map, regroup

Attend = Callable[[Scores, Map, Geometry, Normalization, Aggregation, Outside, float], Tensor]
Convolve = Callable[[Float[Tensor, "#batch heads offsets"], Map, Geometry, Outside], Tensor]
"""Σ_j s_{j-i} v_j over the counted taps, with a filter for each head; beyond the map `mask` is `zero` to it."""


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
    convolve: Convolve,
) -> Map:
    """Eq. 4 with the static filter of `aggregation`; `weigh` computes the first sum, `convolve` the second."""
    weighed = weigh(scores, v, geometry, normalization, Aggregation(aggregation.mul), outside, dropout_p)
    if aggregation.add is None:
        return weighed
    ghosts, carried = regroup(v, outside, aggregation.add.shape[1])
    return weighed + convolve(aggregation.add, ghosts, geometry, carried).reshape(v.shape)
