"""The composed path over sliding windows equals the reference for every normalization and border."""

import pytest
import torch
from torch import Tensor

from paradigms.functional import Aggregation, Geometry
from paradigms.kernels import dense, reference, sliding_window
from paradigms.kernels.case import Case
from paradigms.normalization import NORMALIZATIONS

from .conftest import ALL_TERMS, assert_close, change_operands, make_case, make_grad, operands_of

SUBSETS = [*ALL_TERMS.split("+"), "query_key+position_key", "query_position+position_bias", ALL_TERMS]
PAIRS = [((1, 9), (7, 7), (1, 1)), ((9, 5), (3, 5), (2, 1)), ((3, 12), (5, 5), (1, 2)), ((1, 1), (3, 3), (1, 1))]


def _run(attend: object, case: Case, normalization: str) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in operands_of(case)]
    case = change_operands(case, leaves)
    norm = NORMALIZATIONS[normalization]()
    out = attend(case.terms, case.v, case.geometry, norm, Aggregation(), case.outside, 0.0)
    return [out.detach(), *torch.autograd.grad(out, leaves, make_grad(case), materialize_grads=True)]


@pytest.mark.parametrize("terms", SUBSETS)
@pytest.mark.parametrize("border", ["zero", "mask", "project"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_every_normalization_border_and_subset_of_the_terms(normalization: str, border: str, terms: str) -> None:
    case = make_case(Geometry("sliding", (3, 5), (2, 1), border), (9, 5), terms=terms)
    expected = _run(reference.attend, case, normalization)
    assert_close(_run(sliding_window.attend, case, normalization), expected, 1e-12)
    if border != "project":
        assert_close(_run(dense.attend, case, normalization), expected, 1e-12)


@pytest.mark.parametrize(("size", "kernel_size", "dilation"), PAIRS, ids=str)
@pytest.mark.parametrize("terms", ["position_bias", ALL_TERMS])
@pytest.mark.parametrize("border", ["zero", "mask", "project"])
def test_every_map(
    border: str, terms: str, size: tuple[int, int], kernel_size: tuple[int, int], dilation: tuple[int, int]
) -> None:
    case = make_case(Geometry("sliding", kernel_size, dilation, border), size, terms=terms)
    expected = _run(reference.attend, case, "softmax")
    assert_close(_run(sliding_window.attend, case, "softmax"), expected, 1e-12)
    if border != "project":
        assert_close(_run(dense.attend, case, "softmax"), expected, 1e-12)


@pytest.mark.parametrize("attend", [sliding_window.attend, dense.attend], ids=["composed", "dense"])
@pytest.mark.parametrize("terms", ["position_bias", ALL_TERMS])
def test_an_empty_batch_gives_empty_maps(attend: object, terms: str) -> None:
    case = make_case(Geometry("sliding", (3, 3)), (4, 5), terms=terms, batch=0)
    found = _run(attend, case, "softmax")
    assert [x.shape for x in found] == [case.v.shape, *(x.shape for x in operands_of(case))]


def test_it_can_be_differentiated_twice() -> None:
    case = make_case(Geometry("sliding", (3, 1)), (2, 3), batch=1, heads=1, head_dim=2)
    leaves = [x.requires_grad_() for x in operands_of(case)]

    def call(*operands: Tensor) -> Tensor:
        terms, v, geometry, outside, _ = change_operands(case, list(operands))
        return sliding_window.attend(terms, v, geometry, NORMALIZATIONS["softmax"](), Aggregation(), outside, 0.0)

    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)


def test_weights_that_every_pixel_shares_are_not_expanded() -> None:
    case = make_case(Geometry("sliding", (3, 3)), (4, 5), terms="position_bias")
    with torch.profiler.profile() as profile:
        _run(sliding_window.attend, case, "softmax")
    names = {event.key for event in profile.key_averages()}
    assert any("conv" in name for name in names)
    assert not any("paradigms::mix" in name for name in names)
