"""The products `dot`, `mix` and `reverse` of sliding windows, as custom operators of torch.

`dot(a, b)[i, o] = a_i·b_{i+o}`, `mix(w, v)[i] = Σ_o w_{i,o} v_{i+o}`, `reverse(w)[j, o] = w[j+o, -o]`. Outside the map
everything is zero. Their gradients are the same products, computed as gathers: ∂dot/∂a = mix(g, b),
∂dot/∂b = mix(reverse(g), a), ∂mix/∂w = dot(g, v), ∂mix/∂v = mix(reverse(w), g), ∂reverse/∂w = reverse(g). They can be
differentiated to any order and save nothing but their inputs. The order of sums does not depend on the threads.

A static filter m may multiply each channel at each tap: dot(a, b, m)[i, o] = Σ_c a_{i,c} m_{o,c} b_{i+o,c} and
mix(w, v, m)[i, c] = Σ_o w_{i,o} m_{o,c} v_{i+o,c}. The gradient of the filter is a third product,
correlate(w, a, b)[o, c] = Σ_i w_{i,o} a_{i,c} b_{i+o,c}. All three are derivatives of one sum, Σ w m a b. Weights per
channel are never stored.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from paradigms.functional import Geometry
from paradigms.kernels import cpu, offset, reference
from paradigms.kernels.factors import Product, register_derivatives
from paradigms.kernels.transforms import register_composition

Map = Float[Tensor, "batch height width heads head_dim"]
Taps = Float[Tensor, "batch height width heads taps"]
Filters = Float[Tensor, "#batch heads taps head_dim"]


@runtime_checkable
class PrimitiveBackend(Protocol):
    """The functions of a backend; they need no derivatives."""

    def dot(self, a: Map, b: Map, filters: Filters | None, geometry: Geometry) -> Taps:
        """See `primitive.dot`."""
        ...

    def mix(self, weights: Taps, v: Map, filters: Filters | None, geometry: Geometry) -> Map:
        """See `primitive.mix`."""
        ...

    def correlate(self, weights: Taps, a: Map, b: Map, geometry: Geometry) -> Filters:
        """See `primitive.correlate`."""
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
"""The modules by backend. Triton is imported on first use, since it may not be installed."""


def _sliding(kernel_size: Sequence[int], dilation: Sequence[int]) -> Geometry:
    return Geometry("sliding", (kernel_size[0], kernel_size[1]), (dilation[0], dilation[1]))


@torch.library.custom_op("paradigms::dot", mutates_args=())
def _dot(
    a: Tensor, b: Tensor, filters: Tensor | None, kernel_size: Sequence[int], dilation: Sequence[int], backend: str
) -> Tensor:
    return PRIMITIVES[backend]().dot(a, b, filters, _sliding(kernel_size, dilation))


@torch.library.custom_op("paradigms::mix", mutates_args=())
def _mix(
    weights: Tensor,
    v: Tensor,
    filters: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    backend: str,
) -> Tensor:
    return PRIMITIVES[backend]().mix(weights, v, filters, _sliding(kernel_size, dilation))


@torch.library.custom_op("paradigms::correlate", mutates_args=())
def _correlate(
    weights: Tensor, a: Tensor, b: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], backend: str
) -> Tensor:
    return PRIMITIVES[backend]().correlate(weights, a, b, _sliding(kernel_size, dilation))


@torch.library.custom_op("paradigms::reverse", mutates_args=())
def _reverse(weights: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], backend: str) -> Tensor:
    return PRIMITIVES[backend]().reverse(weights, _sliding(kernel_size, dilation))


@_dot.register_fake
def _(a: Tensor, b: Tensor, filters: Tensor | None, kernel_size: Sequence[int], *_: object) -> Tensor:  # noqa: ARG001
    return a.new_empty(*a.shape[:-1], kernel_size[0] * kernel_size[1])


@_mix.register_fake
def _(weights: Tensor, v: Tensor, *_: object) -> Tensor:  # noqa: ARG001
    return v.new_empty(v.shape)


@_correlate.register_fake
def _(weights: Tensor, a: Tensor, *_: object) -> Tensor:
    return a.new_empty(len(a), a.shape[3], weights.shape[-1], a.shape[-1])


@_reverse.register_fake
def _(weights: Tensor, *_: object) -> Tensor:
    return weights.new_empty(weights.shape)


def _keep_how(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch's signature
    _, *ctx.how = inputs


def _mix_back(weights: Tensor, a: Tensor, filters: Tensor | None, *how: Any) -> Tensor:
    """The transpose of `mix`: each key gathers the weighted vectors of the queries that see it."""
    opposite = None if filters is None else filters.flip(2)
    return torch.ops.paradigms.mix(torch.ops.paradigms.reverse(weights, *how), a, opposite, *how)  # type: ignore[no-any-return]


_PRODUCTS: dict[str, Product] = {
    "weights": torch.ops.paradigms.dot,
    "a": torch.ops.paradigms.mix,
    "b": _mix_back,
    "filters": torch.ops.paradigms.correlate,
}


def _backward_of_reverse(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.paradigms.reverse(grad, *ctx.how), None, None, None


register_derivatives(_dot, "weights", _PRODUCTS)
register_derivatives(_mix, "a", _PRODUCTS)
register_derivatives(_correlate, "filters", _PRODUCTS)
_reverse.register_autograd(_backward_of_reverse, setup_context=_keep_how)


def _compose(product: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def compose(*args: Any) -> Tensor:
        *operands, kernel_size, dilation, _backend = args
        return product(*operands, _sliding(kernel_size, dilation))

    return compose


register_composition(_dot, _compose(reference.dot))
register_composition(_mix, _compose(reference.mix))
register_composition(_correlate, _compose(reference.correlate))
register_composition(_reverse, _compose(reference.reverse))


@register_flop_formula([torch.ops.paradigms.dot, torch.ops.paradigms.mix, torch.ops.paradigms.correlate])
def _flops_of_product(
    _: object, b: Sequence[int], third: object | None, kernel_size: Sequence[int], *_how: object, **_out: object
) -> int:
    """The second operand is a map in each of the products."""
    products = 1 if third is None else 2
    return 2 * products * torch.Size(b).numel() * kernel_size[0] * kernel_size[1]


@register_flop_formula(torch.ops.paradigms.reverse)
def _flops_of_reverse(*_: object, **__: object) -> int:
    return 0


def _choose(backend: str, device: torch.device) -> str:
    """`auto` is `cpu` on a CPU if the library was built, else `torch`."""
    if backend != "auto":
        return backend
    return "cpu" if device.type == "cpu" and cpu.is_available() else "torch"


def dot(a: Map, b: Map, geometry: Geometry, *, filters: Filters | None = None, backend: str = "auto") -> Taps:
    """Dot products with neighbors: out[i, o] = Σ_c a_{i,c} m_{o,c} b_{i+o,c}, m = `filters`; zero if i+o is outside."""
    how = geometry.kernel_size, geometry.dilation, _choose(backend, a.device)
    return torch.ops.paradigms.dot(a, b, _expand(filters, a), *how)  # type: ignore[no-any-return]


def mix(weights: Taps, v: Map, geometry: Geometry, *, filters: Filters | None = None, backend: str = "auto") -> Map:
    """Weighted sums of neighbors: out[i, c] = Σ_o w_{i,o} m_{o,c} v_{i+o,c} over the taps inside the map."""
    how = geometry.kernel_size, geometry.dilation, _choose(backend, v.device)
    return torch.ops.paradigms.mix(weights, v, _expand(filters, v), *how)  # type: ignore[no-any-return]


def correlate(weights: Taps, a: Map, b: Map, geometry: Geometry, *, backend: str = "auto") -> Filters:
    """The gradient of filters, image by image: out[o, c] = Σ_i w_{i,o} a_{i,c} b_{i+o,c} over the taps inside."""
    how = geometry.kernel_size, geometry.dilation, _choose(backend, a.device)
    return torch.ops.paradigms.correlate(weights, a, b, *how)  # type: ignore[no-any-return]


def _expand(filters: Filters | None, x: Map) -> Filters | None:
    """Expand filters to every image; torch then sums the gradients over images that share them."""
    return None if filters is None else filters.expand(len(x), -1, -1, -1)


def reverse(weights: Taps, geometry: Geometry, *, backend: str = "auto") -> Taps:
    """Reorder weights from queries to keys: out[j, o] = w[j+o, -o], zero if j+o lies outside the map."""
    how = geometry.kernel_size, geometry.dilation, _choose(backend, weights.device)
    return torch.ops.paradigms.reverse(weights, *how)  # type: ignore[no-any-return]
