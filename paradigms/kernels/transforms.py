"""Our custom operators under `torch.func` (`jvp`, `vmap`, `grad`, ...) and forward-mode differentiation.

A custom operator of torch supports backward differentiation only: `jvp` would treat its result as a constant. Under a
transform, our operators are therefore computed in plain torch. That is slower: keys are gathered for each tap.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch._library.autograd import make_autograd_impl
from torch.autograd import forward_ad

_LIBRARY = torch.library.Library("paradigms", "FRAGMENT")


def register_composition(operator: Any, compose: Callable[..., Any], *, batches_gradients: bool = False) -> None:
    """Compute an operator of `torch.library.custom_op` by `compose(*args)` if a transform is active.

    Call it after `register_autograd`. `batches_gradients` includes the older `vmap` of
    `torch.autograd.grad(..., is_grads_batched=True)`, which by itself loops only over operators that return one tensor.
    """
    name = operator._opoverload._schema.name.removeprefix("paradigms::")
    differentiate = make_autograd_impl(operator._opoverload, operator)

    def autograd(keyset: Any, *args: Any) -> Any:
        return differentiate(keyset, *args) if forward_ad._current_level < 0 else compose(*args)

    _LIBRARY.impl(name, compose, "FuncTorchDynamicLayerFrontMode")
    if batches_gradients:
        _LIBRARY.impl(name, compose, "Batched")
    _LIBRARY.impl(name, autograd, "Autograd", with_keyset=True, allow_override=True)
