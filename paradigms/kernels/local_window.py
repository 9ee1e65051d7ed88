"""Windows by partition and dense matrix products."""

from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import dropout, pad

from paradigms.functional import Aggregation, Geometry, Normalization, Outside, Terms, make_neighbors, take_rows
from paradigms.kernels.case import Map
from paradigms.kernels.logits import Layout, join_terms

LAYOUT = Layout(query="bwihd", key="bwjhd", table="hijd", logits="bwhij")


@lru_cache(maxsize=64)
def _tap_offsets(geometry: Geometry, device: torch.device) -> Int[Tensor, "taps taps"]:
    """The row of a position table for each query and key of one whole window."""
    whole = Geometry("window", geometry.kernel_size)
    return make_neighbors(whole, *geometry.kernel_size, device).offset


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)
def _valid_taps(
    geometry: Geometry, height: int, width: int, device: torch.device
) -> Bool[Tensor, "windows 1 taps taps"] | None:
    """Which keys each query counts, window by window; None where all count all. Queries outside the map count all."""
    lengths = tuple(zip((height, width), geometry.kernel_size, geometry.shift, strict=True))
    moved = any(shift % length for length, _, shift in lengths)
    if not moved and (geometry.border != "mask" or not any(length % size for length, size, _ in lengths)):
        return None
    valid = make_neighbors(geometry, height, width, device).valid
    per_pixel = valid.view(1, height, width, 1, geometry.num_taps)
    filler = torch.ones(1, geometry.num_taps, dtype=torch.bool, device=device)
    return _partition(per_pixel, geometry, filler).permute(1, 3, 2, 0, 4).squeeze(3)


def _partition(
    x: Shaped[Tensor, "batch height width heads channels"],
    geometry: Geometry,
    outside: Shaped[Tensor, "heads channels"] | None,
) -> Shaped[Tensor, "batch windows taps heads channels"]:
    """Move the map by the shift, fill it up at its end, cut it into windows."""
    rows, columns = geometry.kernel_size
    if any(geometry.shift):
        x = x.roll((-geometry.shift[0], -geometry.shift[1]), dims=(1, 2))
    missing = -x.shape[1] % rows, -x.shape[2] % columns
    if any(missing):
        inside = x
        x = pad(inside, (0, 0, 0, 0, 0, missing[1], 0, missing[0]))
        if outside is not None:
            filled = torch.ones(inside.shape[1:3], dtype=torch.bool, device=x.device)
            filled = pad(filled, (0, missing[1], 0, missing[0]))[..., None, None]
            x = torch.where(filled, x, outside.to(x.dtype))
    x = x.unflatten(2, (-1, columns)).unflatten(1, (-1, rows))  # (B, nH, rows, nW, columns, heads, D)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _merge(x: Float[Tensor, "batch windows taps heads head_dim"], geometry: Geometry, height: int, width: int) -> Map:
    """The inverse of `_partition`; what lies outside the map is dropped."""
    rows, columns = geometry.kernel_size
    down, across = -(-height // rows), -(-width // columns)
    x = x.unflatten(2, (rows, columns)).unflatten(1, (down, across)).transpose(2, 3)
    x = x.flatten(3, 4).flatten(1, 2)[:, :height, :width]
    return x.roll(geometry.shift, dims=(1, 2)) if any(geometry.shift) else x


def _make_logits(terms: Terms, geometry: Geometry, outside: Outside, device: torch.device) -> Tensor:
    """Logits (batch, windows, heads, query taps, key taps), broadcastable over batch and windows."""
    offset = _tap_offsets(geometry, device)
    q = None if terms.q is None else _partition(terms.q, geometry, None)
    k = None if terms.k is None else _partition(terms.k, geometry, outside.k)
    rk, rq, rb = (None if x is None else take_rows(x, offset) for x in (terms.rk, terms.rq, terms.rb))
    return join_terms(Terms(q, k, rk, rq, None if rb is None else rb[None, None], terms.scale), LAYOUT)


def attend(
    terms: Terms,
    v: Map,
    geometry: Geometry,
    normalization: Normalization,
    aggregation: Aggregation,  # noqa: ARG001 - the support mapping admits the weighted sum alone
    outside: Outside,
    dropout_p: float,
) -> Map:
    """Eq. 4 of arXiv:2112.12786 in (shifted) windows."""
    height, width = v.shape[1:3]
    values = _partition(v, geometry, outside.v)
    logits = _make_logits(terms, geometry, outside, v.device)
    weights = normalization(logits, _valid_taps(geometry, height, width, v.device))
    weights = dropout(weights.expand(*values.shape[:2], -1, -1, -1), dropout_p)
    return _merge(torch.einsum("bwhij,bwjhd->bwihd", weights, values), geometry, height, width)
