"""Two products and one map that carry every sliding neighborhood, as operators of torch.

`dot(a, b)[i, o] = a_i·b_{i+o}`, `mix(w, v)[i] = Σ_o w_{i,o} v_{i+o}`, `reverse(w)[j, o] = w[j+o, -o]`; what lies
outside the map is zero. Their gradients are each other, as gathers: ∂dot/∂a = mix(g, b), ∂dot/∂b = mix(reverse(g), a),
∂mix/∂w = dot(g, v), ∂mix/∂v = mix(reverse(w), g), ∂reverse/∂w = reverse(g). So they can be differentiated as often as
one likes, keep nothing but their inputs, and sum in an order that does not depend on threads.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from paradigms.functional import Geometry
from paradigms.kernels import cpu, offset

Map = Float[Tensor, "batch height width heads head_dim"]
Taps = Float[Tensor, "batch height width heads taps"]


@runtime_checkable
class PrimitiveBackend(Protocol):
    """What a module must offer; nothing of it is differentiated."""

    def dot(self, a: Map, b: Map, geometry: Geometry) -> Taps:
        """See `primitive.dot`."""
        ...

    def mix(self, weights: Taps, v: Map, geometry: Geometry) -> Map:
        """See `primitive.mix`."""
        ...

    def reverse(self, weights: Taps, geometry: Geometry) -> Taps:
        """See `primitive.reverse`."""
        ...


def _load_triton() -> PrimitiveBackend:
    from paradigms.kernels.triton_kernels import primitive

    return primitive


PRIMITIVES: dict[str, Callable[[], PrimitiveBackend]] = {
    "torch": lambda: offset,
    "cpu": lambda: cpu,
    "triton": _load_triton,
}
"""The modules, by backend; Triton, which is not installed everywhere, is imported when it is first used."""


def _sliding(kernel_size: Sequence[int], dilation: Sequence[int]) -> Geometry:
    return Geometry("sliding", (kernel_size[0], kernel_size[1]), (dilation[0], dilation[1]))


@torch.library.custom_op("paradigms::dot", mutates_args=())
def _dot(a: Tensor, b: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], backend: str) -> Tensor:
    return PRIMITIVES[backend]().dot(a, b, _sliding(kernel_size, dilation))


@torch.library.custom_op("paradigms::mix", mutates_args=())
def _mix(weights: Tensor, v: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], backend: str) -> Tensor:
    return PRIMITIVES[backend]().mix(weights, v, _sliding(kernel_size, dilation))


@torch.library.custom_op("paradigms::reverse", mutates_args=())
def _reverse(weights: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], backend: str) -> Tensor:
    return PRIMITIVES[backend]().reverse(weights, _sliding(kernel_size, dilation))


@_dot.register_fake
def _(a: Tensor, b: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], backend: str) -> Tensor:  # noqa: ARG001
    return a.new_empty(*a.shape[:-1], kernel_size[0] * kernel_size[1])


@_mix.register_fake
def _(weights: Tensor, v: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], backend: str) -> Tensor:  # noqa: ARG001
    return v.new_empty(v.shape)


@_reverse.register_fake
def _(weights: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], backend: str) -> Tensor:  # noqa: ARG001
    return weights.new_empty(weights.shape)


def _keep_operands(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch's signature
    left, right, *ctx.how = inputs
    ctx.save_for_backward(left if ctx.needs_input_grad[1] else None, right if ctx.needs_input_grad[0] else None)


def _keep_how(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch's signature
    _, *ctx.how = inputs


def _backward_of_dot(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    a, b = ctx.saved_tensors
    to_a = None if b is None else torch.ops.paradigms.mix(grad, b, *ctx.how)
    to_b = None if a is None else torch.ops.paradigms.mix(torch.ops.paradigms.reverse(grad, *ctx.how), a, *ctx.how)
    return to_a, to_b, None, None, None


def _backward_of_mix(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    weights, v = ctx.saved_tensors
    to_weights = None if v is None else torch.ops.paradigms.dot(grad, v, *ctx.how)
    reversed_weights = None if weights is None else torch.ops.paradigms.reverse(weights, *ctx.how)
    to_v = None if reversed_weights is None else torch.ops.paradigms.mix(reversed_weights, grad, *ctx.how)
    return to_weights, to_v, None, None, None


def _backward_of_reverse(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.paradigms.reverse(grad, *ctx.how), None, None, None


_dot.register_autograd(_backward_of_dot, setup_context=_keep_operands)
_mix.register_autograd(_backward_of_mix, setup_context=_keep_operands)
_reverse.register_autograd(_backward_of_reverse, setup_context=_keep_how)


@register_flop_formula(torch.ops.paradigms.dot)
def _flops_of_dot(a: Sequence[int], _b: object, kernel_size: Sequence[int], *_: object, **__: object) -> int:
    return 2 * torch.Size(a).numel() * kernel_size[0] * kernel_size[1]


@register_flop_formula(torch.ops.paradigms.mix)
def _flops_of_mix(_weights: object, v: Sequence[int], kernel_size: Sequence[int], *_: object, **__: object) -> int:
    return 2 * torch.Size(v).numel() * kernel_size[0] * kernel_size[1]


@register_flop_formula(torch.ops.paradigms.reverse)
def _flops_of_reverse(*_: object, **__: object) -> int:
    return 0


def _choose(backend: str, device: torch.device) -> str:
    """`auto`: compiled on a CPU where that was built, else torch."""
    if backend != "auto":
        return backend
    return "cpu" if device.type == "cpu" and cpu.is_available() else "torch"


def dot(a: Map, b: Map, geometry: Geometry, *, backend: str = "auto") -> Taps:
    """Scores of neighbors: out[i, o] = a_i·b_{i+o}, zero where i+o lies outside the map."""
    how = geometry.kernel_size, geometry.dilation, _choose(backend, a.device)
    return torch.ops.paradigms.dot(a, b, *how)  # type: ignore[no-any-return]


def mix(weights: Taps, v: Map, geometry: Geometry, *, backend: str = "auto") -> Map:
    """Weighted sums of neighbors: out[i] = Σ_o w_{i,o} v_{i+o} over the taps inside the map."""
    how = geometry.kernel_size, geometry.dilation, _choose(backend, v.device)
    return torch.ops.paradigms.mix(weights, v, *how)  # type: ignore[no-any-return]


def reverse(weights: Taps, geometry: Geometry, *, backend: str = "auto") -> Taps:
    """From what queries say to what keys hear: out[j, o] = w[j+o, -o], zero where j+o lies outside the map."""
    how = geometry.kernel_size, geometry.dilation, _choose(backend, weights.device)
    return torch.ops.paradigms.reverse(weights, *how)  # type: ignore[no-any-return]
