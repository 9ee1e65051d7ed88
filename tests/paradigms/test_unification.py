"""The core sentence of arXiv:2112.12786: dynamic filters are points of Eq. 4, with queries and positions alone.

A 1x1 convolution that makes a filter from a pixel is q_i·r^k_o + r^b_o: r^k are its weights, r^b its bias. Each test
takes the generate-and-apply part of a published operator, as published (unfold and multiply), and Eq. 4's operator with
the same weights: equal in output, and in the gradients of the input and of every weight. (`swin` and `dwconv` are in
test_published.py.)

Heads are as wide as conversion needs. A head's filter depends on the input through its query, C/heads numbers of it;
for it to be any linear map of as many numbers as published, a head must be that wide.
"""

import pytest
import torch
from timm.models.volo import OutlookAttention
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, unfold

from paradigms.attention import LocalAttention, build_attention

from .conftest import make_input

SIZES = [(9, 5), (3, 12), (1, 1), (2, 7)]


def size_id(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def make_eq4(name: str, dim: int, num_heads: int, weights: dict[str, Tensor]) -> LocalAttention:
    """The preset with these weights; projections that are not named are the identity."""
    operator = build_attention(name, dim=dim, num_heads=num_heads).double()
    named = dict(operator.named_parameters())
    assert set(weights) <= set(named)
    with torch.no_grad():
        for key, parameter in named.items():
            identity = torch.eye(dim) if parameter.ndim == 2 else torch.zeros(())
            parameter.copy_(weights[key].detach() if key in weights else identity.expand_as(parameter))
    return operator


def gradients(y: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    weight = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)
    return torch.autograd.grad((y * weight).sum(), inputs)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    scale = max(1.0, float(theirs.detach().abs().max()))
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10 * scale)


def generate_and_apply(x: Tensor, filters: Tensor, kernel_size: int) -> Tensor:
    """Filters (batch, groups, taps, height, width) on a map whose channels are last, as involution and DDF have it."""
    image = x.permute(0, 3, 1, 2)
    batch, groups, taps, height, width = filters.shape
    neighbors = unfold(image, kernel_size, padding=kernel_size // 2).view(batch, groups, -1, taps, height, width)
    return (neighbors * filters[:, :, None]).sum(dim=3).reshape(image.shape).permute(0, 2, 3, 1)


@pytest.mark.parametrize("size", SIZES, ids=size_id)
def test_involution_is_query_position_without_normalization(size: tuple[int, int]) -> None:
    """Its bottleneck is C/4 wide and shared by all groups of 16: with C = 64, one group's query is as wide (16)."""
    dim, groups = 64, 4
    reduce, span, bias = draw(dim // 4, dim, seed=1), draw(groups * 49, dim // 4, seed=2), draw(groups * 49, seed=3)
    x = make_input(*size, dim).requires_grad_()
    narrow = conv2d(x.permute(0, 3, 1, 2), reduce[..., None, None])
    filters = conv2d(narrow, span[..., None, None], bias).unflatten(1, (groups, 49))
    published = generate_and_apply(x, filters, 7)

    copied = {
        "parameterization.q.weight": reduce.repeat(groups, 1),
        "parameterization.rk.weight": span.view(groups, 49, -1),
        "parameterization.rb.weight": bias.view(groups, 49),
    }
    operator = make_eq4("involution_eq4", dim, groups, copied)
    eq4 = operator(x)
    assert_close(eq4, published)
    terms = operator.parameterization
    of_x, of_q, of_rk, of_rb = gradients(eq4, x, terms.q.weight, terms.rk.weight, terms.rb.weight)
    of_reduce = of_q.view(groups, *reduce.shape).sum(dim=0)  # every head has a copy
    expected = gradients(published, x, reduce, span, bias)
    for ours, theirs in zip((of_x, of_reduce, of_rk.flatten(0, 1), of_rb.flatten()), expected, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("size", SIZES, ids=size_id)
def test_the_spatial_branch_of_ddf_is_query_position_with_filter_normalization(size: tuple[int, int]) -> None:
    """One filter for all channels, from all channels: one head as wide as the map, whose query is the input."""
    dim = 6
    weight, bias = draw(49, dim, seed=1), draw(49, seed=2)
    x = make_input(*size, dim).requires_grad_()
    made = conv2d(x.permute(0, 3, 1, 2), weight[..., None, None], bias)
    centred = made - made.mean(dim=1, keepdim=True)
    filters = centred / (made.std(dim=1, keepdim=True) + 1e-10) * (2**0.5 / 7)
    published = generate_and_apply(x, filters[:, None], 7)

    copied = {"parameterization.rk.weight": weight[None], "parameterization.rb.weight": bias[None]}
    operator = make_eq4("ddf_spatial_eq4", dim, 1, copied)
    eq4 = operator(x)
    assert_close(eq4, published)
    terms = operator.parameterization
    of_x, of_rk, of_rb = gradients(eq4, x, terms.rk.weight, terms.rb.weight)
    for ours, theirs in zip((of_x, of_rk[0], of_rb[0]), gradients(published, x, weight, bias), strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("size", SIZES, ids=size_id)
def test_an_outlooker_is_one_query_position_with_softmax_for_each_pixel_of_a_window_folded(
    size: tuple[int, int],
) -> None:
    """A pixel makes nine filters, one for each pixel around it, that all look at its own window: nine operators.

    One head as wide as the map, as timm's filters are made from all channels; fold moves what is made for a
    neighbor to it.
    """
    dim, window = 6, 9
    timms = OutlookAttention(dim, 1, stride=1, qkv_bias=True).double()
    for seed, parameter in enumerate(timms.parameters()):
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
    x = make_input(*size, dim).requires_grad_()
    published = timms(x)

    tables = (
        timms.scale * timms.attn.weight.view(window, window, dim),
        timms.scale * timms.attn.bias.view(window, window),
    )
    operators = [
        make_eq4(
            "outlooker_eq4",
            dim,
            1,
            {
                "parameterization.rk.weight": tables[0][target][None],
                "parameterization.rb.weight": tables[1][target][None],
                "v.weight": timms.v.weight,
                "v.bias": timms.v.bias,
            },
        )
        for target in range(window)
    ]
    folded = sum(move(operator(x), target) for target, operator in enumerate(operators))
    eq4 = timms.proj(folded)
    assert_close(eq4, published)

    per_target = [(terms.rk.weight, terms.rb.weight) for terms in (operator.parameterization for operator in operators)]
    of_x, *of_tables = gradients(eq4, x, *(table for tables in per_target for table in tables))
    of_values = gradients(
        timms.proj(sum(move(o(x), t) for t, o in enumerate(operators))), *(o.v.weight for o in operators)
    )
    expected = gradients(published, x, timms.attn.weight, timms.attn.bias, timms.v.weight)
    of_weight = timms.scale * torch.cat([table[0] for table in of_tables[::2]])
    of_bias = timms.scale * torch.cat([table[0] for table in of_tables[1::2]])
    for ours, theirs in zip((of_x, of_weight, of_bias, sum(of_values)), expected, strict=True):
        assert_close(ours, theirs)


def move(y: Tensor, target: int) -> Tensor:
    """From every pixel to the one that stands at this place of its 3x3 window; what leaves the map is lost."""
    down, right = target // 3 - 1, target % 3 - 1
    wide = pad(y, (0, 0, 1 + right, 1 - right, 1 + down, 1 - down))
    return wide[:, 1 : 1 + y.shape[1], 1 : 1 + y.shape[2]]
