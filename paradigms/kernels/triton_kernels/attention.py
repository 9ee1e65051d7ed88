"""Fused softmax attention over sliding windows: one forward pass, backward by gathers without atomics.

In the forward pass, a program processes a block of queries and loops over their taps with an online softmax. The
backward pass has three kernels. The first loops over the taps of each query again. The second loops over the queries
that see each key. The third loops over all queries for each row of the position tables; every program takes a chunk of
queries, and torch adds their partial sums. The results do not depend on the order in which programs run.
"""

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from paradigms.kernels.problem import Operands, Problem, lse_dtype
from paradigms.kernels.triton_kernels.tile import (
    NUM_WARPS,
    Extent,
    Strided,
    Tile,
    Window,
    choose_tile,
    find_block,
    find_distance,
    find_keys,
    find_row,
    load_rows,
    load_tile,
    make_grid,
    sees,
    store_rows,
    to_strided,
    to_window,
)

MAX_CHUNKS = 64
"""Number of programs per row of the position tables, and of partial sums of the tables."""


class Inputs(NamedTuple):
    """The operands of the output; None for absent ones."""

    q: Strided | None
    k: Strided | None
    v: Strided
    rk: Tensor | None
    rq: Tensor | None
    rb: Tensor | None


class Constants(NamedTuple):
    """The compile-time constants of a kernel."""

    window: Window
    tile: Tile
    scale: float | None
    dropout_p: float


class Launch(NamedTuple):
    """The arguments of a kernel launch."""

    inputs: Inputs
    extent: Extent
    seed: int
    constants: Constants


@triton.jit
@no_type_check
def _mix_terms(x, table, entry, constants: tl.constexpr):
    """The factor of keys or of queries in the logits: scale * x + rows of the table; either may be absent."""
    y = tl.zeros_like(x)
    if constants.scale is not None:
        y += x * constants.scale
    if table is not None:
        y += load_rows(table, entry, constants.tile)
    return y


@triton.jit
@no_type_check
def _make_logits(inputs, q, k, entry, constants: tl.constexpr):
    """Eq. 4 of arXiv:2112.12786 for queries, keys and their rows in the tables, with one sum over channels."""
    products = k * _mix_terms(q, inputs.rq, entry, constants)
    if inputs.rk is not None:
        products += q * load_rows(inputs.rk, entry, constants.tile)
    logits = tl.sum(products, axis=1)
    if inputs.rb is not None:
        logits += tl.load(inputs.rb + entry).to(constants.tile.dtype)
    return logits


@triton.jit
@no_type_check
def _make_weights(logits, counted, normalizer, query, exists):
    """Recompute the weights of the forward pass from the logits of each query."""
    top = tl.load(normalizer + 2 * query, mask=exists, other=0.0)
    total = tl.load(normalizer + 2 * query + 1, mask=exists, other=1.0)
    return tl.exp(tl.where(counted, logits - top, float("-inf"))) / total


@triton.jit
@no_type_check
def _draw_factors(seed, pixel, offset, place, constants: tl.constexpr):
    """Zero for dropped weights, 1 / (1 - p) for others. Philox counts by weight, so that all kernels draw the same."""
    if constants.dropout_p == 0.0:
        return tl.full([constants.tile.block], 1.0, constants.tile.dtype)
    else:
        zero = tl.zeros([constants.tile.block], tl.int32)
        bits, _, _, _ = tl.philox(seed, zero + pixel, zero + offset, zero + place, zero)
        kept = tl.uint_to_uniform_float(bits) >= constants.dropout_p
        factor: tl.constexpr = 1.0 / (1.0 - constants.dropout_p) if constants.dropout_p < 1.0 else 0.0
        return kept.to(constants.tile.dtype) * factor


