"""Calls the compiled CPU kernels through their C interface.

The library is built with the package if a compiler is available, for several instruction sets. When it is loaded, the
best set that the machine supports is selected. The order of sums does not depend on the number of threads. Inputs of 16
bits are computed in float32, others in their own dtype.
"""

import ctypes
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from paradigms.constants import load_constants
from paradigms.functional import CPU, Array, Geometry, Terms, cut_axis, list_axis_taps
from paradigms.kernels.problem import Operands, Problem, lse_dtype, to_operands
from paradigms.kernels.sources import digest_sources
from paradigms.kernels.structures import Map, SlidingCase, Task, WindowCase, list_mirrored_places, list_places

logger = logging.getLogger(__name__)

LIBRARY = Path(__file__).with_name("_native.so")
INSTRUCTION_SETS = ("baseline", "avx2", "avx512")
"""The index in this tuple is the library's number of the instruction set."""

WINDOWS_OF_AN_ITEM = 32
"""Windows of one head that one thread processes at a time; the gradients of their tables are one partial sum."""

MAP_DIMS = 5
"""Number of dimensions of a map; no other tensor for the library has as many."""

_chosen: str | None = None


@cache
def _load() -> ctypes.CDLL | None:
    """The library; None, with one line in the log, where it was not built, or does not fit these sources."""
    try:
        library = ctypes.CDLL(str(LIBRARY))
        library.paradigms_sources.restype = ctypes.c_char_p
        made_of = library.paradigms_sources().decode()
    except (OSError, AttributeError) as error:
        reason = str(error)
    else:
        if made_of != digest_sources():
            reason = f"{LIBRARY.name} is older than its sources; install the package again"
        elif differing := list_places(library).items() ^ list_mirrored_places().items():
            reason = f"structures.py lays out {min(differing)[0]} differently than the compiler does"
        else:
            return library
    logger.warning("attention on the CPU runs in torch, slower: no compiled kernels (%s)", reason)
    return None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def is_available() -> bool:
    """Whether the library was built and can be loaded; torch.compile asks once and cannot trace how."""
    return _load() is not None


@cache
def list_instruction_sets() -> tuple[str, ...]:
    """Those that the library was built for and the machine has; the best one last."""
    library = _load()
    if library is None:
        return ()
    known = INSTRUCTION_SETS[: library.paradigms_best_instruction_set() + 1]
    return tuple(name for name in known if hasattr(library, f"paradigms_sliding_f32_{name}"))


def get_instruction_set() -> str:
    """The instruction set in use: the best one, or that of `use_instruction_set`."""
    return _chosen or list_instruction_sets()[-1]


@contextmanager
def use_instruction_set(name: str) -> Iterator[None]:
    """Compute with another instruction set than the machine's best, to compare them.

    Raises:
        ValueError: the machine does not have it, or the library was not built for it.
    """
    global _chosen  # noqa: PLW0603 - what is in use belongs to the process, as torch's threads do
    if name not in list_instruction_sets():
        raise ValueError(f"the instruction sets are {', '.join(list_instruction_sets()) or 'none'}, got {name!r}")
    before, _chosen = _chosen, name
    try:
        yield
    finally:
        _chosen = before


