"""The operator against what others wrote."""

import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from paradigms.attention import LocalAttention, build_attention

from .conftest import make_input


def _copy_from_timm(block: SwinTransformerBlock) -> LocalAttention:
    """Our operator with the weights of timm's; its table has an offset's sign the other way round, heads last."""
    attention = block.attn
    ours = build_attention(
        "swin", dim=block.dim, num_heads=attention.num_heads, window_size=block.window_size, shift_size=block.shift_size
    ).double()
    weights, biases = attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3)
    terms = ours.parameterization
    assert terms.q is not None
    assert terms.k is not None
    assert terms.rb is not None
    with torch.no_grad():
        for linear, weight, bias in zip((terms.q, terms.k, ours.v), weights, biases, strict=True):
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
        ours.proj.load_state_dict(attention.proj.state_dict())
        terms.rb.weight.copy_(attention.relative_position_bias_table.flip(0).T)
    return ours


@pytest.mark.parametrize("shift", [0, 2, (1, 2)], ids=["unshifted", "shifted", "shifted-unevenly"])
@pytest.mark.parametrize("size", [(8, 12), (9, 10), (4, 7), (3, 9)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_swin_equals_timm(size: tuple[int, int], shift: int | tuple[int, int], backend: str) -> None:
    torch.manual_seed(0)
    block = SwinTransformerBlock(6, size, num_heads=2, window_size=4, shift_size=shift).double().eval()
    for parameter in block.attn.parameters():
        nn.init.normal_(parameter)
    ours = _copy_from_timm(block)
    ours.backend = backend
    x = make_input(*size)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    expected, actual = block._attn(inputs[0]), ours(inputs[1])
    assert torch.allclose(actual, expected, rtol=1e-9, atol=1e-10)
    weight = torch.randn_like(expected)
    gradients = [torch.autograd.grad((y * weight).sum(), i)[0] for y, i in zip((expected, actual), inputs, strict=True)]
    assert torch.allclose(gradients[1], gradients[0], rtol=1e-9, atol=1e-9)


def _gradients(y: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return torch.autograd.grad((y * weight).sum(), inputs)


@pytest.mark.parametrize("size", [(9, 5), (3, 12), (1, 1)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_dwconv_with_a_head_a_channel_equals_a_depthwise_convolution(size: tuple[int, int]) -> None:
    dim = 6
    operator = build_attention("dwconv", dim=dim, num_heads=dim).double()
    assert operator.parameterization.rb is not None
    table = operator.parameterization.rb.weight
    with torch.no_grad():
        table.normal_()
        for linear in (operator.v, operator.proj):
            linear.weight.copy_(torch.eye(dim))
            linear.bias.zero_()
    convolution = nn.Conv2d(dim, dim, 7, padding=3, groups=dim, bias=False).double()
    convolution.weight.data.copy_(table.view(dim, 1, 7, 7))
    ours, theirs = make_input(*size).requires_grad_(), make_input(*size).requires_grad_()
    actual = operator(ours)
    expected = convolution(theirs.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert torch.allclose(actual, expected, rtol=1e-10, atol=1e-10)
    actual_gradients = _gradients(actual, ours, table)
    expected_gradients = _gradients(expected, theirs, convolution.weight)
    for a, e in zip(actual_gradients, expected_gradients, strict=True):
        assert torch.allclose(a.flatten(), e.flatten(), rtol=1e-10, atol=1e-10)


def test_a_window_as_large_as_the_map_is_global_attention() -> None:
    torch.manual_seed(0)
    operator = build_attention("net1", dim=6, num_heads=2, window_size=(4, 5)).double()
    x = make_input(4, 5)
    terms = operator.parameterization
    assert terms.q is not None
    assert terms.k is not None
    q, k, v = (linear(x).view(2, 20, 2, 3).transpose(1, 2) for linear in (terms.q, terms.k, operator.v))
    expected = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 4, 5, 6)
    assert torch.allclose(operator(x), operator.proj(expected), rtol=1e-10, atol=1e-12)
