"""Types that the rooms share, and the reference mathematics: stateless, exact in float64.

Notation: N = height x width queries, K taps of a neighborhood, `offsets` rows of a position table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from paradigms.constants import load_constants

CPU = torch.device("cpu")
Array = np.ndarray


class Terms(NamedTuple):
    """The operands of Eq. 4's logits; a term whose tensors are None is absent.

    logits[i, j] = scale * q_i·k_j + q_i·rk_{j-i} + rq_{j-i}·k_j + rb_{j-i}, and `scale` None means no q·k.
    """

    q: Float[Tensor, "batch height width heads head_dim"] | None
    k: Float[Tensor, "batch height width heads head_dim"] | None
    rk: Float[Tensor, "heads offsets head_dim"] | None
    rq: Float[Tensor, "heads offsets head_dim"] | None
    rb: Float[Tensor, "heads offsets"] | None
    scale: float | None


Scores = Terms | Float[Tensor, "#batch #height #width #heads taps"]
"""The result of a parameterization. Its kind, `scores`, is one of three: `terms`, the operands of Eq. 4's logits;
`shared_terms`, the same with one head of queries and keys that has all channels; `logits`, the logits themselves."""


class Outside(NamedTuple):
    """The key and the value of taps outside the map; None for zeros."""

    k: Float[Tensor, "heads head_dim"] | None
    v: Float[Tensor, "heads head_dim"] | None


@dataclass(frozen=True)
class Geometry:
    """The keys that a query sees, as an argument of kernels; sizes are (rows, columns) in pixels.

    Attributes:
        kind: `window` (a partition of the map), `sliding` (an area centred on the query) or `chunk` (three chunks of a
            partition along each axis); a key of `AXIS_RULES`.
        kernel_size: of the window, of the sliding kernel, or of the three chunks.
        dilation: distance between two taps of a sliding kernel.
        border: the rule for taps outside the map: `mask`, `zero`, `project` or `shift`.
        shift: by how much the partition is moved; (0, 0) for no shift.
    """

    kind: str
    kernel_size: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    border: str = "zero"
    shift: tuple[int, int] = (0, 0)

    @property
    def num_taps(self) -> int:
        """K: the number of keys that one query sees, including those outside the map."""
        return self.kernel_size[0] * self.kernel_size[1]

    @property
    def offset_span(self) -> tuple[int, int]:
        """Number of different offsets along each axis."""
        count = get_axis_rule(self).count_offsets
        return count(self.kernel_size[0]), count(self.kernel_size[1])

    @property
    def num_offsets(self) -> int:
        """Number of rows of a position table."""
        return self.offset_span[0] * self.offset_span[1]


class Neighbors(NamedTuple):
    """For every query of a map, its taps; row-major over rows and columns of the kernel.

    Attributes:
        index: the key's pixel; N for a tap outside the map.
        valid: whether the normalization counts the tap.
        offset: the tap's row in a position table.
    """

    index: Int[Tensor, "queries taps"]  # type: ignore[assignment]  # hides tuple.index
    valid: Bool[Tensor, "queries taps"]
    offset: Int[Tensor, "queries taps"]


@runtime_checkable
class Normalization(Protocol):
    """Converts logits to weights over the last axis; taps that are not `valid` (None: all are) get weight zero.

    The other axes broadcast: logits may be shared by a batch or by windows.
    """

    kind: str

    def __call__(
        self, logits: Float[Tensor, "... taps"], valid: Bool[Tensor, "... taps"] | None
    ) -> Float[Tensor, "... taps"]:
        """Normalize logits over the taps."""
        ...


class Aggregation(NamedTuple):
    """How weights and values are combined: f_i = Σ_j (mul ⊙ w_ij + add) v_j, with a filter for each of `ghosts` groups.

    A ghost is a group of adjacent channels of a head: ghost g belongs to head g // (ghosts / heads).

    Attributes:
        mul: the factor of a weight; None: one.
        add: the number that is added to it at every counted tap; None: zero.
    """

    mul: Float[Tensor, "#batch ghosts offsets"] | None = None
    add: Float[Tensor, "#batch ghosts offsets"] | None = None

    @property
    def kind(self) -> str:
        """The kind of formula, by which kernels are selected."""
        if self.mul is not None:
            return "filtered"
        return "weighted_sum" if self.add is None else "added"

    @property
    def products(self) -> int:
        """Number of multiply-adds per value and tap."""
        return 1 + (self.mul is not None) + (self.add is not None)


class Axis(NamedTuple):
    """The taps of one axis; the neighborhood is the product of two."""

    position: Int[Array, "length size"]  # the key's coordinate, -1 outside the map
    connected: Bool[Array, "length size"]
    offset: Int[Array, "length size"]


class CutAxis(NamedTuple):
    """An axis that is shifted, padded at its end to a multiple of the window, and cut into windows."""

    position: Int[Array, "padded"]  # the pixel at each place, -1 outside the map
    region: Int[Array, "padded"]  # within a window, places see only places of the same region


def cut_axis(geometry: Geometry, dim: int, length: int) -> CutAxis:
    """Shift an axis cyclically, pad it and cut it into windows.

    Pixels that the shift wraps around must not see the others; they form a region of their own. As in timm, regions are
    counted on the padded axis. The code of the Swin paper pads before it shifts. The two differ only if the map is not
    a multiple of the window.
    """
    size, shift = geometry.kernel_size[dim], geometry.shift[dim] % length
    padded = -(-length // size) * size
    place = np.arange(padded)
    position = np.where(place < length, (place + shift) % length, -1)
    region = 1 * (place >= padded - size) + (place >= padded - shift) if shift else np.zeros_like(place)
    return CutAxis(position, region)


def _window_axis(geometry: Geometry, dim: int, length: int) -> Axis:
    """Taps: the window of the query."""
    size, shift = geometry.kernel_size[dim], geometry.shift[dim] % length
    cut = cut_axis(geometry, dim, length)
    place = (np.arange(length)[:, None] - shift) % length
    key = place // size * size + np.arange(size)
    return Axis(cut.position[key], cut.region[key] == cut.region[place], key - place + size - 1)


def _centred_axis(geometry: Geometry, dim: int, length: int) -> Axis:
    """Taps: the positions around the query, some of them outside the map."""
    size, dilation = geometry.kernel_size[dim], geometry.dilation[dim]
    position = np.arange(length)[:, None] + dilation * (np.arange(size) - size // 2)
    inside = (position >= 0) & (position < length)
    offset = np.broadcast_to(np.arange(size), (length, size))
    return Axis(np.where(inside, position, -1), np.ones_like(inside), offset)


def _clamped_axis(geometry: Geometry, dim: int, length: int) -> Axis:
    """Taps: the positions around the query, moved inside the axis in each phase of the dilation (arXiv:2204.07143).

    If a phase has fewer positions than the kernel has taps, a query sees all of them and the remaining taps are not
    connected.
    """
    size, dilation = geometry.kernel_size[dim], geometry.dilation[dim]
    query = np.arange(length)[:, None]
    phase, rank = query % dilation, query // dilation
    available = (length - phase + dilation - 1) // dilation
    start = np.minimum(np.maximum(rank - size // 2, 0), np.maximum(available - size, 0))
    key = start + np.arange(size)
    connected = key < available
    return Axis(np.where(connected, phase + dilation * key, -1), connected, key - rank + size - 1)


def _chunk_axis(geometry: Geometry, dim: int, length: int) -> Axis:
    """Taps: the chunk of the query and the two chunks beside it, which may lie outside the map."""
    size = geometry.kernel_size[dim] // 3
    query = np.arange(length)[:, None]
    position = (query // size - 1) * size + np.arange(3 * size)
    inside = (position >= 0) & (position < length)
    return Axis(np.where(inside, position, -1), np.ones_like(inside), position - query + 2 * size - 1)


class AxisRule(NamedTuple):
    """The rule of a kind of geometry along one axis.

    Attributes:
        list_taps: from a geometry, the dimension (0 rows, 1 columns) and the length of the map to the taps.
        count_offsets: from the size k along an axis to the number of offsets: k if taps move with the query, more if
            the offset of a tap depends on the position of the query.
    """

    list_taps: Callable[[Geometry, int, int], Axis]
    count_offsets: Callable[[int], int]


AXIS_RULES = {
    "window": AxisRule(_window_axis, lambda size: 2 * size - 1),
    "sliding": AxisRule(_centred_axis, lambda size: size),
    "chunk": AxisRule(_chunk_axis, lambda size: 4 * size // 3 - 1),
    "clamped": AxisRule(_clamped_axis, lambda size: 2 * size - 1),
}
"""Rules by the kind of a geometry; `clamped` is `sliding` with the border `shift`."""


def get_axis_rule(geometry: Geometry) -> AxisRule:
    """The rule of a geometry along one axis."""
    return AXIS_RULES["clamped" if geometry.border == "shift" else geometry.kind]


def list_axis_taps(geometry: Geometry, dim: int, length: int) -> Axis:
    """The taps of every query along one axis of this length: rows (`dim` 0) or columns (1)."""
    return get_axis_rule(geometry).list_taps(geometry, dim, length)


class NeighborArrays(NamedTuple):
    """`Neighbors` as arrays; derived values are computed from arrays and converted to tensors last."""

    index: Int[Array, "queries taps"]  # type: ignore[assignment]  # hides tuple.index
    valid: Bool[Array, "queries taps"]
    offset: Int[Array, "queries taps"]


def list_taps(geometry: Geometry, height: int, width: int) -> NeighborArrays:
    """List every query's taps on a map of `height` x `width` pixels."""
    rows, columns = list_axis_taps(geometry, 0, height), list_axis_taps(geometry, 1, width)

    def cross(row: Array, column: Array, combine: Callable[[Array, Array], Array]) -> Array:
        both = combine(row[:, None, :, None], column[None, :, None, :])
        return both.reshape(height * width, geometry.num_taps)

    inside = cross(rows.position, columns.position, lambda y, x: (y >= 0) & (x >= 0))
    pixel = cross(rows.position, columns.position, lambda y, x: y * width + x)
    connected = cross(rows.connected, columns.connected, np.logical_and)
    offset = cross(rows.offset, columns.offset, lambda y, x: y * geometry.offset_span[1] + x)
    index = np.where(inside, pixel, height * width)
    valid = connected & inside if geometry.border in ("mask", "shift") else connected
    return NeighborArrays(index, valid, np.where(connected, offset, 0))


