"""The ghost head against Algorithm 1 of arXiv:2112.12786, written out."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, dropout

from paradigms.aggregation.ghost_head import GhostHead, signed_power
from paradigms.attention import LocalAttention, build_attention
from paradigms.config import AttentionConfig
from paradigms.functional import gather_taps, make_logits, make_neighbors
from paradigms.presets import PRESETS

from ..conftest import make_input
from ..covering import pairwise

DIM, HEADS, SIZE = 12, 3, (6, 5)
LAMBDAS = [0.0, 0.5, 1.0, 2.0, 3.0]

AREAS: dict[str, dict[str, Any]] = {
    "sliding": {"neighborhood": "sliding_window", "kernel_size": (3, 5)},
    "masked": {"neighborhood": "sliding_window", "kernel_size": (3, 5), "border": "mask"},
    "moved-inside": {"neighborhood": "sliding_window", "kernel_size": (3, 3), "border": "shift"},
    "windows": {"neighborhood": "local_window", "window_size": (4, 2), "shift_size": (1, 1), "border": "zero"},
    "chunks": {"neighborhood": "sliding_chunk", "chunk_size": (2, 3)},
    "global": {"neighborhood": "local_window", "window_size": SIZE},
}
maps = pytest.mark.parametrize("ghost_map", ["grouped", "interleaved"])


def make_config(area: str = "sliding", **ghost: Any) -> AttentionConfig:
    return AttentionConfig(aggregation="ghost_head", **AREAS[area], **ghost)


def build(config: AttentionConfig, *, attn_drop: float = 0.0) -> LocalAttention:
    """In float64, with parameters of a size that shows."""
    operator = build_attention(config, dim=DIM, num_heads=HEADS, attn_drop=attn_drop).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter.normal_(generator=generator).mul_(0.5)
    return operator


def _power(base: Tensor, exponent: float) -> Tensor:
    """Pow(o, λ): the paper's where λ is whole, else ours."""
    return base**exponent if exponent.is_integer() else base.sign() * base.abs() ** exponent


def write_out(operator: LocalAttention, config: AttentionConfig, x: Tensor, *, drop: float = 0.0) -> Tensor:
    """Algorithm 1: a filter `mul**λ · h + γ · add` for each channel, h of the head that its map gives it."""
    geometry = operator.neighborhood.geometry
    index, valid, offset = make_neighbors(geometry, *x.shape[1:3])
    terms = operator.parameterization(x)
    logits = make_logits(terms, gather_taps(terms.k, None, index), offset).masked_fill(~valid, -torch.inf)
    weights = dropout(logits.softmax(dim=-1), drop)  # (batch, heads, queries, taps)
    filters = []
    for channel in range(DIM):
        head = channel % HEADS if config.ghost_map == "interleaved" else channel // (DIM // HEADS)
        made = weights[:, head]
        if config.ghost_lambda:
            made = _power(operator.aggregation.mul.weight[channel], config.ghost_lambda)[offset] * made
        if config.ghost_gamma:
            made = made + config.ghost_gamma * operator.aggregation.add.weight[channel][offset] * valid
        filters.append(made)
    values = gather_taps(operator.v(x).unsqueeze(-2), None, index).squeeze(-2)  # (batch, queries, taps, channels)
    return operator.proj(torch.einsum("cbnk,bnkc->bnc", torch.stack(filters), values).view_as(x))  # type: ignore[no-any-return]


def _differentiate(operator: LocalAttention, y: Tensor, x: Tensor) -> list[Tensor]:
    weight = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(4))
    return [y.detach(), *torch.autograd.grad((y * weight).sum(), [x, *operator.parameters()])]


def _assert_equal(actual: list[Tensor], expected: list[Tensor]) -> None:
    scale = max(float(tensor.abs().max()) for tensor in expected)
    for a, e in zip(actual, expected, strict=True):
        assert float((a - e).abs().max()) <= 1e-12 * scale


@pytest.mark.parametrize(
    ("area", "ghost_map", "ghost_lambda", "ghost_gamma"),
    pairwise(AREAS, ["grouped", "interleaved"], LAMBDAS, [0.0, 0.5, 1.0]),
)
def test_it_is_algorithm_1(area: str, ghost_map: str, ghost_lambda: float, ghost_gamma: float) -> None:
    config = make_config(area, ghost_map=ghost_map, ghost_lambda=ghost_lambda, ghost_gamma=ghost_gamma)
    operator, x = build(config), make_input(*SIZE, DIM).requires_grad_()
    expected = _differentiate(operator, write_out(operator, config, x), x)
    for backend in ("reference", "auto"):
        operator.backend = backend
        _assert_equal(_differentiate(operator, operator(x), x), expected)


