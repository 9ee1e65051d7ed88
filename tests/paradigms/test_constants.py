"""Whatever has used an operator before, a call without modes computes with real tensors, and the same numbers."""

import functools
import gc
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.func import functional_call

from paradigms import constants
from paradigms.attention import LocalAttention
from paradigms.config import AttentionConfig

from .conftest import OF_LEVELS, OPERATORS, make_input, make_operator


def _list_tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _fake(operator: LocalAttention, x: Tensor) -> None:
    with FakeTensorMode() as mode:
        given = {name: mode.from_tensor(tensor) for name, tensor in _list_tensors(operator).items()}
        out = functional_call(operator, given, (mode.from_tensor(x),))
        assert isinstance(out, FakeTensor)
        out.sum().backward()


def _fake_of_another_device(operator: LocalAttention, x: Tensor) -> None:
    if operator.backend == "cpu":
        return
    with FakeTensorMode(allow_non_fake_inputs=True):
        given = {name: torch.empty_like(tensor, device="cuda") for name, tensor in _list_tensors(operator).items()}
        assert functional_call(operator, given, (torch.empty_like(x, device="cuda"),)).device.type == "cuda"


def _infer(operator: LocalAttention, x: Tensor) -> None:
    with torch.inference_mode():
        operator(x)


def _on_meta(operator: LocalAttention, x: Tensor) -> None:
    with torch.device("meta"):
        assert operator(x).device.type == "cpu"
    given = {name: tensor.to("meta") for name, tensor in _list_tensors(operator).items()}
    assert functional_call(operator, given, (x.to("meta"),)).is_meta


@contextmanager
def _defaults() -> Iterator[None]:
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float16)
    try:
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


def _with_other_defaults(operator: LocalAttention, x: Tensor) -> None:
    with _defaults():
        operator(x)


def _export(operator: LocalAttention, x: Tensor) -> None:
    same = torch.export.export(operator, (x,)).module()(x)
    assert torch.allclose(same, operator(x), rtol=1e-10, atol=1e-12)


Use = Callable[[LocalAttention, Tensor], None]

PASSES: dict[str, Use] = {
    "fake-tensors": _fake,
    "fake-tensors-of-a-gpu": _fake_of_another_device,
    "inference-mode": _infer,
    "meta": _on_meta,
    "other-defaults": _with_other_defaults,
    "export": _export,
}


def _differentiate(operator: LocalAttention, x: Tensor) -> list[Tensor | None]:
    x = x.clone().requires_grad_()
    out = operator(x)
    return [out, *torch.autograd.grad(out.square().sum(), [x, *operator.parameters()], allow_unused=True)]


def _forget() -> None:
    constants._make.cache_clear()
    constants._keep.cache_clear()


def _compute_after(use: Use | None, config: AttentionConfig) -> list[Tensor | None]:
    """Output and gradients of a new operator, in a process that has so far used one in this way alone."""
    _forget()
    if use is not None:
        use(make_operator(config), make_input())
    return _differentiate(make_operator(config), make_input())


def _check(use: str, config: AttentionConfig) -> None:
    actual, expected = _compute_after(PASSES[use], config), _compute_after(None, config)
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert type(ours) is Tensor
            assert torch.equal(ours, theirs)


CASES = {
    "local_window-shifted-mask": "torch",
    "sliding_window-mask": "reference",
    "sliding_window-shift": "torch",
}
"""Of each kind of constants one, and a backend that reads them."""


@pytest.mark.parametrize("use", [name for name in PASSES if name != "export"])
@pytest.mark.parametrize("name", CASES)
def test_a_use_under_a_mode_does_not_change_later_calls(name: str, use: str) -> None:
    _check(use, replace(OF_LEVELS[f"softmax-{name}"], backend=CASES[name]))


@pytest.mark.slow
@pytest.mark.parametrize("use", PASSES)
@pytest.mark.parametrize("backend", ["auto", "cpu", "torch", "dense", "reference"])
def test_no_use_of_any_operator_changes_later_calls(backend: str, use: str) -> None:
    for config in OPERATORS.values():
        try:
            asked = replace(config, backend=backend)
        except ValueError:  # the backend does not support this operator
            continue
        _check(use, asked)


def _list_caches() -> Iterator[tuple[str, Any]]:
    for name, module in sys.modules.items():
        if name.partition(".")[0] == "paradigms":
            for value in vars(module).values():
                if isinstance(value, functools._lru_cache_wrapper):
                    yield f"{value.__module__}.{value.__name__}", value


def _walk(root: Any) -> Iterator[Any]:
    """What a cache keeps."""
    left, seen = gc.get_referents(root), set()
    while left:
        found = left.pop()
        if id(found) not in seen and not isinstance(found, type | types.ModuleType | types.FunctionType):
            seen.add(id(found))
            yield found
            left += gc.get_referents(found)


def test_tensors_are_kept_in_one_place_only() -> None:
    for backend in ("auto", "torch", "reference"):
        for name in ("local_window-shifted-mask", "sliding_window-mask", "sliding_window-shift"):
            _infer(make_operator(replace(OF_LEVELS[f"softmax-{name}"], backend=backend)), make_input())
    holders = {name for name, cache in _list_caches() for kept in _walk(cache) if isinstance(kept, Tensor)}
    assert holders == {"paradigms.constants._keep"}, holders
    assert not any(kept.is_inference() for kept in _walk(constants._keep) if isinstance(kept, Tensor))