def make_neighbors(geometry: Geometry, height: int, width: int, device: torch.device = CPU) -> Neighbors:
    """Every query's taps on a map of `height` x `width` pixels, as tensors."""
    return Neighbors(*load_constants(list_taps, geometry, height, width, device=device))


def gather_taps(
    x: Float[Tensor, "batch height width heads head_dim"],
    outside: Float[Tensor, "heads head_dim"] | None,
    index: Int[Tensor, "queries taps"],
) -> Float[Tensor, "batch queries taps heads head_dim"]:
    """Gather the K neighbors of every query in `x`; taps outside the map get `outside` (None: zeros)."""
    pixels = x.flatten(1, 2)
    filler = pixels.new_zeros(x.shape[-2:]) if outside is None else outside.to(x.dtype)
    return take_rows(torch.cat([pixels, filler.expand(len(x), 1, -1, -1)], dim=1), index)


def take_rows(x: Float[Tensor, "first rows *rest"], index: Int[Tensor, "queries taps"]) -> Float[Tensor, "..."]:
    """`x[:, index]`, with a gradient whose order of sums does not depend on the number of threads."""
    return x.index_select(1, index.flatten()).unflatten(1, index.shape)  # type: ignore[no-any-return]


def make_logits(
    terms: Terms,
    keys: Float[Tensor, "batch queries taps #heads head_dim"] | None,
    offset: Int[Tensor, "queries taps"],
) -> Float[Tensor, "#batch heads queries taps"]:
    """Eq. 4's logits (arXiv:2112.12786): the sum of the terms that are present."""
    parts: list[Tensor] = []
    q = None if terms.q is None else terms.q.flatten(1, 2)
    if terms.scale is not None:
        assert q is not None and keys is not None
        parts.append(terms.scale * torch.einsum("bnhd,bnkhd->bhnk", q, keys))
    if terms.rk is not None:
        assert q is not None
        parts.append(torch.einsum("bnhd,hnkd->bhnk", q, take_rows(terms.rk, offset)))
    if terms.rq is not None:
        assert keys is not None
        parts.append(torch.einsum("hnkd,bnkhd->bhnk", take_rows(terms.rq, offset), keys))
    if terms.rb is not None:
        parts.append(take_rows(terms.rb, offset)[None])
    assert len(parts) > 0  # torch.compile cannot trace bool(list)
    return sum(parts[1:], start=parts[0])


