"""Our custom operators under `torch.func` (`jvp`, `vmap`, `grad`, ...) and forward-mode differentiation.

An operator of torch's library knows backward differentiation alone: `jvp` would take its result for a constant. Under
a transform each of ours is therefore computed by operations of torch, which have every rule. That is slower: a copy of
the keys is gathered for each tap.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch._library.autograd import make_autograd_impl
from torch.autograd import forward_ad

_LIBRARY = torch.library.Library("paradigms", "FRAGMENT")


def register_composition(operator: Any, compose: Callable[..., Any], *, batches_gradients: bool = False) -> None:
    """Compute an operator of `torch.library.custom_op` by `compose`, of its arguments, wherever a transform is active.

    To be called after `register_autograd`. `batches_gradients`: under the older `vmap` too, which
    `torch.autograd.grad(..., is_grads_batched=True)` uses, and which loops over operators that return one tensor.
    """
    name = operator._opoverload._schema.name.removeprefix("paradigms::")
    differentiate = make_autograd_impl(operator._opoverload, operator)

    def autograd(keyset: Any, *args: Any) -> Any:
        return differentiate(keyset, *args) if forward_ad._current_level < 0 else compose(*args)

    _LIBRARY.impl(name, compose, "FuncTorchDynamicLayerFrontMode")
    if batches_gradients:
        _LIBRARY.impl(name, compose, "Batched")
    _LIBRARY.impl(name, autograd, "Autograd", with_keyset=True, allow_override=True)
