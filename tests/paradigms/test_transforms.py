"""Operators inside torch: every transform is right or refused, as the table of docs/guide/operator.md says."""

import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap

from paradigms.attention import LocalAttention
from paradigms.config import AttentionConfig
from paradigms.functional import Geometry
from paradigms.kernels import cpu, primitive

from .conftest import OF_LEVELS, OF_PRESETS, OPERATORS, make_input, make_operator

ROOT = Path(__file__).parents[2]


def _same(actual: Tensor, expected: Tensor) -> bool:
    return actual.shape == expected.shape and torch.allclose(actual, expected, rtol=1e-9, atol=1e-11)


def _push(operator: LocalAttention, x: Tensor, tangent: Tensor) -> Tensor:
    """The directional derivative by two backward passes of the reference."""
    x = x.clone().requires_grad_()
    reference = deepcopy(operator)
    reference.backend = "reference"
    out = reference(x)
    dual = torch.zeros_like(out, requires_grad=True)
    (pulled,) = torch.autograd.grad(out, x, dual, create_graph=True)
    return torch.autograd.grad(pulled, dual, tangent)[0]


def _tangent(x: Tensor) -> Tensor:
    return torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(5))


def check_jvp(operator: LocalAttention, x: Tensor) -> None:
    tangent = _tangent(x)
    expected = _push(operator, x, tangent)
    parameters = {name: parameter.detach() for name, parameter in operator.named_parameters()}
    call = lambda image: functional_call(operator, parameters, (image,))  # noqa: E731
    assert _same(jvp(call, (x,), (tangent,))[1], expected)
    for function in (call, operator):  # without and with parameters that need gradients
        with forward_ad.dual_level():
            found = forward_ad.unpack_dual(function(forward_ad.make_dual(x, tangent))).tangent
            assert found is not None
            assert _same(found, expected)


def check_vmap(operator: LocalAttention, x: Tensor) -> None:
    assert _same(vmap(lambda image: operator(image[None])[0])(x), operator(x))


def _differentiate(operator: LocalAttention, x: Tensor) -> dict[str, Tensor]:
    parameters = dict(operator.named_parameters())
    found = torch.autograd.grad(operator(x).square().sum(), [*parameters.values()], allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
    }


def check_grad(operator: LocalAttention, x: Tensor) -> None:
    parameters = {name: parameter.detach() for name, parameter in operator.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(operator, parameters, (x,)).square().sum()

    expected = _differentiate(operator, x)
    whole = grad(loss)(parameters, x)
    samples = vmap(grad(lambda parameters, image: loss(parameters, image[None])), in_dims=(None, 0))(parameters, x)
    for name, gradient in expected.items():
        assert _same(whole[name], gradient)
        assert _same(samples[name].sum(0), gradient)


def check_double_backward(operator: LocalAttention, x: Tensor) -> None:
    x = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(operator(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert bool(second.isfinite().all())


def check_export(operator: LocalAttention, x: Tensor) -> None:
    assert _same(torch.export.export(operator, (x,)).module()(x), operator(x))


def check_script(operator: LocalAttention, x: Tensor) -> None:
    assert _same(torch.jit.script(operator)(x), operator(x))


def check_onnx(operator: LocalAttention, x: Tensor) -> None:
    from onnx.reference import ReferenceEvaluator

    operator, x = operator.float(), x.float()
    program = torch.onnx.export(operator, (x,), dynamo=True, verbose=False)
    assert program is not None
    model = program.model_proto
    (found,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x.numpy()})
    assert torch.allclose(torch.from_numpy(found), operator(x), rtol=1e-4, atol=1e-5)


def check_half(operator: LocalAttention, x: Tensor) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.allclose(operator.to(dtype)(x.to(dtype)).double(), operator.double()(x), rtol=0.1, atol=0.1)


def check_deterministic(operator: LocalAttention, x: Tensor) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = _differentiate(operator, x), _differentiate(operator, x)
    finally:
        torch.use_deterministic_algorithms(before)
    assert all(torch.equal(first[name], second[name]) for name in first)


Check = Callable[[LocalAttention, Tensor], None]

OUTSIDE = """
import torch
from paradigms import AttentionConfig, build_attention
x = torch.randn(2, 9, 8, 8)
operator = build_attention(AttentionConfig(neighborhood="sliding_window", backend="{backend}"), dim=8, num_heads=2)
other = {make}
assert torch.allclose(other(x), operator(x), atol=1e-6)
other(x).sum().backward()
"""


def _check_in_a_process(operator: LocalAttention, make: str) -> None:
    """Of its own: in this one, shapes are checked, which cannot be traced."""
    script = OUTSIDE.format(backend=operator.backend, make=make)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def check_compile(operator: LocalAttention, x: Tensor) -> None:  # noqa: ARG001
    _check_in_a_process(operator, "torch.compile(operator, backend='aot_eager', fullgraph=True)")


def check_trace(operator: LocalAttention, x: Tensor) -> None:  # noqa: ARG001
    _check_in_a_process(operator, "torch.jit.trace(operator, (x,))")


ROWS: dict[str, Check] = {
    "`torch.func.jvp`, forward mode": check_jvp,
    "`torch.func.vmap`": check_vmap,
    "`torch.func.grad`, gradients of each image": check_grad,
    "double backward": check_double_backward,
    "`torch.compile`": check_compile,
    "`torch.export`": check_export,
    "`torch.jit.trace`": check_trace,
    "`torch.jit.script`": check_script,
    "`torch.onnx.export`": check_onnx,
    "float16, bfloat16": check_half,
    "deterministic algorithms": check_deterministic,
}
SLOW = ("`torch.compile`", "`torch.jit.trace`", "`torch.onnx.export`", "`torch.export`")


def _read_table() -> dict[tuple[str, str], str]:
    """Of the guide: by row and backend, `yes` or `refused`."""
    text = (ROOT / "docs" / "guide" / "operator.md").read_text()
    lines = text.partition("| inside torch |")[2].splitlines()
    backends = [cell.strip(" `") for cell in lines[0].strip("|").split("|")]
    found = {}
    for line in lines[2:]:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        found |= {(name, backend): cell for backend, cell in zip(backends, cells, strict=True)}
    return found


TABLE = _read_table()


def test_the_table_of_the_guide_has_these_rows() -> None:
    assert {name for name, _ in TABLE} == set(ROWS)
    assert {backend for _, backend in TABLE} == {"auto", "cpu", "torch", "dense", "reference"}
    assert set(TABLE.values()) == {"yes", "refused"}


@pytest.mark.parametrize(
    ("name", "backend"), [pytest.param(*at, marks=pytest.mark.slow if at[0] in SLOW else ()) for at in TABLE]
)
def test_the_table_of_the_guide_is_true(name: str, backend: str) -> None:
    if backend == "cpu" and not cpu.is_available():
        pytest.skip("the compiled kernels were not built")
    operator = make_operator(replace(OF_LEVELS["softmax-sliding_window-zero"], backend=backend))
    if TABLE[name, backend] == "yes":
        ROWS[name](operator, make_input())
    else:
        with pytest.raises((RuntimeError, torch.onnx.errors.OnnxExporterError)):  # NotImplementedError is one
            ROWS[name](operator, make_input())


def _check_operator(config: AttentionConfig) -> None:
    for check in (check_jvp, check_vmap, check_grad):
        check(make_operator(config), make_input())


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(replace(OPERATORS[name], backend=backend), id=f"{name}-{backend}")
        for name, backend in (
            ("swin", "auto"),
            ("softmax-sliding_window-shift", "torch"),
            ("softmax-local_window-shifted-project", "auto"),
            ("elsa", "auto"),
        )
    ],
)
def test_transforms_are_right(config: AttentionConfig) -> None:
    _check_operator(config)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["auto", "torch", "dense", "reference"])
