"""Operators that generate their filters, against the published layers written out, or against timm's own."""

from collections.abc import Callable

import pytest
import torch
from timm.models.volo import OutlookAttention
from torch import Tensor, nn
from torch.nn.functional import batch_norm, relu, unfold

from paradigms.attention import LocalAttention, build_attention
from paradigms.config import make_config
from paradigms.presets import PRESETS

from .conftest import make_input

DIM = 32
SIZES = [(9, 5), (3, 12), (1, 1), (2, 7)]


def size_id(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def make_preset(name: str, num_heads: int, **fields: object) -> LocalAttention:
    """In float64, every number of it random, running statistics included."""
    generator = torch.Generator().manual_seed(5)
    operator = (
        build_attention(make_config(fields, base=PRESETS[name].config), dim=DIM, num_heads=num_heads).double().eval()
    )
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter.normal_(generator=generator)
        for statistic in operator.buffers():
            if statistic.is_floating_point():
                statistic.uniform_(0.5, 1.5, generator=generator)
    return operator


def normalize(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch norm in eval mode of (batch, channels, ...)."""
    return batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def generate(x: Tensor, linear: nn.Linear) -> Tensor:
    """A 1x1 convolution of (batch, channels, height, width)."""
    return nn.functional.conv2d(x, linear.weight[:, :, None, None], linear.bias)


def apply(filters: Tensor, x: Tensor, kernel_size: int) -> Tensor:
    """Filters (batch, groups, taps, height, width) meet channels (batch, channels, height, width)."""
    batch, groups, taps, height, width = filters.shape
    neighbors = unfold(x, kernel_size, padding=kernel_size // 2).view(batch, groups, -1, taps, height, width)
    return torch.einsum("bgcthw,bgthw->bgchw", neighbors, filters).reshape(x.shape)


def assert_same(operator: LocalAttention, published: Callable[[Tensor], Tensor], size: tuple[int, int]) -> None:
    """Output and all gradients; `published` is (batch, channels, height, width) to the same, of the same parameters."""
    inputs = [make_input(*size, DIM).requires_grad_() for _ in range(2)]
    outputs = operator(inputs[0]), published(inputs[1].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    found = [(y, *gradients(y, x, *operator.parameters())) for x, y in zip(inputs, outputs, strict=True)]
    for ours, theirs in zip(*found, strict=True):
        assert is_close(ours, theirs)


def gradients(y: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    weight = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)
    return torch.autograd.grad((y * weight).sum(), inputs)


def is_close(ours: Tensor, theirs: Tensor) -> bool:
    scale = max(1.0, float(theirs.detach().abs().max()))
    return torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10 * scale)


@pytest.mark.parametrize("size", SIZES, ids=size_id)
def test_involution_is_the_published_layer(size: tuple[int, int]) -> None:
    operator = make_preset("involution", num_heads=DIM // 16)
    made = operator.parameterization

    def published(x: Tensor) -> Tensor:
        filters = generate(relu(normalize(made.norm, generate(x, made.squeeze))), made.to_logits)
        return apply(filters.unflatten(1, (2, 49)), x, 7)

    assert_same(operator, published, size)


def filter_norm(filters: Tensor, dim: int, scale: float | Tensor) -> Tensor:
    """As released: the standard deviation is the unbiased one."""
    centred = filters - filters.mean(dim, keepdim=True)
    return centred / (filters.std(dim, keepdim=True) + 1e-10) * scale


@pytest.mark.parametrize("size", SIZES, ids=size_id)
@pytest.mark.parametrize("num_heads", [1, 4], ids=["one-head", "heads"])
@pytest.mark.parametrize("combine", ["mul", "add"])
def test_ddf_is_the_published_layer_on_projected_values(combine: str, num_heads: int, size: tuple[int, int]) -> None:
    operator = make_preset("ddf", num_heads=num_heads, combine=combine)
    made, channel = operator.parameterization, operator.aggregation

    def published(x: Tensor) -> Tensor:
        spatial = filter_norm(generate(x, made.to_logits), 1, 2**0.5 / 7)  # (B, K, H, W)
        hidden = relu(generate(x.mean((2, 3), keepdim=True), channel.squeeze))
        filters = generate(hidden, channel.to_filters).view(len(x), DIM, 49)
        per_channel = filter_norm(filters, 2, channel.scale.weight.view(DIM, 49))[..., None, None]
        both = per_channel * spatial[:, None] if combine == "mul" else per_channel + spatial[:, None]
        return generate(apply(both, generate(x, operator.v), 7), operator.proj)

    assert_same(operator, published, size)


def test_channel_filters_of_a_black_image_have_finite_gradients() -> None:
    operator = make_preset("ddf", num_heads=1)
    with torch.no_grad():
        operator.aggregation.squeeze.bias.fill_(-1.0)
        operator.aggregation.to_filters.bias.zero_()
    operator(torch.zeros(2, 8, 9, DIM, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in operator.parameters())


@pytest.mark.parametrize("size", SIZES, ids=size_id)
def test_d_dwconv_is_the_published_block(size: tuple[int, int]) -> None:
    operator = make_preset("d_dwconv", num_heads=DIM)
    made, before, after = operator.parameterization, operator.input, operator.proj

    def convolve(x: Tensor) -> Tensor:
        hidden = relu(normalize(made.norm, generate(x.mean((2, 3), keepdim=True), made.squeeze)))
        weights = generate(hidden, made.to_logits).reshape(-1, 1, 7, 7)
        stacked = x.reshape(1, -1, *x.shape[2:])
        mixed = nn.functional.conv2d(stacked, weights, padding=3, groups=len(weights))
        return mixed.view_as(x) + after.bias[:, None, None]

    def published(x: Tensor) -> Tensor:
        first = relu(normalize(before.norm, generate(x, before.linear)))
        second = relu(normalize(after.inner_norm, convolve(first)))
        return normalize(after.norm, generate(second, after.linear))

    assert_same(operator, published, size)


def make_outlookers(num_heads: int) -> tuple[LocalAttention, OutlookAttention]:
    """Ours with timm's weights, and timm's."""
    ours = make_preset("outlooker", num_heads=num_heads)
    theirs = OutlookAttention(DIM, num_heads, kernel_size=3, padding=1, stride=1, qkv_bias=True).double().eval()
    names = {"attn": ours.parameterization.to_logits, "v": ours.v, "proj": ours.proj}
    for name, linear in names.items():
        getattr(theirs, name).load_state_dict(linear.state_dict())
    return ours, theirs


@pytest.mark.parametrize("size", SIZES, ids=size_id)
@pytest.mark.parametrize("num_heads", [1, 4], ids=["one-head", "heads"])
def test_outlooker_at_stride_1_is_timms(num_heads: int, size: tuple[int, int]) -> None:
    ours, theirs = make_outlookers(num_heads)
    inputs = [make_input(*size, DIM).requires_grad_() for _ in range(2)]
    leaves = [
        [inputs[0], *ours.parameterization.parameters(), *ours.v.parameters(), *ours.proj.parameters()],
        [inputs[1], *theirs.attn.parameters(), *theirs.v.parameters(), *theirs.proj.parameters()],
    ]
    outputs = ours(inputs[0]), theirs(inputs[1])
    found = [(y, *gradients(y, *of)) for y, of in zip(outputs, leaves, strict=True)]
    for actual, expected in zip(*found, strict=True):
        assert is_close(actual, expected)


@pytest.mark.parametrize("fields", [{"kernel_size": 3}, {"dilation": 2}], ids=str)
def test_an_outlooker_refuses_kernels_that_its_windows_do_not_fill(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="outlook needs kernel_size 1, 5, 9"):
        make_preset("outlooker", num_heads=1, **fields)
