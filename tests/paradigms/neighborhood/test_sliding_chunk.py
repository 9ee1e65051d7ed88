"""Sliding chunks against loops over pairs of pixels, and against the sliding window that they contain."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from paradigms.attention import LocalAttention
from paradigms.config import TERMS, AttentionConfig
from paradigms.facts import NEIGHBORHOODS as FACTS
from paradigms.facts import NORMALIZATIONS
from paradigms.functional import make_neighbors
from paradigms.neighborhood import NEIGHBORHOODS

from ..conftest import BATCH, DIM, HEADS, make_input, make_operator
from ..covering import pairwise

Size = tuple[int, int]

CHUNKS = AttentionConfig(parameterization=TERMS, neighborhood="sliding_chunk", chunk_size=(2, 3))
SIZES = [(8, 9), (9, 8), (5, 3), (1, 2)]
exactness = pytest.mark.parametrize("exact", [False, True], ids=["whole", "exact"])
sizes = pytest.mark.parametrize("size", SIZES, ids=["fits", "does-not-fit", "two-chunks", "less-than-a-chunk"])


def _sees(query: Size, key: Size, chunk: Size, *, exact: bool) -> bool:
    """Whether the key lies in a chunk next to the query's; if exact, no further away than a chunk is long."""
    axes = list(zip(query, key, chunk, strict=True))
    beside = all(abs(q // w - k // w) <= 1 for q, k, w in axes)
    return beside and not (exact and any(abs(q - k) > w for q, k, w in axes))


def _loop(operator: LocalAttention, x: Tensor, chunk: Size, *, exact: bool) -> Tensor:
    """Eq. 4 with softmax, pair by pair of pixels; nothing outside is counted."""
    terms, (_, height, width, _) = operator.parameterization(x), x.shape
    v = operator.v(x).unflatten(-1, (HEADS, -1))
    reach = chunk if exact else (2 * chunk[0] - 1, 2 * chunk[1] - 1)
    pixels = [(y, z) for y in range(height) for z in range(width)]
    out = torch.zeros_like(v)
    for query in pixels:
        seen = [key for key in pixels if _sees(query, key, chunk, exact=exact)]
        logits = []
        for key in seen:
            offset = (key[0] - query[0] + reach[0]) * (2 * reach[1] + 1) + key[1] - query[1] + reach[1]
            q, k, rk, rq = terms.q[:, *query], terms.k[:, *key], terms.rk[:, offset], terms.rq[:, offset]
            logits.append((terms.scale * q * k + q * rk + rq * k).sum(dim=-1) + terms.rb[:, offset])
        weights = torch.stack(logits).softmax(dim=0)
        out[:, *query] = sum(weight[..., None] * v[:, *key] for weight, key in zip(weights, seen, strict=True))
    return operator.proj(out.flatten(-2))  # type: ignore[no-any-return]


@exactness
@sizes
def test_a_query_mixes_the_chunks_around_it(size: Size, exact: bool) -> None:
    operator, x = make_operator(replace(CHUNKS, exact=exact)), make_input(*size)
    assert torch.allclose(operator(x), _loop(operator, x, (2, 3), exact=exact), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("size", "exact", "normalization", "border"),
    pairwise(SIZES, [False, True], NORMALIZATIONS, FACTS["sliding_chunk"].borders),
)
def test_the_fast_path_equals_the_reference(size: Size, exact: bool, normalization: str, border: str) -> None:
    config = replace(CHUNKS, exact=exact, normalization=normalization, border=border, backend="torch")
    found = []
    for backend in ("torch", "reference"):
        operator, x = make_operator(replace(config, backend=backend)), make_input(*size).requires_grad_()
        y = operator(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *operator.parameters()])])
    for actual, expected in zip(*found, strict=True):
        assert torch.allclose(actual, expected, rtol=1e-10, atol=1e-10)


@sizes
def test_exact_chunks_are_the_sliding_window_that_reaches_one_chunk(size: Size) -> None:
    window = AttentionConfig(parameterization=TERMS, neighborhood="sliding_window", kernel_size=(5, 7), border="mask")
    chunks, sliding, x = make_operator(replace(CHUNKS, exact=True)), make_operator(window), make_input(*size)
    sliding.load_state_dict(chunks.state_dict())
    assert torch.equal(chunks(x), sliding(x))


@pytest.mark.parametrize(("exact", "reach"), [(False, (9, 9)), (True, (7, 7))], ids=["whole", "exact"])
def test_by_default_chunks_reach_as_far_as_net7_n(exact: bool, reach: Size) -> None:
    geometry = (
        NEIGHBORHOODS["sliding_chunk"].from_config(AttentionConfig(neighborhood="sliding_chunk", exact=exact)).geometry
    )
    assert geometry.kernel_size == reach
    index, valid, _ = make_neighbors(geometry, 15, 15)
    middle = index[7 * 15 + 7][valid[7 * 15 + 7]]
    assert len(middle.unique()) == reach[0] * reach[1]


@pytest.mark.parametrize(("border", "counted"), [("mask", 4 * 6), ("zero", 6 * 9), ("project", 6 * 9)])
def test_chunks_beyond_a_corner_are_counted_as_the_border_says(border: str, counted: int) -> None:
    geometry = NEIGHBORHOODS["sliding_chunk"].from_config(replace(CHUNKS, border=border)).geometry
    index, valid, _ = make_neighbors(geometry, 8, 9)
    assert int(valid[0].sum()) == counted
    assert int((index[0] < 8 * 9).sum()) == 4 * 6


def test_offsets_are_those_between_pixels() -> None:
    geometry = NEIGHBORHOODS["sliding_chunk"].from_config(CHUNKS).geometry
    assert geometry.offset_span == (7, 11)
    index, valid, offset = make_neighbors(geometry, 9, 8)
    for query in range(9 * 8):
        keys = index[query][valid[query]]
        down, across = keys // 8 - query // 8, keys % 8 - query % 8
        assert torch.equal(offset[query][valid[query]], (down + 3) * 11 + across + 5)


@pytest.mark.parametrize(("exact", "num_taps"), [(False, 6 * 9), (True, 5 * 7)], ids=["whole", "exact"])
def test_every_tap_of_the_chunks_costs_its_products(exact: bool, num_taps: int) -> None:
    operator, size = make_operator(replace(CHUNKS, exact=exact)).to("meta"), (9, 8)
    with FlopCounterMode(display=False) as counter:
        operator(make_input(*size).to("meta"))
    num_queries, products, projections = BATCH * size[0] * size[1], 4, 4
    expected = num_queries * DIM * (products * num_taps + projections * DIM)
    assert counter.get_total_flops() == 2 * expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chunk_size": 0}, "chunk_size must be at least 1, got 0"),
        ({"border": "shift"}, "unknown border of sliding_chunk 'shift'"),
        ({"backend": "cpu", "border": "project"}, "has no kernel for sliding_chunk, project"),
    ],
    ids=str,
)
def test_an_impossible_chunk_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CHUNKS, **fields)


def test_a_chunk_of_one_pixel_has_taps_enough_for_filter_norm() -> None:
    operator = make_operator(replace(CHUNKS, chunk_size=1, normalization="filter_norm"))
    assert operator(make_input()).isfinite().all()


def test_what_other_neighborhoods_read_does_not_tell_chunks_apart() -> None:
    assert (
        replace(CHUNKS, window_size=3, shift_size=1, kernel_size=5, dilation=2).to_canonical() == CHUNKS.to_canonical()
    )
    assert replace(CHUNKS, exact=True).to_canonical() != CHUNKS.to_canonical()
    assert "exact" not in AttentionConfig(exact=True).to_canonical()
