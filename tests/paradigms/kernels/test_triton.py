"""The Triton backend: compared with the reference in processes of their own, and compiled for a GPU without one.

Triton reads TRITON_INTERPRET when kernels are imported, so that one process either interprets or compiles them.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from paradigms.functional import Geometry, Outside, Terms
from paradigms.kernels.problem import Dropout, Problem
from paradigms.kernels.triton_kernels import is_available

SUITE = Path(__file__).with_name("triton_suite.py")
ROOT = Path(__file__).parents[3]

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def _run_python(*arguments: str, interpret: bool) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TRITON_INT"))}
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def _run_suite(*, interpret: bool) -> None:
    done = _run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(SUITE), interpret=interpret)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@needs_triton
def test_kernels_equal_the_reference_in_the_interpreter() -> None:
    _run_suite(interpret=True)


@needs_triton
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels_equal_the_reference_on_a_gpu() -> None:
    _run_suite(interpret=False)


@pytest.mark.slow
def test_without_triton_all_but_its_backend_can_be_imported() -> None:
    program = (
        "import sys; sys.modules['triton'] = None; "
        "import torch, paradigms.kernels.fused, paradigms.kernels.primitive; "
        "from paradigms.kernels.triton_kernels import is_available; "
        "sys.exit(is_available(torch.device('cuda')))"
    )
    done = _run_python("-c", program, interpret=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Any]]:
    """Kernels are compiled for a Hopper GPU, which need not be there, instead of run; what came out."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime.jit import JITFunction

    class Driver:
        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", 90, 32)

        def get_current_device(self) -> int:
            return 90  # no device has this number: its compiled kernels are kept apart

        def get_current_stream(self, _: int) -> int:
            return 0

    kernels: list[Any] = []
    run = JITFunction.run

    def compile_only(self: Any, *arguments: Any, warmup: bool, **options: Any) -> None:  # noqa: ARG001
        kernels.append(run(self, *arguments, warmup=True, **options))

    monkeypatch.setattr(JITFunction, "run", compile_only)
    monkeypatch.setattr(triton.runtime.driver, "_active", Driver())
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    yield kernels


COMPILED = {
    "bfloat16": ("zero", torch.bfloat16, (2, 9, 14, 3, 32), None),
    "float64-dropout": ("shift", torch.float64, (2, 9, 14, 3, 5), Dropout(0.1, 2**61 + 1)),
    "one-pixel": ("mask", torch.float32, (1, 1, 1, 1, 1), Dropout(0.1, 1)),  # a size of one is a constant to triton
}


@pytest.mark.slow
@needs_triton
@pytest.mark.skipif(is_available(torch.device("cpu")), reason="the interpreter compiles nothing")
@pytest.mark.parametrize("terms", ["qk rk rq rb", "rb"])
@pytest.mark.parametrize(("border", "dtype", "shape", "dropout"), COMPILED.values(), ids=COMPILED.keys())
def test_kernels_compile_for_a_gpu(
    border: str, dtype: torch.dtype, shape: tuple[int, ...], dropout: Dropout | None, terms: str, compiled: list[Any]
) -> None:
    from paradigms.kernels.triton_kernels import attention, primitive

    geometry = Geometry("sliding", (7, 7), (1, 2), border)
    x = torch.empty(shape, dtype=dtype)
    table = x.new_empty(shape[3], geometry.num_offsets, shape[4])
    tables = (
        table if "rk" in terms else None,
        table if "rq" in terms else None,
        table[..., 0] if "rb" in terms else None,
    )
    problem = Problem(Terms(x, x, *tables, 0.2 if "qk" in terms else None), x, geometry, Outside(None, None), dropout)
    out, normalizer = attention.attention(problem)
    attention.attention_backward(out, normalizer, problem)
    filters = x.new_empty(len(x), shape[3], geometry.num_taps, shape[4])
    for given in (None, filters):
        weights = primitive.dot(x, x, given, geometry)
        primitive.mix(weights, x, given, geometry)
    primitive.correlate(weights, x, x, geometry)
    primitive.reverse(weights, geometry)
    assert {kernel.name for kernel in compiled} == {
        *("forward", "backward_of_queries", "backward_of_keys", "backward_of_tables"),
        *("dot_taps", "mix_taps", "correlate_taps", "reverse_taps"),
    }
    assert all(kernel.asm["cubin"] for kernel in compiled)