@triton.jit(do_not_specialize=["seed"])
@no_type_check
def forward(inputs, extent, seed, out, normalizer, constants: tl.constexpr):
    """The output and the normalizer of the softmax: the largest logit m, and Σ e^(logit - m)."""
    window: tl.constexpr = constants.window
    tile: tl.constexpr = constants.tile
    batch, head, pixel, exists = find_block(extent, tile.block)
    q = load_tile(inputs.q, batch, pixel // extent.width, pixel % extent.width, head, exists, tile)
    highest = tl.full([tile.block], -3e38, tile.dtype)
    total = tl.zeros([tile.block], tile.dtype)
    mixed = tl.zeros([tile.block, tile.padded], tile.dtype)
    for tap in range(window.size[0] * window.size[1]):
        row, column, inside, offset = find_keys(pixel, tap, extent, window)
        k = load_tile(inputs.k, batch, row, column, head, inside, tile)
        v = load_tile(inputs.v, batch, row, column, head, inside, tile)
        logits = _make_logits(inputs, q, k, head * window.offsets + offset, constants)
        counted = inside | (window.border == "zero")
        new_highest = tl.maximum(highest, tl.where(counted, logits, highest))
        fade = tl.exp(highest - new_highest)
        weights = tl.exp(tl.where(counted, logits - new_highest, float("-inf")))
        highest = new_highest
        total = total * fade + weights
        weights *= _draw_factors(seed, pixel, offset, batch * extent.heads + head, constants)
        mixed = mixed * fade[:, None] + weights[:, None] * v
    here = find_row(extent, batch, pixel, head)
    store_rows(out, here, mixed / total[:, None], exists, tile)
    tl.store(normalizer + 2 * here, highest, mask=exists)
    tl.store(normalizer + 2 * here + 1, total, mask=exists)


@triton.jit(do_not_specialize=["seed"])
@no_type_check
def backward_of_queries(inputs, extent, seed, grad, normalizer, delta, grad_q, constants: tl.constexpr):
    """The gradient of q, and delta = Σ P dP, which the other kernels read.

    One loop over the taps suffices, since Σ P (dP - delta) x = Σ P dP x - delta Σ P x.
    """
    window: tl.constexpr = constants.window
    tile: tl.constexpr = constants.tile
    batch, head, pixel, exists = find_block(extent, tile.block)
    here = find_row(extent, batch, pixel, head)
    q = load_tile(inputs.q, batch, pixel // extent.width, pixel % extent.width, head, exists, tile)
    g = load_tile(grad, batch, pixel // extent.width, pixel % extent.width, head, exists, tile)
    sums = tl.zeros([tile.block], tile.dtype)
    sums_of_x = tl.zeros([tile.block, tile.padded], tile.dtype)
    means = tl.zeros([tile.block, tile.padded], tile.dtype)
    for tap in range(window.size[0] * window.size[1]):
        row, column, inside, offset = find_keys(pixel, tap, extent, window)
        k = load_tile(inputs.k, batch, row, column, head, inside, tile)
        v = load_tile(inputs.v, batch, row, column, head, inside, tile)
        entry = head * window.offsets + offset
        counted = inside | (window.border == "zero")
        logits = _make_logits(inputs, q, k, entry, constants)
        weights = _make_weights(logits, counted, normalizer, here, exists)
        factors = _draw_factors(seed, pixel, offset, batch * extent.heads + head, constants)
        shares = weights * factors * tl.sum(g * v, axis=1)
        sums += shares
        if inputs.q is not None:
            x = _mix_terms(k, inputs.rk, entry, constants)
            sums_of_x += shares[:, None] * x
            means += weights[:, None] * x
    tl.store(delta + here, sums, mask=exists)
    if inputs.q is not None:
        store_rows(grad_q, here, sums_of_x - sums[:, None] * means, exists, tile)


@triton.jit(do_not_specialize=["seed"])
@no_type_check
def backward_of_keys(inputs, extent, seed, grad, normalizer, delta, grad_k, grad_v, constants: tl.constexpr):
    """The gradients of k and v: a loop over the queries that see each key."""
    window: tl.constexpr = constants.window
    tile: tl.constexpr = constants.tile
    batch, head, pixel, exists = find_block(extent, tile.block)
    key_row, key_column = pixel // extent.width, pixel % extent.width
    k = load_tile(inputs.k, batch, key_row, key_column, head, exists, tile)
    v = load_tile(inputs.v, batch, key_row, key_column, head, exists, tile)
    to_k = tl.zeros([tile.block, tile.padded], tile.dtype)
    to_v = tl.zeros([tile.block, tile.padded], tile.dtype)
    for offset in range(window.offsets):
        down, across = find_distance(offset, window)
        row, column = key_row - down, key_column - across
        seen = sees(row, column, key_row, key_column, extent, window)
        there = find_row(extent, batch, row * extent.width + column, head)
        q = load_tile(inputs.q, batch, row, column, head, seen, tile)
        g = load_tile(grad, batch, row, column, head, seen, tile)
        entry = head * window.offsets + offset + tl.zeros([1], tl.int32)
        logits = _make_logits(inputs, q, k, entry, constants)
        weights = _make_weights(logits, seen, normalizer, there, seen)
        place = batch * extent.heads + head
        factors = _draw_factors(seed, row * extent.width + column, offset, place, constants)
        to_v += (weights * factors)[:, None] * g
        if inputs.k is not None:
            pull = weights * (tl.sum(g * v, axis=1) * factors - tl.load(delta + there, mask=seen, other=0.0))
            to_k += pull[:, None] * _mix_terms(q, inputs.rq, entry, constants)
    here = find_row(extent, batch, pixel, head)
    store_rows(grad_v, here, to_v, exists, tile)
    if inputs.k is not None:
        store_rows(grad_k, here, to_k, exists, tile)


@triton.jit(do_not_specialize=["seed"])
@no_type_check
def backward_of_tables(
    inputs, extent, seed, grad, normalizer, delta, grad_rk, grad_rq, grad_rb, blocks_per_chunk, constants: tl.constexpr
):
    """Partial sums (chunks, heads, offsets, ...) of the gradients of rk, rq, rb: a loop over queries per offset."""
    window: tl.constexpr = constants.window
    tile: tl.constexpr = constants.tile
    offset, head, chunk = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    down, across = find_distance(offset, window)
    entry = head * window.offsets + offset + tl.zeros([1], tl.int32)
    pixels = extent.height * extent.width
    to_rk = tl.zeros([tile.block, tile.padded], tile.dtype)
    to_rq = tl.zeros([tile.block, tile.padded], tile.dtype)
    to_rb = tl.zeros([tile.block], tile.dtype)
    for step in range(blocks_per_chunk):
        number = (tl.cast(chunk, tl.int64) * blocks_per_chunk + step) * tile.block + tl.arange(0, tile.block)
        batch, pixel = number // pixels, (number % pixels).to(tl.int32)
        row, column = pixel // extent.width, pixel % extent.width
        exists = batch < extent.batch
        seen = exists & sees(row, column, row + down, column + across, extent, window)
        counted = (seen | (window.border == "zero")) & exists
        q = load_tile(inputs.q, batch, row, column, head, exists, tile)
        g = load_tile(grad, batch, row, column, head, exists, tile)
        k = load_tile(inputs.k, batch, row + down, column + across, head, seen, tile)
        v = load_tile(inputs.v, batch, row + down, column + across, head, seen, tile)
        here = find_row(extent, batch, pixel, head)
        logits = _make_logits(inputs, q, k, entry, constants)
        weights = _make_weights(logits, counted, normalizer, here, exists)
        place = (batch * extent.heads + head).to(tl.int32)
        factors = _draw_factors(seed, pixel, offset, place, constants)
        pull = weights * (tl.sum(g * v, axis=1) * factors - tl.load(delta + here, mask=exists, other=0.0))
        to_rk += pull[:, None] * q
        to_rq += pull[:, None] * k
        to_rb += pull
    entry = (chunk * extent.heads).to(tl.int64) * window.offsets + entry
    always = tl.full([1], 1, tl.int1)
    if grad_rk is not None:
        store_rows(grad_rk, entry, tl.sum(to_rk, axis=0)[None, :], always, tile)
    if grad_rq is not None:
        store_rows(grad_rq, entry, tl.sum(to_rq, axis=0)[None, :], always, tile)
    if grad_rb is not None:
        tl.store(grad_rb + entry, tl.sum(to_rb, axis=0)[None])


def _make_launch(problem: Problem) -> Launch:
    terms, v = problem.terms, problem.v
    q = terms.q if terms.scale is not None or terms.rk is not None else None
    k = terms.k if terms.scale is not None or terms.rq is not None else None
    inputs = Inputs(
        None if q is None else to_strided(q),
        None if k is None else to_strided(k),
        to_strided(v),
        *(None if table is None else table.contiguous() for table in (terms.rk, terms.rq, terms.rb)),
    )
    dropout_p, seed = (0.0, 0) if problem.dropout is None else problem.dropout
    constants = Constants(to_window(problem.geometry), choose_tile(v), terms.scale, dropout_p)
    return Launch(inputs, Extent(*v.shape[:4]), seed, constants)


def attention(problem: Problem) -> tuple[Tensor, Tensor]:
    """The output, contiguous and in the dtype of the values, and the normalizer of the softmax."""
    launch = _make_launch(problem)
    out = torch.empty(problem.v.shape, dtype=problem.v.dtype, device=problem.v.device)
    normalizer = torch.empty(*problem.v.shape[:-1], 2, dtype=lse_dtype(problem.v), device=problem.v.device)
    grid = make_grid(launch.extent, launch.constants.tile.block)
    with torch.cuda.device_of(problem.v):
        forward[grid](launch.inputs, launch.extent, launch.seed, out, normalizer, launch.constants, num_warps=NUM_WARPS)
    return out, normalizer


def _make_gradient(x: Tensor | None, used: Strided | None) -> Tensor | None:
    """An empty tensor for the gradient of an operand; zeros if the output does not depend on it."""
    if x is None:
        return None
    return (torch.zeros if used is None else torch.empty)(x.shape, dtype=x.dtype, device=x.device)


def _sum_tables(launch: Launch, grad: Strided, normalizer: Tensor, delta: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of rk, rq and rb."""
    inputs, extent, seed, constants = launch
    tables = inputs.rk, inputs.rq, inputs.rb
    if tables == (None, None, None):
        return tables
    blocks = triton.cdiv(delta.numel() // extent.heads, constants.tile.block)
    chunks = max(1, min(MAX_CHUNKS, blocks))
    partial = [None if table is None else delta.new_empty(chunks, *table.shape) for table in tables]
    grid = constants.window.offsets, extent.heads, chunks
    per_chunk = triton.cdiv(blocks, chunks)
    backward_of_tables[grid](
        inputs, extent, seed, grad, normalizer, delta, *partial, per_chunk, constants, num_warps=NUM_WARPS
    )
    return tuple(
        None if table is None or sums is None else sums.sum(0).to(table.dtype)
        for table, sums in zip(tables, partial, strict=True)
    )


def attention_backward(grad: Tensor, normalizer: Tensor, problem: Problem) -> Operands:
    """The gradients of the operands, given the gradient of the output; None for absent operands."""
    launch = _make_launch(problem)
    inputs, extent, seed, constants = launch
    to_q, to_k = _make_gradient(problem.terms.q, inputs.q), _make_gradient(problem.terms.k, inputs.k)
    to_v = torch.empty(problem.v.shape, dtype=problem.v.dtype, device=problem.v.device)
    normalizer, given = normalizer.contiguous(), to_strided(grad)
    delta = normalizer.new_empty(normalizer.shape[:-1])
    grid = make_grid(extent, constants.tile.block)
    with torch.cuda.device_of(problem.v):
        read = inputs, extent, seed, given, normalizer, delta
        backward_of_queries[grid](*read, to_q, constants, num_warps=NUM_WARPS)
        backward_of_keys[grid](*read, to_k, to_v, constants, num_warps=NUM_WARPS)
        to_tables = _sum_tables(launch, given, normalizer, delta)
    return Operands(to_q, to_k, to_v, *to_tables)
