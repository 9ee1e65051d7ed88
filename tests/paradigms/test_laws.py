"""The laws of the operator, over every level and preset; the level's own declarations are the oracle."""

import math
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from paradigms.attention import build_attention
from paradigms.config import AttentionConfig
from paradigms.facts import NEIGHBORHOODS
from paradigms.laws import LawBroken, check_level, room
from paradigms.laws import operator as laws
from paradigms.normalization import NORMALIZATIONS, Identity
from paradigms.parameterization.involution import Involution
from paradigms.parameterization.terms import TermSum

from .conftest import DIM, HEIGHT, WIDTH, make_input, make_operator


def test_shape_and_dtype_are_kept(config: AttentionConfig) -> None:
    laws.keeps_shape_and_dtype(config)


def test_every_parameter_gets_a_gradient_unless_it_is_declared_invariant(config: AttentionConfig) -> None:
    laws.trains_every_parameter(config)


@pytest.mark.parametrize("border", ["mask", "zero", "project"])
def test_offsets_that_a_small_map_cannot_show_get_no_gradient(border: str) -> None:
    config = AttentionConfig(
        parameterization=("query_position", "position_key", "position_bias"),
        neighborhood="sliding_window",
        aggregation="ghost_head",
        ghost_lambda=1.0,
        kernel_size=7,
        border=border,
    )
    operator = make_operator(config)
    (operator(make_input(2, 3)).square().sum()).backward()
    zero_outside = {"rq.weight", "mul.weight", "add.weight"}
    for name, hidden in operator.invariances(2, 3).items():
        gradient = operator.get_parameter(name).grad
        assert gradient is not None
        assert (gradient[hidden.expand_as(gradient)] == 0).all(), name
        assert (gradient[~hidden.expand_as(gradient)] != 0).all(), name
        table = name.split(".", 1)[1]
        assert hidden.any() == (border == "mask" or (border == "zero" and table in zero_outside)), name


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (3, 2)], ids=["large", "smaller-than-the-kernel"])
def test_a_query_depends_exactly_on_its_neighborhood(config: AttentionConfig, size: tuple[int, int]) -> None:
    laws.depends_on_its_neighborhood_alone(config, size)


@pytest.mark.parametrize("neighborhood", NEIGHBORHOODS)
def test_the_outside_rules_differ_by_what_a_tap_outside_adds(neighborhood: str) -> None:
    room.values_taps_outside(neighborhood)


def test_under_zero_an_unweighted_kernel_counts_the_taps_outside() -> None:
    config = AttentionConfig(parameterization=("query_key",), neighborhood="sliding_window", kernel_size=3)
    operator = make_operator(config)
    with torch.no_grad():
        assert operator.parameterization.q is not None
        operator.parameterization.q.weight.zero_()
        operator.parameterization.q.bias.zero_()
        for linear, bias in ((operator.v, 9.0), (operator.proj, 0.0)):
            linear.weight.copy_(torch.eye(DIM) if linear is operator.proj else torch.zeros(DIM, DIM))
            linear.bias.fill_(bias)
    y = operator(make_input())[0]
    assert torch.allclose(y[0, 0], torch.full((DIM,), 4.0, dtype=torch.float64))
    assert torch.allclose(y[0, 1], torch.full((DIM,), 6.0, dtype=torch.float64))
    assert torch.allclose(y[1, 1], torch.full((DIM,), 9.0, dtype=torch.float64))


@pytest.mark.parametrize("name", NORMALIZATIONS)
@pytest.mark.parametrize("masked", [False, True], ids=["all-taps", "some-taps"])
def test_weights_keep_what_their_normalization_declares(name: str, masked: bool) -> None:
    room.keeps_what_it_declares(name, masked=masked)


def test_filter_norm_has_the_gain_of_ddf() -> None:
    weights = NORMALIZATIONS["filter_norm"]()(torch.randn(4, 49, dtype=torch.float64), None)
    assert torch.allclose(weights.std(-1), torch.full((4,), math.sqrt(2) / 7, dtype=torch.float64))


