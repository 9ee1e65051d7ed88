"""The compiled kernels of the CPU, called through a plain C interface.

The library is built with the package where there is a compiler, for several instruction sets; the best one that the
machine has is chosen when it is loaded. Sums run in an order that does not depend on the number of threads. float32 and
float64 are computed as such, 16-bit inputs in float32.
"""

import ctypes
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from paradigms.functional import Geometry, Terms
from paradigms.kernels.fused import Case, Operands, lse_dtype

logger = logging.getLogger(__name__)

LIBRARY = Path(__file__).with_name("_native.so")
INSTRUCTION_SETS = ("baseline", "avx2", "avx512")
"""In the order of the library's numbers for them."""

_chosen: str | None = None


class _Map(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("batch", "row", "column", "head")),
    )


class _SlidingCase(ctypes.Structure):
    """Mirrors `SlidingCase` in native/case.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "height", "width", "heads", "head_dim")),
        ("kernel", ctypes.c_int64 * 2),
        ("dilation", ctypes.c_int64 * 2),
        ("threads", ctypes.c_int64),
        ("has_dot", ctypes.c_int64),
        ("scale", ctypes.c_double),
        ("keep", ctypes.c_double),
        ("seed", ctypes.c_uint64),
        ("counted_rows", ctypes.c_void_p * 2),
        ("counted_columns", ctypes.c_void_p * 2),
        *((name, ctypes.c_void_p) for name in ("rk", "rq", "rb")),
        *((name, _Map) for name in ("q", "k", "v", "grad", "out", "dq", "dk", "dv")),
        *((name, ctypes.c_void_p) for name in ("lse", "drk", "drq", "drb")),
    )


@cache
def _load() -> ctypes.CDLL | None:
    """The library; None, with one line in the log, where it was not built."""
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        logger.warning("compiled kernels are missing (%s); attention on the CPU runs in torch, slower", error)
        return None
    return library


def is_available() -> bool:
    """Whether the library was built and can be loaded."""
    return _load() is not None


def get_instruction_set() -> str:
    """The one in use: the machine's best, or what `use_instruction_set` says."""
    library = _load()
    assert library is not None
    return _chosen or INSTRUCTION_SETS[library.paradigms_best_instruction_set()]


@contextmanager
def use_instruction_set(name: str) -> Iterator[None]:
    """Compute with another instruction set than the machine's best, to compare them.

    Raises:
        ValueError: the machine does not have it.
    """
    global _chosen  # noqa: PLW0603 - what is in use belongs to the process, as torch's threads do
    library = _load()
    best = -1 if library is None else library.paradigms_best_instruction_set()
    if name not in INSTRUCTION_SETS[: best + 1]:
        raise ValueError(f"this machine computes with {', '.join(INSTRUCTION_SETS[: best + 1]) or 'none'}, got {name!r}")
    before, _chosen = _chosen, name
    try:
        yield
    finally:
        _chosen = before


def _call(name: str, case: ctypes.Structure, dtype: torch.dtype) -> None:
    library = _load()
    assert library is not None
    suffix = "f64" if dtype == torch.float64 else "f32"
    function = getattr(library, f"paradigms_{name}_{suffix}_{get_instruction_set()}")
    if function(ctypes.byref(case)):
        raise MemoryError(f"not enough memory for {name}")


def _to_map(x: Tensor | None) -> _Map:
    if x is None:
        return _Map()
    assert x.stride(-1) == 1 or x.shape[-1] == 1
    return _Map(x.data_ptr(), *x.stride()[:4])


