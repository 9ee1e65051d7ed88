import pytest
import torch
from timm.models.swin_transformer import SwinTransformer as TimmSwin

from paradigms.backbones import SwinTransformer
from paradigms.config import AttentionConfig, make_config
from paradigms.presets import PRESETS

from .conftest import copy_from_timm, size_on_meta

pytestmark = pytest.mark.usefixtures("quick_meta")

SMALL = {"img_size": 28, "patch_size": 2, "in_chans": 1, "num_classes": 10, "embed_dim": 8, "depths": (2, 1)}


def test_elsa_with_two_matrices_has_its_published_size() -> None:
    """The last stage keeps Swin's attention."""
    elsa = make_config({"ghost_lambda": 1.0}, base=PRESETS["elsa"].config)
    with torch.device("meta"):
        model = SwinTransformer(attention=[elsa] * 3 + [AttentionConfig()], num_heads=(3, 6, 12, 24))
    assert size_on_meta(model, 224) == (pytest.approx(29.282, abs=5e-4), pytest.approx(4.837, abs=5e-4))


def test_net7_has_1_05_times_the_parameters_of_swin_tiny() -> None:
    with torch.device("meta"):
        model = SwinTransformer(attention=[PRESETS["net7"].config] * 4, num_heads=(3, 6, 12, 24))
    params = sum(parameter.numel() for parameter in model.parameters())
    assert params / 28.288e6 == pytest.approx(1.05, abs=0.01)


def test_only_the_attention_differs_from_timm() -> None:
    ours = SwinTransformer(attention=[AttentionConfig()] * 2, num_heads=(2, 4), **SMALL)
    theirs = TimmSwin(num_heads=(2, 4), **SMALL)
    remaining = {name for name in ours.state_dict() if ".attn." not in name}
    assert remaining == {name for name in theirs.state_dict() if ".attn." not in name}


def test_every_second_block_shifts_where_the_map_is_larger_than_the_window() -> None:
    model = SwinTransformer(attention=[AttentionConfig()] * 2, num_heads=(1, 1), **{**SMALL, "depths": (3, 2)})
    shifts = [(stage, operator.neighborhood.geometry.shift) for stage, _, operator in model.operators()]
    assert shifts == [(1, (0, 0)), (1, (3, 3)), (1, (0, 0)), (2, (0, 0)), (2, (0, 0))]


def test_shift_size_0_never_shifts() -> None:
    model = SwinTransformer(attention=[AttentionConfig(shift_size=0)] * 2, num_heads=(1, 1), **SMALL)
    assert {operator.neighborhood.geometry.shift for _, _, operator in model.operators()} == {(0, 0)}


def test_stages_may_have_different_operators_and_train() -> None:
    attention = [PRESETS["net7_n"].config, PRESETS["net4"].config]
    model = SwinTransformer(attention=attention, num_heads=(4, 1), **SMALL)
    model(torch.randn(2, 1, 28, 28)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert [operator.neighborhood.geometry.kind for _, _, operator in model.operators()] == ["sliding"] * 2 + ["window"]


def test_one_operator_a_stage_is_needed() -> None:
    with pytest.raises(ValueError, match="2 stages need one operator each, got 1"):
        SwinTransformer(attention=[AttentionConfig()], num_heads=(1, 1), **SMALL)


def test_a_stage_without_operator_is_timms() -> None:
    torch.manual_seed(0)
    ours = SwinTransformer(attention=[None, None], num_heads=(2, 4), **SMALL).eval()
    theirs = TimmSwin(num_heads=(2, 4), **SMALL).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(ours(x), theirs(x))
    assert list(ours.operators()) == []


def test_operators_start_by_the_backbones_rule() -> None:
    model = SwinTransformer(attention=[AttentionConfig()] * 2, num_heads=(2, 4), **{**SMALL, "embed_dim": 64})
    for _, _, operator in model.operators():
        assert operator.v.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert not operator.v.bias.any()


def test_set_input_size_scales_windows_and_interpolates_their_tables_as_timm_does() -> None:
    torch.manual_seed(0)
    theirs = TimmSwin(num_heads=(2, 4), **SMALL).eval()
    ours = SwinTransformer(attention=[AttentionConfig()] * 2, num_heads=(2, 4), **SMALL).eval()
    copy_from_timm(ours, theirs)
    x = torch.randn(2, 1, 28, 56)
    for model in (ours, theirs):
        model.set_input_size((28, 56))
    assert [operator.neighborhood.geometry.kernel_size for _, _, operator in ours.operators()] == [(7, 14)] * 3
    assert [map_size for _, map_size, _ in ours.operators()] == [(14, 28), (14, 28), (7, 14)]
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_set_input_size_at_the_same_size_changes_nothing() -> None:
    model = SwinTransformer(attention=[PRESETS["net7"].config] * 2, num_heads=(2, 4), **SMALL)
    before = dict(model.named_parameters())
    model.set_input_size((28, 28))
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def test_tables_of_a_sliding_window_do_not_depend_on_the_map() -> None:
    model = SwinTransformer(attention=[PRESETS["net7_n"].config] * 2, num_heads=(2, 4), **SMALL)
    before = dict(model.named_parameters())
    model.set_input_size((56, 28))
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert model(torch.randn(1, 1, 56, 28)).shape == (1, 10)


def test_every_table_over_offsets_keeps_its_place_when_it_is_interpolated() -> None:
    model = SwinTransformer(attention=[PRESETS["net7"].config] * 2, num_heads=(2, 4), **SMALL)
    with torch.no_grad():
        for _, _, operator in model.operators():
            for table in operator.parameterization.position_tables().values():
                table.weight.copy_(torch.arange(table.weight.shape[0]).view(-1, *[1] * (table.weight.ndim - 1)))
    model.set_input_size((56, 56))
    for _, _, operator in model.operators():
        for table in operator.parameterization.position_tables().values():
            assert table.weight.shape[1] == 27 * 27
            expected = torch.arange(float(table.weight.shape[0])).view(-1, *[1] * (table.weight.ndim - 1))
            torch.testing.assert_close(table.weight, expected.expand_as(table.weight), rtol=1e-4, atol=1e-4)
