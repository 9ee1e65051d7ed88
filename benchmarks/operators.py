"""Cases of our operators: presets, and `mix` alone, by every backend."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from benchmarks.case import WINDOW, Case, Draw, Setting, Workload, build_differentiable
from paradigms.config import AttentionConfig
from paradigms.functional import Aggregation, Geometry, Terms, count_multiply_adds
from paradigms.kernels import attend, cpu
from paradigms.kernels.primitive import PRIMITIVES, mix
from paradigms.neighborhood import NEIGHBORHOODS
from paradigms.normalization import NORMALIZATIONS
from paradigms.presets import PRESETS


@dataclass(frozen=True)
class Operator:
    """A point of Eq. 4; `per_channel` gives every channel its own head."""

    config: AttentionConfig
    per_channel: bool = False


OPERATORS = {
    "net7_n": Operator(PRESETS["net7_n"].config),
    "swin_n": Operator(PRESETS["swin_n"].config),
    "net7": Operator(PRESETS["net7"].config),
    "swin": Operator(PRESETS["swin"].config),
    "swin_shifted": Operator(PRESETS["swin"].config.replace(shift_size=WINDOW // 2)),
    "dwconv": Operator(PRESETS["dwconv"].config, per_channel=True),
}


def build_operator(case: Case, setting: Setting) -> Workload:
    """One of `OPERATORS` between its projections: from queries, keys and values to the output."""
    operator = OPERATORS[case.operator]
    config = operator.config
    shape = replace(case.shape, heads=case.shape.channels) if operator.per_channel else case.shape
    draw = Draw(shape, setting)
    geometry = NEIGHBORHOODS[config.neighborhood].from_config(config).geometry
    terms, v, grad = _draw_terms(config, geometry, shape.map_size, draw), draw(*shape.map_size), draw(*shape.map_size)
    normalization = NORMALIZATIONS[config.normalization]()

    def forward() -> Tensor:
        return attend(terms, v, geometry, normalization, backend=case.backend)

    leaves = [leaf for leaf in (*terms, v) if isinstance(leaf, Tensor)]
    cost = count_multiply_adds(terms, v, geometry, Aggregation())
    return build_differentiable(forward, leaves, grad, cost, context=_force(case.isa))


def _draw_terms(config: AttentionConfig, geometry: Geometry, size: tuple[int, ...], draw: Draw) -> Terms:
    """Tensors of the terms that the parameterization names; tables as small as they start."""
    names, (heads, head_dim) = config.parameterization, size[-2:]
    needs_q = "query_key" in names or "query_position" in names
    needs_k = "query_key" in names or "position_key" in names
    table = partial(draw, heads, geometry.num_offsets, scale=0.02)
    return Terms(
        q=draw(*size) if needs_q else None,
        k=draw(*size) if needs_k else None,
        rk=table(head_dim) if "query_position" in names else None,
        rq=table(head_dim) if "position_key" in names else None,
        rb=table() if "position_bias" in names else None,
        scale=head_dim**-0.5 if "query_key" in names else None,
    )


def build_mix(case: Case, setting: Setting) -> Workload:
    """Given weights meet values: the step that Involution, DDF and ELSA share."""
    draw, size = Draw(case.shape, setting), case.shape.map_size
    geometry = Geometry("sliding", (WINDOW, WINDOW))
    weights, v, grad = draw(*size[:-1], geometry.num_taps), draw(*size), draw(*size)
    if case.backend not in PRIMITIVES:
        raise ValueError(f"backend {case.backend!r} has no mix of its own")

    def forward() -> Tensor:
        return mix(weights, v, geometry, backend=case.backend)

    cost = v.numel() * geometry.num_taps
    return build_differentiable(forward, [weights, v], grad, cost, context=_force(case.isa))


def _force(isa: str | None) -> Callable[[], AbstractContextManager[object]]:
    """Hold the C++ kernels to an instruction set; where they cannot be, entering says so."""
    return nullcontext if isa is None else partial(cpu.use_instruction_set, isa)
