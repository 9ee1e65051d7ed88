"""Fused attention as an operator of torch: registered in full, traced, counted; it keeps two numbers per query."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from paradigms import kernels
from paradigms.functional import Aggregation, Geometry, count_multiply_adds
from paradigms.kernels import cpu, fused
from paradigms.kernels.problem import Dropout, Problem, to_operands
from paradigms.normalization import Softmax

from .conftest import ALL_TERMS, change_operands, make_grad, make_problem, operands_of

ROOT = Path(__file__).parents[3]
needs_library = pytest.mark.skipif(not cpu.is_available(), reason="the library is not built")

CASES = {
    "torch-zero": ("torch", Geometry("sliding", (3, 5))),
    "torch-shift": ("torch", Geometry("sliding", (3, 3), (2, 1), "shift")),
    "cpu-zero": ("cpu", Geometry("sliding", (3, 5))),
    "cpu-shift": ("cpu", Geometry("sliding", (3, 3), (2, 1), "shift")),
    "cpu-windows": ("cpu", Geometry("window", (3, 2), border="project", shift=(1, 1))),
}
every_case = pytest.mark.parametrize(
    ("backend", "geometry"),
    [
        pytest.param(*levels, marks=needs_library if levels[0] == "cpu" else (), id=name)
        for name, levels in CASES.items()
    ],
)


def _to_arguments(problem: Problem, backend: str) -> tuple[Any, ...]:
    """Of the operator, as `fused.attend` gives them."""
    seed, p = (None, 0.0) if problem.dropout is None else (torch.tensor(problem.dropout.seed), problem.dropout.p)
    return *to_operands(problem), seed, p, problem.terms.scale, fused.write_geometry(problem.geometry), backend


def _attend(problem: Problem, backend: str) -> Tensor:
    return kernels.attend(
        problem.terms, problem.v, problem.geometry, Softmax(), Aggregation(), outside=problem.outside, backend=backend
    )


def _with_gradients(problem: Problem) -> Problem:
    return change_operands(problem, [x.detach().requires_grad_() for x in operands_of(problem)])


@pytest.mark.parametrize(
    ("terms", "dropout"),
    [
        pytest.param(ALL_TERMS, Dropout(0.4, 2**61 + 1), id="dropped"),
        pytest.param("query_position", None, id="one-term", marks=pytest.mark.slow),
    ],
)
@every_case
def test_the_operator_is_registered_as_it_behaves(
    backend: str, geometry: Geometry, terms: str, dropout: Dropout | None
) -> None:
    problem = make_problem(geometry, (5, 4), terms=terms, dtype=torch.float32, dropout=dropout)
    torch.library.opcheck(torch.ops.paradigms.attention.default, _to_arguments(_with_gradients(problem), backend))
    out, normalizer = torch.ops.paradigms.attention(*_to_arguments(problem, backend))
    arguments = make_grad(problem), normalizer, *_to_arguments(problem, backend)
    torch.library.opcheck(torch.ops.paradigms.attention_backward.default, arguments)
    assert out.is_contiguous()


@every_case
def test_the_operator_is_registered_for_operands_of_any_layout_and_type(backend: str, geometry: Geometry) -> None:
    problem = make_problem(geometry, (5, 4), dtype=torch.bfloat16)
    mixed = [x.transpose(1, 2).contiguous().transpose(1, 2) if x.ndim == 5 else x.float() for x in operands_of(problem)]
    problem = change_operands(problem, mixed)
    torch.library.opcheck(torch.ops.paradigms.attention.default, _to_arguments(_with_gradients(problem), backend))


COMPILE = """
import copy, torch
from paradigms.attention import build_attention
from paradigms.config import TERMS, AttentionConfig

