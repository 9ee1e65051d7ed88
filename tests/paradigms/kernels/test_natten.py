"""The border `shift` is that of neighborhood attention (arXiv:2204.07143), where its authors' library is installed."""

import pytest
import torch

from paradigms.functional import Geometry
from paradigms.kernels import cpu, fused

from .conftest import make_problem

natten = pytest.importorskip("natten", reason="the extra `natten` is not installed")

BACKENDS = ["torch", pytest.param("cpu", marks=pytest.mark.skipif(not cpu.is_available(), reason="not built"))]
CASES = [
    ((3, 3), (1, 1), (9, 5), 8),
    ((7, 7), (1, 1), (7, 12), 16),
    ((5, 3), (1, 2), (6, 7), 32),
    ((3, 5), (3, 2), (9, 13), 8),
]
"""Its limits: several taps an axis, which fit the map when dilated, and head widths that are multiples of 8."""


@pytest.mark.parametrize(("kernel_size", "dilation", "size", "head_dim"), CASES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_clamped_window_sees_what_nattens_sees(
    backend: str, kernel_size: tuple[int, int], dilation: tuple[int, int], size: tuple[int, int], head_dim: int
) -> None:
    geometry = Geometry("sliding", kernel_size, dilation, "shift")
    problem = make_problem(geometry, size, terms="query_key", head_dim=head_dim, dtype=torch.float32)
    q, k, scale = problem.terms.q, problem.terms.k, problem.terms.scale
    expected = natten.na2d(q, k, problem.v, kernel_size=kernel_size, dilation=dilation, scale=scale)
    found = fused.attend(problem, dropout_p=0.0, backend=backend)
    assert found.shape == expected.shape
    assert bool(((found - expected).abs() <= 1e-5 * max(1.0, float(expected.abs().max()))).all())