def test_transforms_of_every_operator_are_right(backend: str) -> None:
    for config in OPERATORS.values():
        try:
            asked = replace(config, backend=backend)
        except ValueError:  # the backend does not support this operator
            continue
        _check_operator(asked)


GEOMETRY = Geometry("sliding", (3, 5), (2, 1))


def _call(name: str, backend: str) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"map": (2, 5, 7, 2, 3), "taps": (2, 5, 7, 2, 15), "filters": (2, 2, 15, 3)}
    given = {key: torch.randn(shape, dtype=torch.float64, generator=generator) for key, shape in shapes.items()}
    x, taps, filters = given["map"], given["taps"], given["filters"]
    product = getattr(primitive, name)
    if name == "reverse":
        return lambda w: product(w, GEOMETRY, backend=backend), (taps,)
    if name == "correlate":
        return lambda w, a, b: product(w, a, b, GEOMETRY, backend=backend), (taps, x, x.flip(1))
    left = x.flip(1) if name == "dot" else taps
    return lambda a, b, m: product(a, b, GEOMETRY, filters=m, backend=backend), (left, x, filters)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("name", ["dot", "mix", "correlate", "reverse"])
def test_products_under_transforms_are_right(name: str, backend: str) -> None:
    if backend == "cpu" and not cpu.is_available():
        pytest.skip("the compiled kernels were not built")
    call, given = _call(name, backend)
    tangents = tuple(_tangent(x) for x in given)
    parts = [call(*given[:at], tangent, *given[at + 1 :]) for at, tangent in enumerate(tangents)]
    found, pushed = jvp(call, given, tangents)
    assert _same(found, call(*given))
    assert _same(pushed, torch.stack(parts).sum(0))  # linear in each operand
    stacked = tuple(torch.stack([x, 2 * x]) for x in given)
    assert _same(vmap(call)(*stacked)[1], 2 ** len(given) * found)
    leaves = [x.clone().requires_grad_() for x in given]
    expected = torch.autograd.grad(call(*leaves).square().sum(), leaves)
    gradients = grad(lambda *operands: call(*operands).square().sum(), argnums=tuple(range(len(given))))(*given)
    assert all(map(_same, gradients, expected))


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_gradients_of_several_outputs_are_taken_at_once(backend: str) -> None:
    operator = make_operator(replace(OF_PRESETS["net7_n"], backend="auto" if backend == "cpu" else backend))
    x = make_input().requires_grad_()
    out = operator(x)
    given = torch.stack([torch.ones_like(out), out.detach()])
    (batched,) = torch.autograd.grad(out, x, given, is_grads_batched=True, retain_graph=True)
    assert _same(batched[1], torch.autograd.grad(out, x, given[1])[0])


def test_compiled_kernels_refuse_tensors_of_another_device() -> None:
    x = torch.empty(1, 4, 4, 1, 2, device="meta")
    with pytest.raises(RuntimeError, match="backend 'cpu' computes on the CPU, got a tensor on meta"):
        cpu.dot(x, x, None, GEOMETRY)
