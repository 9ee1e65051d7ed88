"""The backend `dense`: K copies of keys and values, as in the experiments of arXiv:2112.12786.

A baseline for comparisons: `unfold` copies each channel K times, and autograd keeps the copies.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import dropout, unfold

from paradigms.functional import Aggregation, Geometry, Normalization, Outside, Scores, Terms, make_neighbors
from paradigms.kernels.logits import Layout, join_terms
from paradigms.kernels.problem import Map

Copies = Float[Tensor, "batch heads head_dim taps queries"]

LAYOUT = Layout(query="bnhd", key="bhdkn", table="hkd", logits="bhnk")


def _copy_taps(x: Map, geometry: Geometry) -> Copies:
    """Copy the K neighbors of every query; zeros outside the map."""
    channels_first = x.flatten(3).permute(0, 3, 1, 2)
    halo = tuple(size // 2 * step for size, step in zip(geometry.kernel_size, geometry.dilation, strict=True))
    copies = unfold(channels_first, geometry.kernel_size, dilation=geometry.dilation, padding=halo)
    return copies.view(len(x), *x.shape[3:], geometry.num_taps, copies.shape[-1])


def _make_logits(terms: Terms, geometry: Geometry) -> Float[Tensor, "#batch heads #queries taps"]:
    q = None if terms.q is None else terms.q.flatten(1, 2)
    copies = None if terms.k is None else _copy_taps(terms.k, geometry)
    rb = None if terms.rb is None else terms.rb[None, :, None]
    return join_terms(terms._replace(q=q, k=copies, rb=rb), LAYOUT)


def attend(
    scores: Scores,
    v: Map,
    geometry: Geometry,
    normalization: Normalization,
    aggregation: Aggregation,  # noqa: ARG001 - the support mapping admits the weighted sum alone
    outside: Outside,  # noqa: ARG001 - nothing lies outside under the borders `zero` and `mask`
    dropout_p: float,
) -> Map:
    """Eq. 4 of arXiv:2112.12786 over the area centred on each query; the borders `zero` and `mask`."""
    assert isinstance(scores, Terms)
    valid = None
    if geometry.border == "mask":
        valid = make_neighbors(geometry, v.shape[1], v.shape[2], v.device).valid
    weights = normalization(_make_logits(scores, geometry), valid)
    weights = dropout(weights.expand(len(v), -1, v.shape[1] * v.shape[2], -1), dropout_p)
    return torch.einsum("bhnk,bhdkn->bnhd", weights, _copy_taps(v, geometry)).view(v.shape)