@pytest.mark.parametrize("ghost_lambda", LAMBDAS, ids="lambda={}".format)
def test_the_two_maps_differ_by_the_order_of_the_channels(ghost_lambda: float) -> None:
    printed = build(make_config(ghost_map="interleaved", ghost_lambda=ghost_lambda))
    released = build(make_config(ghost_map="grouped", ghost_lambda=ghost_lambda))
    x = make_input(*SIZE, DIM)
    released.load_state_dict(printed.state_dict())
    assert not torch.allclose(released(x), printed(x))
    order = torch.arange(DIM).view(-1, HEADS).T.flatten()  # the channels of head 0, of head 1, ...
    rows = {"v.weight", "v.bias", "aggregation.mul.weight", "aggregation.add.weight"}
    converted = {name: tensor[order] if name in rows else tensor for name, tensor in printed.state_dict().items()}
    released.load_state_dict(converted | {"proj.weight": printed.proj.weight.detach()[:, order]})
    assert torch.allclose(released(x), printed(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_the_power_is_real_with_the_declared_gradient(exponent: float) -> None:
    base = torch.tensor([-2.0, -0.3, 0.0, 0.3, 2.0], dtype=torch.float64, requires_grad=True)
    power = signed_power(base, exponent)
    (gradient,) = torch.autograd.grad(power.sum(), base)
    found = base.detach()
    whole = exponent.is_integer()
    assert torch.allclose(power, found**exponent if whole else found.sign() * found.abs() ** exponent)
    sign = found.sign() ** (exponent - 1) if whole else 1.0
    slope = torch.where(found == 0, 0.0, sign * exponent * found.abs() ** (exponent - 1))
    slope[2] = 1.0 if exponent == 1 else 0.0
    assert torch.allclose(gradient, slope)


@pytest.mark.parametrize("ghost_lambda", LAMBDAS[1:], ids="lambda={}".format)
def test_a_filter_of_zeros_trains(ghost_lambda: float) -> None:
    """Nothing on the way to the parameters becomes infinite where O is zero."""
    operator = build(make_config(ghost_lambda=ghost_lambda))
    with torch.no_grad():
        operator.aggregation.mul.weight.zero_()
    operator(make_input(*SIZE, DIM)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in operator.parameters())
    moves = bool((operator.aggregation.mul.weight.grad != 0).any())
    assert moves == (ghost_lambda == 1)


def test_filters_without_effect_do_not_exist() -> None:
    names = {
        (power, gain): set(build(make_config(ghost_lambda=power, ghost_gamma=gain)).aggregation.state_dict())
        for power in (0.0, 1.0)
        for gain in (0.0, 1.0)
    }
    assert names[0.0, 0.0] == set()
    assert names[0.0, 1.0] == {"add.weight"}
    assert names[1.0, 0.0] == {"mul.weight"}
    assert names[1.0, 1.0] == {"mul.weight", "add.weight"}


@maps
@pytest.mark.parametrize("area", ["sliding", "masked"])
@pytest.mark.parametrize("backend", ["reference", "torch", "auto"])
def test_without_a_power_it_is_attention_plus_a_depthwise_convolution(area: str, ghost_map: str, backend: str) -> None:
    config = make_config(area, ghost_map=ghost_map, ghost_gamma=0.5)
    operator, x = build(config), make_input(*SIZE, DIM)
    operator.backend = backend
    bare = build(replace(config, ghost_gamma=0.0))
    bare.load_state_dict({name: w for name, w in operator.state_dict().items() if "aggregation" not in name})
    kernel = 0.5 * operator.aggregation.add.weight.view(DIM, 1, 3, 5)
    mapped = conv2d(operator.v(x).permute(0, 3, 1, 2), kernel, padding=(1, 2), groups=DIM).permute(0, 2, 3, 1)
    expected = bare(x) + mapped @ operator.proj.weight.T
    assert torch.allclose(operator(x), expected, rtol=1e-12, atol=1e-12)


def _count_kept_bytes(config: AttentionConfig, batch: int) -> int:
    """What autograd keeps beside parameters, in float32 on a map of 14x14 pixels."""
    operator = build_attention(config, dim=32, num_heads=2)
    own = {parameter.untyped_storage().data_ptr() for parameter in operator.parameters()}
    kept = {}

    def keep(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = operator(torch.randn(batch, 14, 14, 32))
    assert out.requires_grad
    return sum(x.untyped_storage().nbytes() for x in kept.values())


@pytest.mark.parametrize("border", ["zero", "mask"])
@pytest.mark.parametrize(
    ("neighborhood", "terms"),
    [
        ("sliding_window", ("query_key", "position_bias")),
        ("sliding_window", ("hadamard_conv",)),
        ("local_window", ("query_key", "position_bias")),
    ],
    ids=["sliding", "elsa", "windows"],
)
def test_without_a_power_no_map_of_every_channel_and_tap_is_kept(
    neighborhood: str, terms: tuple[str, ...], border: str
) -> None:
    """An image more costs a few maps of values beyond what the weighted sum keeps, not one for each tap."""
    config = AttentionConfig(parameterization=terms, neighborhood=neighborhood, border=border)
    ghost = replace(config, aggregation="ghost_head", ghost_gamma=1.0)
    extra = [_count_kept_bytes(ghost, batch) - _count_kept_bytes(config, batch) for batch in (1, 3)]
    values = 4 * 14 * 14 * 32
    assert extra[1] - extra[0] <= 2 * 3 * values
    if neighborhood == "sliding_window":
        assert extra[0] <= 3 * values + 2 * 4 * 32 * 49


@maps
@pytest.mark.parametrize("ghost_lambda", [0.0, 1.0, 0.5], ids="lambda={}".format)
def test_attention_dropout_drops_weights_before_the_filters(ghost_lambda: float, ghost_map: str) -> None:
    config = make_config(ghost_lambda=ghost_lambda, ghost_gamma=0.5, ghost_map=ghost_map)
    operator, x = build(config, attn_drop=0.5).train(), make_input(*SIZE, DIM)
    operator.backend = "reference"
    torch.manual_seed(3)
    actual = operator(x)
    torch.manual_seed(3)
    assert torch.allclose(actual, write_out(operator, config, x, drop=0.5), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(actual, operator.eval()(x))


@pytest.mark.parametrize("area", ["sliding", "windows", "global"])
def test_without_a_power_dropout_spares_the_static_filter(area: str) -> None:
    """The same weights fall as without a ghost head; the convolution is as in evaluation."""
    config = make_config(area)
    operator, x = build(config, attn_drop=0.5), make_input(*SIZE, DIM)
    bare = build(replace(config, ghost_gamma=0.0), attn_drop=0.5)
    bare.load_state_dict({name: w for name, w in operator.state_dict().items() if "aggregation" not in name})
    static = operator(x) - bare(x)
    found = []
    for module in (operator.train(), bare.train()):
        torch.manual_seed(3)
        found.append(module(x))
    assert torch.allclose(found[0] - found[1], static, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(found[1], bare.eval()(x))


@maps
@pytest.mark.parametrize("ghost_heads", ["2x", 6, 3, "C"])
def test_ghosts_share_filters_among_neighbouring_channels(ghost_heads: str | int, ghost_map: str) -> None:
    config = make_config("global", ghost_heads=ghost_heads, ghost_map=ghost_map, ghost_lambda=1.0)
    operator, x = build(config), make_input(*SIZE, DIM)
    number = {"2x": 2 * HEADS, "C": DIM}.get(ghost_heads, ghost_heads)
    filters = operator.aggregation.mul.weight
    assert len(filters) == number
    heads = [g % HEADS if ghost_map == "interleaved" else g // (number // HEADS) for g in range(number)]
    index, _, offset = make_neighbors(operator.neighborhood.geometry, *SIZE)
    terms = operator.parameterization(x)
    weights = make_logits(terms, gather_taps(terms.k, None, index), offset).softmax(dim=-1)
    add = operator.aggregation.add.weight
    every = torch.stack([filters[g][offset] * weights[:, heads[g]] + add[g][offset] for g in range(number)], dim=1)
    values = operator.v(x).flatten(1, 2).unflatten(-1, (number, -1))
    expected = operator.proj(torch.einsum("bgnk,bkgd->bngd", every, values).reshape(x.shape))
    assert torch.allclose(operator(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ghost_heads", [4, 9, 24])
def test_an_impossible_number_of_ghosts_is_refused(ghost_heads: int) -> None:
    with pytest.raises(ValueError, match=f"ghost_heads {ghost_heads} = {ghost_heads}, 3 heads, width 12"):
        build(make_config(ghost_heads=ghost_heads))


def test_the_filters_start_as_algorithm_1_says() -> None:
    torch.manual_seed(0)
    config = replace(PRESETS["elsa"].config, ghost_lambda=1.0)
    head = build_attention(config, dim=384, num_heads=12).aggregation
    assert head.mul.weight.std().item() == pytest.approx(1.0, rel=0.03)
    assert head.add.weight.std().item() == pytest.approx(0.02, rel=0.03)


NOTHING = torch.empty(1, 1, 1, DIM)


def start(**ghost: Any) -> GhostHead:
    """A ghost head as it starts under one seed."""
    torch.manual_seed(0)
    operator = build_attention(make_config(ghost_lambda=2.0, **ghost), dim=DIM, num_heads=HEADS)
    assert isinstance(operator.aggregation, GhostHead)
    return operator.aggregation


def test_a_start_with_ones_leaves_the_power_nothing_to_scale() -> None:
    filters = start(ghost_start="ones")(NOTHING).mul
    assert filters is not None
    assert filters.eq(1).all()


def test_a_rate_scales_every_step_of_the_static_matrix_and_not_its_start() -> None:
    plain, scaled = start(), start(ghost_rate=0.25)
    first = [head(NOTHING).add.detach() for head in (plain, scaled)]
    torch.testing.assert_close(*first, rtol=1e-6, atol=0)
    for head in (plain, scaled):
        optimizer = torch.optim.NAdam(head.parameters(), lr=0.01, eps=0)
        for _ in range(3):
            optimizer.zero_grad()
            (head(NOTHING).add * torch.linspace(-1, 2, 15)).sum().backward()
            optimizer.step()
    moved = [head(NOTHING).add.detach() - before for head, before in zip((plain, scaled), first, strict=True)]
    torch.testing.assert_close(moved[1], 0.25 * moved[0], rtol=1e-4, atol=1e-7)