def standardize(
    filters: Float[Tensor, "... taps"], valid: Bool[Tensor, "... taps"] | None, *, gain: float = 1.0
) -> Float[Tensor, "... taps"]:
    """Standardize filters to mean 0 and standard deviation `gain` over the counted taps (arXiv:2104.14107).

    Other taps become zero; `valid` None counts all. The standard deviation is the unbiased one plus 1e-10. If all
    numbers are equal up to rounding, the result and the gradients are zero.
    """
    counted = torch.ones_like(filters, dtype=torch.bool) if valid is None else valid
    count = counted.sum(dim=-1, keepdim=True)
    shown = torch.where(counted, filters, 0)
    mean = shown.sum(dim=-1, keepdim=True) / count
    centred = torch.where(counted, filters - mean, 0)
    variance = centred.square().sum(dim=-1, keepdim=True) / (count - 1)
    # equal numbers, as on a black background, differ by rounding errors, which must not be scaled up to the gain
    rounding = 4 * torch.finfo(filters.dtype).eps * shown.detach().abs().amax(dim=-1, keepdim=True)
    flat = variance <= rounding.square()
    deviation = torch.where(flat, 1, variance).sqrt()
    return (gain * centred / (deviation + 1e-10)).masked_fill(flat, 0)


def apply_weights(
    weights: Float[Tensor, "batch heads queries taps"],
    values: Float[Tensor, "batch queries taps heads head_dim"],
    aggregation: Aggregation,
    valid: Bool[Tensor, "queries taps"],
    offset: Int[Tensor, "queries taps"],
) -> Float[Tensor, "batch queries heads head_dim"]:
    """Combine weights and values."""
    filters = [static for static in (aggregation.mul, aggregation.add) if static is not None]
    ghosts = filters[0].shape[1] if filters else weights.shape[1]
    weights = weights.repeat_interleave(ghosts // weights.shape[1], dim=1)
    if aggregation.mul is not None:
        weights = weights * _take_offsets(aggregation.mul, offset)
    if aggregation.add is not None:
        weights = weights + _take_offsets(aggregation.add, offset) * valid
    channels = values.flatten(-2).unflatten(-1, (ghosts, -1))
    return torch.einsum("bgnk,bnkgd->bngd", weights, channels).flatten(-2).unflatten(-1, values.shape[-2:])  # type: ignore[no-any-return]


def _take_offsets(
    filters: Float[Tensor, "batch ghosts offsets"], offset: Int[Tensor, "queries taps"]
) -> Float[Tensor, "batch ghosts queries taps"]:
    """`take_rows` along the last axis."""
    return filters.index_select(-1, offset.flatten()).unflatten(-1, offset.shape)  # type: ignore[no-any-return]


def count_multiply_adds(
    scores: Scores, v: Float[Tensor, "batch height width heads head_dim"], geometry: Geometry, aggregation: Aggregation
) -> int:
    """Multiply-adds between the projections: head_dim per query, tap and product.

    Products are q·k, q·rk and rq·k if present, and those of the aggregation. Taps outside the map count. rb, the
    normalization, the scale and given logits do not count.
    """
    slots = v.shape[:3].numel() * geometry.num_taps
    found = slots * v.shape[3:].numel() * aggregation.products
    if isinstance(scores, Terms):
        for left, right in ((scores.scale, scores.q), (scores.rk, scores.rk), (scores.rq, scores.rq)):
            found += 0 if left is None or right is None else slots * v.shape[3] * right.shape[-1]
    return found


@torch.library.custom_op("paradigms::counted", mutates_args=())
def _counted(v: Tensor, multiply_adds: int) -> Tensor:  # noqa: ARG001 - read by the flop formula
    """An empty result with a declared cost."""
    return torch.empty_like(v)


@_counted.register_fake
def _(v: Tensor, multiply_adds: int) -> Tensor:  # noqa: ARG001 - the signature of the operator
    return torch.empty_like(v)


@register_flop_formula(torch.ops.paradigms.counted)
def _counted_flops(_v: object, multiply_adds: int, **_: object) -> int:
    return 2 * multiply_adds


def declare_cost(x: Tensor, multiply_adds: int) -> Tensor:
    """Report the cost of computing `x` to `torch.utils.flop_counter`, on the meta device."""
    return torch.ops.paradigms.counted(x, multiply_adds)  # type: ignore[no-any-return]


def multiply(q: Float[Tensor, "*shape"], k: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """q⊙k of Hadamard attention (Eq. 7 of arXiv:2112.12786), counted as one multiply-add per entry."""
    product = q * k
    return declare_cost(product, product.numel()) if product.is_meta else product