@pytest.mark.parametrize("value", [0.0, 0.1, 0.37, 1.3e4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_filter_norm_of_a_constant_is_zero_with_finite_gradients(value: float, dtype: torch.dtype) -> None:
    logits = torch.full((2, 49), value, dtype=dtype, requires_grad=True)
    weights = NORMALIZATIONS["filter_norm"]()(logits, None)
    weights.sum().backward()
    assert (weights == 0).all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_filter_norm_refuses_a_map_where_a_query_counts_a_single_tap(backend: str, device: str) -> None:
    config = AttentionConfig(normalization="filter_norm", window_size=4, border="mask", backend=backend)
    operator = build_attention(config, dim=4, num_heads=2).to(device)
    with pytest.raises(ValueError, match=r"at least 2 counted taps, got 1 of 16 on a map of 9x5"):
        operator(torch.ones(1, 9, 5, 4, device=device))
    assert operator(torch.ones(1, 9, 6, 4, device=device)).shape == (1, 9, 6, 4)


def test_moving_the_input_by_the_period_moves_the_output(config: AttentionConfig) -> None:
    laws.moves_with_its_input(config)


@pytest.mark.parametrize("backend", ["reference", pytest.param("auto", marks=pytest.mark.slow)])
def test_gradients_are_those_of_finite_differences(config: AttentionConfig, backend: str) -> None:
    laws.has_the_gradients_of_finite_differences(config, backend)


def test_every_parameter_is_declared(config: AttentionConfig) -> None:
    laws.declares_its_parameters(config)


def test_the_key_of_a_zero_input_is_the_declared_one(config: AttentionConfig) -> None:
    laws.declares_the_key_of_a_zero_input(config)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (lambda _: None, "off the key of a pixel that is zero by"),
        (lambda level: 2 * level.k.bias.view(2, -1), "off the key of a pixel that is zero by"),
        (lambda level: level.k.bias, r"project_zero_key has shape \(6,\), a key \(2, 3\)"),
    ],
    ids=["none", "another", "shape"],
)
def test_a_law_reports_a_wrong_key_of_a_zero_input(
    monkeypatch: pytest.MonkeyPatch, declared: Callable[[TermSum], Tensor | None], message: str
) -> None:
    monkeypatch.setattr(TermSum, "project_zero_key", declared)
    with pytest.raises(LawBroken, match=f"declares the key of a zero input, in local_window-project: .*{message}"):
        check_level("parameterization", "query_key")


def test_a_law_reports_a_key_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Involution, "project_zero_key", lambda _: torch.ones(2, 3))
    config = AttentionConfig(parameterization=("involution",), neighborhood="sliding_window")
    with pytest.raises(LawBroken, match="project_zero_key is declared, but the parameterization makes no key"):
        laws.declares_the_key_of_a_zero_input(config)


class Warm(nn.Module):
    """Softmax with a learned temperature for each head, whose kind nobody states."""

    kind, ignores_constant, weight_sum = "warm", True, 1.0

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(2, 1))

    @classmethod
    def from_config(cls, _config: AttentionConfig) -> "Warm":
        return cls()

    def forward(self, logits: Tensor, valid: Tensor | None) -> Tensor:
        counted = logits if valid is None else logits.masked_fill(~valid, -torch.inf)
        return (self.temperature.mean() * counted).softmax(-1)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({}, r"normalization\.temperature is not declared"),
        ({"temperature": "number"}, r"has \['number'\], known: matrix, table, scalar"),
        ({"temperature": "scalar", "cold": "scalar"}, r"names \['cold'\]"),
        ({"temperature": "scalar"}, None),
    ],
    ids=["nothing", "unknown-kind", "unknown-name", "declared"],
)
def test_a_law_reports_a_parameter_without_a_declaration(
    monkeypatch: pytest.MonkeyPatch, kinds: dict[str, str], message: str | None
) -> None:
    monkeypatch.setitem(NORMALIZATIONS, "softmax", Warm)
    monkeypatch.setattr(Warm, "parameter_kinds", kinds, raising=False)
    with nullcontext() if message is None else pytest.raises(LawBroken, match=message):
        laws.declares_its_parameters(AttentionConfig())


class Lying(Identity):
    """Identity under a false declaration."""

    weight_sum = 1.0


def test_a_level_that_breaks_a_law_is_told_with_the_law(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NORMALIZATIONS, "identity", Lying)
    with pytest.raises(LawBroken, match=r"normalization identity: keeps what it declares: the weights do not sum to 1"):
        check_level("normalization", "identity")


def test_check_level_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("paradigms.laws.LAWS", {"keeps its peace": lambda _config: None})
    count = check_level("neighborhood", "local_window")
    assert capsys.readouterr().err.splitlines() == [
        "[1/2] local_window values taps outside",
        f"[2/2] local_window keeps its peace, in {count - 1} operators",
    ]
