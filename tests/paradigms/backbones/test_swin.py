import pytest
import torch
from timm.models.swin_transformer import SwinTransformer as TimmSwin

from paradigms.backbones import SwinTransformer
from paradigms.config import AttentionConfig, make_config
from paradigms.presets import PRESETS

from .conftest import copy_from_timm, size_on_meta

SMALL = {"img_size": 28, "patch_size": 2, "in_chans": 1, "num_classes": 10, "embed_dim": 8, "depths": (2, 1)}
PUBLISHED = {
    "swin_tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24), 28.288, 4.491),
    "swin_small": (96, (2, 2, 18, 2), (3, 6, 12, 24), 49.606, 8.741),
    "swin_base": (128, (2, 2, 18, 2), (4, 8, 16, 32), 87.768, 15.431),
}


@pytest.mark.parametrize(("dim", "depths", "heads", "params", "macs"), PUBLISHED.values(), ids=PUBLISHED.keys())
def test_swin_has_its_published_size(
    dim: int, depths: tuple[int, ...], heads: tuple[int, ...], params: float, macs: float
) -> None:
    with torch.device("meta"):
        model = SwinTransformer(attention=[AttentionConfig()] * 4, num_heads=heads, embed_dim=dim, depths=depths)
    assert size_on_meta(model, 224) == (pytest.approx(params, abs=5e-4), pytest.approx(macs, abs=5e-4))


TINY, SMALL_DEPTHS = (96, (2, 2, 6, 2), (3, 6, 12, 24)), (2, 2, 18, 2)
ELSA_PUBLISHED = {
    "tiny-without-ghost-head": (*TINY, {"aggregation": "weighted_sum"}, 29.000, 4.704),
    "tiny": (*TINY, {}, 29.141, 4.771),
    "tiny-two-matrices": (*TINY, {"ghost_lambda": 1.0}, 29.282, 4.837),
    "small": (96, SMALL_DEPTHS, (3, 6, 12, 24), {"group_width": 8}, 52.875, 9.558),
    "base": (128, SMALL_DEPTHS, (4, 8, 16, 32), {"group_width": 8}, 92.682, 16.666),
}


@pytest.mark.parametrize(
    ("dim", "depths", "heads", "fields", "params", "macs"), ELSA_PUBLISHED.values(), ids=ELSA_PUBLISHED.keys()
)
def test_elsa_swin_has_its_published_size(
    dim: int, depths: tuple[int, ...], heads: tuple[int, ...], fields: dict[str, object], params: float, macs: float
) -> None:
    """The last stage keeps Swin's attention."""
    elsa = make_config(fields, base=PRESETS["elsa"].config)
    with torch.device("meta"):
        model = SwinTransformer(
            attention=[elsa] * 3 + [AttentionConfig()], num_heads=heads, embed_dim=dim, depths=depths
        )
    assert size_on_meta(model, 224) == (pytest.approx(params, abs=5e-4), pytest.approx(macs, abs=5e-4))


def test_dwconv_with_a_head_a_channel_has_its_published_size() -> None:
    with torch.device("meta"):
        model = SwinTransformer(attention=[PRESETS["dwconv"].config] * 4, num_heads=(96, 192, 384, 768))
    assert size_on_meta(model, 224) == (pytest.approx(24.16, abs=5e-3), pytest.approx(3.73, abs=5e-3))


def test_net7_has_1_05_times_the_parameters_of_swin_tiny() -> None:
    with torch.device("meta"):
        model = SwinTransformer(attention=[PRESETS["net7"].config] * 4, num_heads=(3, 6, 12, 24))
    assert size_on_meta(model, 224)[0] / 28.288 == pytest.approx(1.05, abs=0.01)


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
    with pytest.raises(ValueError, match="2 stages, got 1 operators"):
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