def _prepare(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a tensor to `dtype`; channels of maps become contiguous, tables become contiguous as a whole."""
    if not x.is_floating_point():
        raise TypeError(f"the compiled kernels take floating-point tensors, got {x.dtype}")
    if not x.is_cpu:
        raise RuntimeError(
            f"backend 'cpu' computes on the CPU, got a tensor on {x.device}; an exported program that holds it cannot "
            "move: export it on the device that it is for, or with backend='torch'"
        )
    if x.dtype != dtype:
        x = x.to(dtype)
    return x if x.ndim == MAP_DIMS and (x.stride(-1) == 1 or x.shape[-1] == 1) else x.contiguous()


def _count_keys(geometry: Geometry, length: int, dim: int) -> tuple[Array, Array]:
    """The first and the last position that each query of an axis counts."""
    position, connected, offset = list_axis_taps(geometry, dim, length)
    if geometry.border == "zero":  # chunks also count positions outside the map
        position = np.arange(length)[:, None] + offset - geometry.offset_span[dim] // 2
        return position[:, 0].astype(np.int32), position[:, -1].astype(np.int32)
    counted = connected & (position >= 0)
    first, last = np.where(counted, position, length).min(axis=1), np.where(counted, position, -1).max(axis=1)
    return first.astype(np.int32), last.astype(np.int32)


def _cut_axis(geometry: Geometry, length: int, dim: int) -> tuple[Array, Array]:
    """The position and the region of each place of an axis that is cut into windows.

    The position is -1 outside the map; the region is -1 where a place is not counted.
    """
    position, region = cut_axis(geometry, dim, length)
    counted = np.where(position >= 0, region, -1) if geometry.border == "mask" else region
    return position.astype(np.int32), counted.astype(np.int32)


def _list_bases(geometry: Geometry, length: int, dim: int) -> tuple[Array]:
    """The offset of the first tap of each query along an axis."""
    return (list_axis_taps(geometry, dim, length).offset[:, 0].astype(np.int32),)


class _Call:
    """The arguments of one call of the compiled library, and the tensors that they point to."""

    def __init__(self, name: str, structure: type[ctypes.Structure], shape: torch.Size, dtype: torch.dtype) -> None:
        self.name = name
        self.dtype = dtype
        self.tensors: list[Tensor] = []
        self.maps = {field for field, kind, *_ in structure._fields_ if kind is Map}
        self.c = structure(*shape)
        self.c.threads = torch.get_num_threads()

    def point(self, name: str, tensor: Tensor) -> None:
        """Set a field of the structure to the address of a tensor, and keep the tensor alive."""
        self.tensors.append(tensor)
        data = tensor.data_ptr()
        setattr(self.c, name, Map(data, *tensor.stride()[:-1]) if name in self.maps else data)

    def give(self, **tensors: Tensor | None) -> None:
        """Set the fields of input tensors, converted to the dtype of the computation; None is skipped."""
        for name, tensor in tensors.items():
            if tensor is not None:
                self.point(name, _prepare(tensor, self.dtype))

    def run(self, task: Task) -> None:
        """Call the library.

        Raises:
            MemoryError: not enough memory for the buffers of the threads.
        """
        library = _load()
        assert library is not None
        suffix = "f64" if self.dtype == torch.float64 else "f32"
        function = getattr(library, f"paradigms_{self.name}_{suffix}_{get_instruction_set()}")
        if function(ctypes.byref(self.c), int(task)):
            raise MemoryError(f"not enough memory for {self.name} attention, {task.name.lower()}")


def _make_sliding(geometry: Geometry, shape: torch.Size, dtype: torch.dtype) -> _Call:
    call = _Call("sliding", SlidingCase, shape, dtype)
    call.c.kernel[:] = call.c.window[:] = geometry.offset_span
    call.c.dilation[:] = geometry.dilation
    if geometry.offset_span != geometry.kernel_size:
        call.c.window[:] = geometry.kernel_size
        for dim, axis in enumerate(("row", "column")):
            call.point(f"{axis}_base", *load_constants(_list_bases, geometry, shape[dim + 1], dim, device=CPU))
    if geometry.border != "zero" or geometry.kind == "chunk":
        for dim, axis in enumerate(("row", "column")):
            first, last = load_constants(_count_keys, geometry, shape[dim + 1], dim, device=CPU)
            call.point(f"first_{axis}", first)
            call.point(f"last_{axis}", last)
    return call


def _make_windows(geometry: Geometry, shape: torch.Size, dtype: torch.dtype) -> _Call:
    call = _Call("window", WindowCase, shape, dtype)
    call.c.window[:] = geometry.kernel_size
    call.c.group = WINDOWS_OF_AN_ITEM
    for dim, axis in enumerate(("row", "column")):
        position, region = load_constants(_cut_axis, geometry, shape[dim + 1], dim, device=CPU)
        call.c.count[dim] = len(position) // geometry.kernel_size[dim]
        call.point(f"{axis}_at", position)
        if any(geometry.shift) or geometry.border == "mask":
            call.point(f"{axis}_region", region)
    return call


def _make_call(problem: Problem) -> tuple[_Call, int]:
    """The call of a problem, and the number of partial sums of the tables' gradients."""
    terms, v, geometry, outside, dropout = problem
    heads, head_dim, offsets = *v.shape[-2:], geometry.num_offsets  # the library does not check any other shape
    assert all(x is None or x.shape == v.shape for x in (terms.q, terms.k))
    assert all(x is None or x.shape == (heads, offsets, head_dim) for x in (terms.rk, terms.rq))
    assert terms.rb is None or terms.rb.shape == (heads, offsets)
    assert all(x is None or x.shape == (heads, head_dim) for x in outside)
    dtype = lse_dtype(v)
    if geometry.kind != "window":
        call, num_sums = _make_sliding(geometry, v.shape, dtype), len(v)
    else:
        call = _make_windows(geometry, v.shape, dtype)
        num_sums = -(-len(v) * call.c.count[0] * call.c.count[1] // WINDOWS_OF_AN_ITEM)
        call.give(outside_k=outside.k, outside_v=outside.v)
    call.c.has_dot, call.c.scale = terms.scale is not None, terms.scale or 0.0
    call.c.keep, call.c.seed = (1.0, 0) if dropout is None else (1.0 - dropout.p, dropout.seed)
    call.give(q=terms.q, k=terms.k, v=v, rk=terms.rk, rq=terms.rq, rb=terms.rb)
    return call, num_sums


def _is_read(name: str, terms: Terms) -> bool:
    """Whether the output depends on an operand; queries and keys may be used by no term."""
    tables = {"q": terms.rk, "k": terms.rq}
    return name not in tables or terms.scale is not None or tables[name] is not None


def attention(problem: Problem) -> tuple[Tensor, Tensor]:
    """See `fused.FusedBackend`."""
    v, dtype = problem.v, lse_dtype(problem.v)
    out, normalizer = v.new_empty(v.shape, dtype=dtype), v.new_empty(*v.shape[:-1], 2, dtype=dtype)
    if v.numel():
        call, _ = _make_call(problem)
        call.point("out", out)
        call.point("normalizer", normalizer)
        call.run(Task.FORWARD)
    return out.to(v.dtype), normalizer


def attention_backward(grad: Tensor, normalizer: Tensor, problem: Problem) -> Operands:
    """See `fused.FusedBackend`."""
    operands = to_operands(problem)
    if not problem.v.numel():
        return Operands(*(None if x is None else torch.zeros_like(x) for x in operands))
    call, num_sums = _make_call(problem)
    call.give(grad=grad)
    call.point("normalizer", normalizer.contiguous())
    gradients: dict[str, Tensor] = {}
    for name, operand in operands._asdict().items():
        if operand is not None:
            partial = () if name in ("q", "k", "v") else (num_sums,)
            gradients[name] = operand.new_empty(*partial, *operand.shape, dtype=call.dtype)
            if _is_read(name, problem.terms):
                call.point(f"d{name}", gradients[name])
            else:
                gradients[name].zero_()
    call.run(Task.BACKWARD)
    added = {name: x if name in ("q", "k", "v") else x.sum(0) for name, x in gradients.items()}
    return Operands(*(None if x is None else added[name].to(x.dtype) for name, x in operands._asdict().items()))


def _make_primitive(geometry: Geometry, shape: torch.Size, dtype: torch.dtype) -> _Call:
    """The call of a product; everything outside the map is zero, whatever the border."""
    if geometry.kind == "window":
        return _make_windows(geometry, shape, dtype)
    moving = geometry.offset_span != geometry.kernel_size
    return _make_sliding(geometry if moving else replace(geometry, border="zero"), shape, dtype)


def dot(a: Tensor, b: Tensor, filters: Tensor | None, geometry: Geometry) -> Tensor:
    """Two maps (batch, height, width, heads, head_dim) to (batch, height, width, heads, taps)."""
    taps = a.new_empty(*a.shape[:-1], geometry.num_taps, dtype=lse_dtype(a))
    if a.numel():
        call = _make_primitive(geometry, a.shape, taps.dtype)
        call.give(q=a, v=b, filters=_to_map(filters))
        call.point("taps", taps)
        call.run(Task.DOT)
    return taps.to(a.dtype)


def mix(weights: Tensor, v: Tensor, filters: Tensor | None, geometry: Geometry) -> Tensor:
    """(batch, height, width, heads, taps) and (batch, height, width, heads, head_dim) to the latter."""
    out = v.new_empty(v.shape, dtype=lse_dtype(v))
    if v.numel():
        call = _make_primitive(geometry, v.shape, out.dtype)
        call.give(taps=weights, v=v, filters=_to_map(filters))
        call.point("out", out)
        call.run(Task.MIX)
    return out.to(v.dtype)


def spread(weights: Tensor, v: Tensor, filters: Tensor | None, geometry: Geometry) -> Tensor:
    """The transpose of `mix`: each query adds its weighted vector to the keys of its taps."""
    out = v.new_empty(v.shape, dtype=lse_dtype(v))
    if v.numel():
        call = _make_primitive(geometry, v.shape, out.dtype)
        call.give(taps=weights, v=v, filters=_to_map(filters))
        call.point("out", out)
        call.run(Task.SPREAD)
    return out.to(v.dtype)


def _to_map(filters: Tensor | None) -> Tensor | None:
    """View filters (batch, heads, taps, head_dim) as a map with one row per tap and one column, as the library does."""
    return None if filters is None else filters.transpose(1, 2)[:, :, None]


def correlate(weights: Tensor, a: Tensor, b: Tensor, geometry: Geometry) -> Tensor:
    """The gradient of the filters, (batch, heads, taps, head_dim)."""
    filters = a.new_empty(len(a), a.shape[3], geometry.num_offsets, a.shape[4], dtype=lse_dtype(a))
    if a.numel():
        call = _make_primitive(geometry, a.shape, filters.dtype)
        call.give(taps=weights, q=a, v=b)
        if geometry.kind == "window":
            num_sums = -(-call.c.count[0] * call.c.count[1] // WINDOWS_OF_AN_ITEM)
            filters = filters.new_empty(len(a), num_sums, *filters.shape[1:])
        call.point("dfilters", filters)
        call.run(Task.CORRELATE)
    return (filters.sum(dim=1) if filters.ndim > MAP_DIMS - 1 else filters).to(a.dtype)


def _make_position_logits(terms: Terms, geometry: Geometry) -> _Call:
    q, k, rk, rq, rb, _ = terms
    assert q is not None and k is not None and rb is not None
    heads, channels = len(rb), q.shape[-1]
    shape = heads, geometry.num_offsets, channels  # the library does not check any other shape
    assert k.shape == q.shape and q.shape[3] == 1
    assert all(x is not None and x.shape == shape for x in (rk, rq)) and rb.shape == shape[:2]
    call = _make_sliding(geometry, torch.Size((*q.shape[:3], heads, channels)), lse_dtype(q))
    shared = {"q": _prepare(q, call.dtype), "k": _prepare(k, call.dtype)}
    call.give(**{name: x.expand(-1, -1, -1, heads, -1) for name, x in shared.items()}, rk=rk, rq=rq, rb=rb)
    return call


def position_logits(terms: Terms, geometry: Geometry) -> Tensor:
    """q·rk + rq·k + rb: from maps (batch, height, width, 1, channels) to (batch, height, width, heads, taps)."""
    q, rb = terms.q, terms.rb
    assert q is not None and rb is not None
    taps = q.new_empty(*q.shape[:3], len(rb), geometry.num_taps, dtype=lse_dtype(q))
    if taps.numel():
        call = _make_position_logits(terms, geometry)
        call.point("taps", taps)
        call.run(Task.LOGITS)
    return taps.to(q.dtype)


def position_logits_backward(grad: Tensor, terms: Terms, geometry: Geometry) -> tuple[Tensor, ...]:
    """The gradients of q, k, rk, rq and rb."""
    operands = {name: x for name, x in terms._asdict().items() if isinstance(x, Tensor)}
    if not grad.numel():
        return tuple(torch.zeros_like(x) for x in operands.values())
    call = _make_position_logits(terms, geometry)
    call.give(taps=grad)
    gradients: dict[str, Tensor] = {}
    for name, x in operands.items():
        partial = () if name in ("q", "k") else (len(grad),)
        gradients[name] = x.new_empty(*partial, *x.shape, dtype=call.dtype)
        call.point(f"d{name}", gradients[name])
    call.run(Task.LOGITS_BACKWARD)
    added = (x if name in ("q", "k") else x.sum(0) for name, x in gradients.items())
    return tuple(gradient.to(x.dtype) for gradient, x in zip(added, operands.values(), strict=True))


def reverse(weights: Tensor, geometry: Geometry) -> Tensor:
    """(batch, height, width, heads, taps) to the same."""
    out = weights.new_empty(weights.shape, dtype=lse_dtype(weights))
    if weights.numel():
        call = _make_primitive(geometry, weights.shape, out.dtype)
        call.give(taps=weights)
        call.point("out", out)
        call.run(Task.REVERSE)
    return out.to(weights.dtype)
