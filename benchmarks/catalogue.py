"""All cases of a benchmark, and the selection by name."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product

from benchmarks.case import S1, S3, Case, Setting, Shape, Workload
from benchmarks.models import (
    build_laptop,
    build_net7_n,
    build_swin_t,
    build_timm_laptop,
    make_image_shape,
    make_laptop_shape,
)
from benchmarks.operators import OPERATORS, build_mix, build_operator
from benchmarks.peers import (
    build_depthwise,
    build_flex,
    build_natten,
    build_timm,
    build_unfold,
    build_unfold_mix,
    build_window,
)
from benchmarks.siblings import NEAREST, SIBLINGS, build_sibling
from harness.errors import SpecError
from paradigms.config import BACKENDS
from paradigms.facts import unknown_name

SLOW_BACKENDS = ("reference", "dense")
"""Those that copy every key K times: measured on one operator."""

FAST_BACKENDS = tuple(name for name in BACKENDS if name not in ("auto", *SLOW_BACKENDS))

ON_CUDA_ONLY = ("triton",)
"""Backends that a CPU could only interpret."""

IMAGES_ON_CPU, IMAGES_ON_CUDA = 2, 128

SHAPES = (S1, S3)


def list_cases(setting: Setting, shapes: Sequence[Shape] = SHAPES) -> tuple[Case, ...]:
    """Ours, what it is measured against, peers, siblings, whole models; side by side what is compared.

    What is slow takes gigabytes, and what comes after it is given new pages by the system: it comes last.
    """
    cases: list[Case] = []
    for shape in shapes:
        listed = [*_list_ours(shape, setting), *_list_denominators(shape), *_list_peers(shape)]
        cases += sorted(listed, key=lambda case: case.is_slow)
    return (*cases, *_list_siblings(shapes[:1]), *_list_models(setting))


def _list_ours(shape: Shape, setting: Setting) -> Iterator[Case]:
    for name in OPERATORS:
        for backend in FAST_BACKENDS:
            yield Case(name, backend, shape, _choose(backend, setting, build_operator))
        if name == "net7_n":
            yield Case(name, "cpu", shape, build_operator, variant="2-threads", threads=2)
            yield Case(name, "cpu", shape, build_operator, variant="avx2", isa="avx2")
    yield from (Case("net7_n", backend, shape, build_operator, is_slow=True) for backend in SLOW_BACKENDS)
    yield Case("swin_shifted", "auto", shape, build_operator)
    yield from (Case("mix", backend, shape, _choose(backend, setting, build_mix)) for backend in FAST_BACKENDS)


def _choose(backend: str, setting: Setting, build: Callable[[Case, Setting], Workload]) -> Callable[..., Workload]:
    return _refuse if backend in ON_CUDA_ONLY and setting.device == "cpu" else build


def _refuse(case: Case, setting: Setting) -> Workload:
    raise ValueError(f"backend {case.backend!r} computes on CUDA, a {setting.device} can only interpret it")


def _list_denominators(shape: Shape) -> Iterator[Case]:
    yield Case("window_core", "timm", shape, build_timm)
    yield Case("window_core", "timm", shape, build_timm, variant="shifted")
    yield Case("net7", "frozen", shape, build_window)
    yield Case("depthwise", "conv2d", shape, build_depthwise)
    yield Case("net7_n", "unfold", shape, build_unfold, is_slow=True)
    yield Case("mix", "unfold", shape, build_unfold_mix)


def _list_peers(shape: Shape) -> Iterator[Case]:
    yield Case("query_key", "natten", shape, build_natten, is_slow=True)
    yield Case("query_key", "flex", shape, build_flex, is_slow=True)


def _list_siblings(shapes: Sequence[Shape]) -> Iterator[Case]:
    for shape, name, variant in product(shapes, SIBLINGS, ("", NEAREST)):
        yield Case(name, "auto", shape, build_sibling, variant=variant, is_slow=True)


def _list_models(setting: Setting) -> Iterator[Case]:
    images = make_image_shape(IMAGES_ON_CPU if setting.device == "cpu" else IMAGES_ON_CUDA)
    yield Case("swin_t", "timm", images, build_swin_t, is_slow=True)
    yield Case("swin_t_net7_n", "auto", images, build_net7_n, is_slow=True)
    yield Case("laptop", "timm", make_laptop_shape(), build_timm_laptop)
    yield Case("laptop", "auto", make_laptop_shape(), build_laptop)


def choose_cases(cases: Sequence[Case], names: Sequence[str], *, quick: bool = False) -> tuple[Case, ...]:
    """Those that have every part of one of the names: `net7_n/torch/s1`, `net7_n`, `torch/s1`; all without names.

    Raises:
        SpecError: a name is unknown, or no case has all its parts.
    """
    known = tuple(dict.fromkeys(part for case in cases for part in case.parts))
    for name in names:
        for part in name.split("/"):
            if part not in known:
                raise SpecError(f"--only {name}: {unknown_name('case', part, known)}")
        if not any(_has(case, name) for case in cases):
            raise SpecError(
                f"--only {name}: no case has all of these; `python -m benchmarks --list` shows those there are"
            )
    return tuple(
        case
        for case in cases
        if (not names or any(_has(case, name) for name in names)) and not (quick and case.is_slow)
    )


def _has(case: Case, name: str) -> bool:
    return set(name.split("/")) <= set(case.parts)
