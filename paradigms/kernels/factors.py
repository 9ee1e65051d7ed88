"""Derivatives of Σ w m a b with respect to each of its four factors.

`primitive` and `moving` have one operator for each derivative: `dot` for the weights w, `mix` for the map a of queries,
the transpose of `mix` for the map b of keys, `correlate` for the filters m.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

FACTORS = "weights", "a", "b", "filters"
"""A product takes the three factors other than its result, in this order, then its further arguments."""

NUM_OPERANDS = len(FACTORS) - 1

Product = Callable[..., Tensor]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch's signature
    """Save each of the three factors if the gradient of one of the others is required."""
    operands, ctx.how = inputs[:NUM_OPERANDS], inputs[NUM_OPERANDS:]
    needed = ctx.needs_input_grad[:NUM_OPERANDS]
    others = (needed[1] or needed[2], needed[0] or needed[2], needed[0] or needed[1])
    ctx.save_for_backward(*(x if used else None for x, used in zip(operands, others, strict=True)))


def register_derivatives(operator: Any, made: str, products: Mapping[str, Product]) -> None:
    """Register the derivatives of an operator that computes the factor `made`, by the products for the others."""
    operands = [name for name in FACTORS if name != made]

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        factors = {**dict(zip(operands, ctx.saved_tensors, strict=True)), made: grad}
        gradients = (
            products[name](*(factors[other] for other in FACTORS if other != name), *ctx.how) if needed else None
            for name, needed in zip(operands, ctx.needs_input_grad[:NUM_OPERANDS], strict=True)
        )
        return *gradients, *(None for _ in ctx.how)

    operator.register_autograd(backward, setup_context=_keep)
