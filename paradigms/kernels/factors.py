"""Derivatives of Σ w m a b with respect to each of the four factors.

`primitive` and `moving` have an operator for each: `dot` makes weights, `mix` what the queries a get, its transpose
what the keys b get, `correlate` filters.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

FACTORS = "weights", "a", "b", "filters"
"""A product takes those that it does not make, in this order, and then how it is computed."""

NUM_OPERANDS = len(FACTORS) - 1

Product = Callable[..., Tensor]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch's signature
    """Each of the three is kept where a gradient by one of the others is asked for."""
    operands, ctx.how = inputs[:NUM_OPERANDS], inputs[NUM_OPERANDS:]
    needed = ctx.needs_input_grad[:NUM_OPERANDS]
    others = (needed[1] or needed[2], needed[0] or needed[2], needed[0] or needed[1])
    ctx.save_for_backward(*(x if used else None for x, used in zip(operands, others, strict=True)))


def register_derivatives(operator: Any, made: str, products: Mapping[str, Product]) -> None:
    """Let an operator that makes one of `FACTORS` be differentiated by the products that make the others."""
    operands = [name for name in FACTORS if name != made]

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        factors = {**dict(zip(operands, ctx.saved_tensors, strict=True)), made: grad}
        gradients = (
            products[name](*(factors[other] for other in FACTORS if other != name), *ctx.how) if needed else None
            for name, needed in zip(operands, ctx.needs_input_grad[:NUM_OPERANDS], strict=True)
        )
        return *gradients, *(None for _ in ctx.how)

    operator.register_autograd(backward, setup_context=_keep)