cases = [
    ("sliding_window", "zero", "torch", "softmax"),
    ("sliding_window", "project", "auto", "filter_norm"),
    ("sliding_window", "shift", "auto", "softmax"),
    ("local_window", "project", "auto", "softmax"),
    ("local_window", "mask", "torch", "softmax"),
]
for neighborhood, border, backend, normalization in cases:
    config = AttentionConfig(parameterization=TERMS, normalization=normalization, neighborhood=neighborhood,
                             border=border, backend=backend, kernel_size=(3, 5), window_size=(3, 4), shift_size=(1, 2))
    torch.manual_seed(0)
    torch._dynamo.reset()
    eager = build_attention(config, dim=6, num_heads=2, attn_drop=0.3).double().eval()
    compiled = copy.deepcopy(eager)
    run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 7, 9, 6, dtype=torch.float64)
    results = []
    for call, module in ((run, compiled), (eager, eager)):
        leaf = x.clone().requires_grad_()
        out = call(leaf)
        results.append([out, *torch.autograd.grad(out.square().sum(), [leaf, *module.parameters()])])
    for a, b in zip(*results, strict=True):
        assert bool(((a - b).abs() <= 1e-12 * max(1.0, float(b.detach().abs().max()))).all()), (border, backend)
run.train()
outputs = []
for seed in (1, 1, 2):
    torch.manual_seed(seed)
    outputs.append(run(x))
assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
"""


@pytest.mark.slow
def test_compiled_modules_have_no_graph_breaks_and_the_same_results() -> None:
    """In a process of its own: shapes are checked in this one, which tracing cannot enter."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-c", COMPILE]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("terms", [ALL_TERMS, "query_key+position_bias", "query_position", "position_bias"])
@every_case
def test_multiply_adds_are_counted_by_the_one_formula(backend: str, geometry: Geometry, terms: str) -> None:
    problem = _with_gradients(make_problem(geometry, (5, 4), terms=terms))
    formula = count_multiply_adds(problem.terms, problem.v, geometry, Aggregation())
    with FlopCounterMode(display=False) as forward:
        out = _attend(problem, backend)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert forward.get_total_flops() == 2 * formula
    assert backward.get_total_flops() == 2 * forward.get_total_flops()


@every_case
def test_a_second_derivative_is_refused_and_the_reference_named(backend: str, geometry: Geometry) -> None:
    problem = _with_gradients(make_problem(geometry, (5, 4)))
    (gradient,) = torch.autograd.grad(_attend(problem, backend).square().sum(), [problem.v], create_graph=True)
    with pytest.raises(NotImplementedError, match="'reference'"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    "geometry", [Geometry("sliding", (3, 1), border="shift"), Geometry("window", (2, 2), border="project")], ids=str
)
def test_the_reference_can_be_differentiated_twice(geometry: Geometry) -> None:
    problem = make_problem(geometry, (2, 3), batch=1, heads=1, head_dim=2)
    leaves = [x.requires_grad_() for x in operands_of(problem)]

    def call(*operands: Tensor) -> Tensor:
        return _attend(change_operands(problem, list(operands)), "reference")

    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)


def _count_kept_bytes(problem: Problem, backend: str) -> int:
    """What autograd keeps beside the operands."""
    problem, kept = _with_gradients(problem), {}
    own = {x.untyped_storage().data_ptr() for x in operands_of(problem)}

    def keep(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = _attend(problem, backend)
    assert out.requires_grad
    return sum(x.untyped_storage().nbytes() for x in kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@every_case
def test_two_numbers_a_query_are_kept_for_the_backward_pass(
    backend: str, geometry: Geometry, dtype: torch.dtype
) -> None:
    problem = make_problem(geometry, (9, 8), dtype=dtype)
    assert _count_kept_bytes(problem, backend) == 8 * problem.v[..., 0].numel()


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpu", marks=needs_library)])
def test_little_is_kept_of_what_unfolding_keeps(backend: str) -> None:
    problem = make_problem(Geometry("sliding", (7, 7)), (14, 14), heads=3, head_dim=32, dtype=torch.float32)
    kept, copies = _count_kept_bytes(problem, backend), 2 * problem.geometry.num_taps * problem.v.nbytes
    assert _count_kept_bytes(problem, "dense") >= copies
    assert 60 * kept <= copies


def test_the_operands_have_one_shape() -> None:
    problem = make_problem(Geometry("sliding", (3, 3)), (5, 4))
    narrow = problem._replace(v=problem.v[:, :3])
    with pytest.raises(AssertionError):
        fused.attend(narrow, dropout_p=0.0, backend="torch")