def _prepare(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Of the dtype that is computed in, channels contiguous."""
    if x is None:
        return None
    x = x.to(dtype)
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _count_keys(geometry: Geometry, length: int, dim: int) -> Tensor:
    """The first and the last position that the queries of an axis count, (2, length)."""
    position = torch.arange(length, dtype=torch.int32)
    if geometry.border == "mask":
        return torch.stack([torch.zeros_like(position), torch.full_like(position, length - 1)])
    size, dilation = geometry.kernel_size[dim], geometry.dilation[dim]
    phase, rank = position % dilation, position // dilation
    available = (length - phase + dilation - 1) // dilation
    start = torch.minimum((rank - size // 2).clamp(min=0), (available - size).clamp(min=0))
    last = torch.minimum(start + size, available) - 1
    return torch.stack([phase + dilation * start, phase + dilation * last]).to(torch.int32)


class _Sliding:
    """A case in C, and the tensors that it points to."""

    def __init__(self, case: Case) -> None:
        terms, v, geometry, _, dropout = case
        self.dtype = lse_dtype(v)
        self.terms = Terms(*(_prepare(x, self.dtype) for x in terms[:2]), *(self._table(x) for x in terms[2:5]), terms.scale)
        self.v = _prepare(v, self.dtype)
        self.kept: list[Tensor] = []
        batch, height, width, heads, head_dim = v.shape
        self.c = _SlidingCase(batch, height, width, heads, head_dim)
        self.c.kernel[:] = geometry.offset_span
        self.c.dilation[:] = geometry.dilation
        self.c.threads = torch.get_num_threads()
        self.c.has_dot, self.c.scale = terms.scale is not None, terms.scale or 0.0
        self.c.keep, self.c.seed = (1.0, 0) if dropout is None else (1.0 - dropout.p, dropout.seed)
        if geometry.border != "zero":
            self.c.counted_rows[:] = self._keep(_count_keys(geometry, height, 0))
            self.c.counted_columns[:] = self._keep(_count_keys(geometry, width, 1))
        self.c.q, self.c.k, self.c.v = _to_map(self.terms.q), _to_map(self.terms.k), _to_map(self.v)
        self.c.rk, self.c.rq, self.c.rb = (_address(x) for x in (self.terms.rk, self.terms.rq, self.terms.rb))

    def _table(self, x: Tensor | None) -> Tensor | None:
        return None if x is None else x.to(self.dtype).contiguous()

    def _keep(self, pair: Tensor) -> tuple[int, int]:
        self.kept.append(pair)
        return pair[0].data_ptr(), pair[1].data_ptr()


def attention(case: Case) -> tuple[Tensor, Tensor]:
    """See `fused.FusedBackend`."""
    sliding = _Sliding(case)
    v = case.v
    out = v.new_empty(v.shape, dtype=sliding.dtype)
    lse = v.new_empty(v.shape[:-1], dtype=sliding.dtype)
    sliding.c.out, sliding.c.lse = _to_map(out), lse.data_ptr()
    if v.numel():
        _call("sliding_forward", sliding.c, sliding.dtype)
    return out.to(v.dtype), lse


def attention_backward(grad: Tensor, lse: Tensor, case: Case) -> Operands:
    """See `fused.FusedBackend`."""
    sliding = _Sliding(case)
    terms, v = sliding.terms, case.v
    grad = _prepare(grad, sliding.dtype)
    lse = lse.contiguous()

    def empty(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.new_empty(v.shape)

    def partial(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.new_empty(len(v), *x.shape)

    dq, dk, dv = empty(terms.q), empty(terms.k), empty(sliding.v)
    drk, drq, drb = partial(terms.rk), partial(terms.rq), partial(terms.rb)
    sliding.c.grad, sliding.c.lse = _to_map(grad), lse.data_ptr()
    sliding.c.dq, sliding.c.dk, sliding.c.dv = _to_map(dq), _to_map(dk), _to_map(dv)
    sliding.c.drk, sliding.c.drq, sliding.c.drb = _address(drk), _address(drq), _address(drb)
    if v.numel():
        _call("sliding_backward", sliding.c, sliding.dtype)
    sums = (None if x is None else x.sum(0) for x in (drk, drq, drb))
    originals = (case.terms.q, case.terms.k, v, *case.terms[2:5])
    return Operands(*(None if o is None else g.to(o.dtype) for o, g in zip(originals, (dq, dk, dv, *sums), strict=True)))
