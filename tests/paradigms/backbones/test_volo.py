from typing import Any

import pytest
import torch
from timm.models import create_model
from timm.models import volo as timm_volo

from paradigms.backbones import VOLO
from paradigms.config import AttentionConfig
from paradigms.presets import PRESETS

from .conftest import size_on_meta

pytestmark = pytest.mark.usefixtures("quick_meta")

WIDTHS: dict[str, Any] = {"layers": (2, 1), "embed_dims": (8, 16), "num_heads": (2, 4), "stem_hidden_dim": 4}
SMALL: dict[str, Any] = {**WIDTHS, "in_chans": 1, "num_classes": 10, "use_aux_head": False}
PUBLISHED = {"d1": 26.63, "d2": 58.68, "d3": 86.33, "d4": 192.96, "d5": 295.46}


@pytest.mark.parametrize(
    ("model", "params"),
    [pytest.param(*size, id=size[0], marks=() if size[0] == "d1" else pytest.mark.slow) for size in PUBLISHED.items()],
)
def test_volo_has_its_published_size_and_timms_multiply_adds(model: str, params: float) -> None:
    from paradigms.models import SIZES, build_size

    with torch.device("meta"):
        ours, theirs = build_size(SIZES[f"volo_{model}"], (None,) * 4), create_model(f"volo_{model}_224")
    assert size_on_meta(ours, 224) == size_on_meta(theirs, 224)
    assert size_on_meta(ours, 224)[0] == pytest.approx(params, abs=5e-3)


@pytest.mark.parametrize("img_size", [64, (64, 96)], ids=["square", "oblong"])
def test_without_operator_it_is_timms(img_size: Any) -> None:
    sizes = {**SMALL, "img_size": img_size, "patch_size": 8}
    ours, theirs = VOLO(attention=[None, None], **sizes).eval(), timm_volo.VOLO(**sizes).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 1, *((64, 64) if img_size == 64 else img_size))
    torch.testing.assert_close(ours(x), theirs(x))


def test_only_the_attention_of_the_outlookers_differs_from_timm() -> None:
    ours = VOLO(attention=[AttentionConfig(), None], img_size=64, **SMALL)
    theirs = timm_volo.VOLO(img_size=64, **SMALL)
    replaced = [name for name in ours.state_dict() if name not in theirs.state_dict()]
    assert {name.partition(".attn.")[0] for name in replaced} == {"network.0.0", "network.0.1"}
    assert len(list(ours.operators())) == 2


def test_patches_of_2_pixels_see_twice_the_map_of_patches_of_4() -> None:
    model = VOLO(attention=[AttentionConfig(), None], img_size=28, patch_size=2, **SMALL)
    assert [(stage, map_size) for stage, map_size, _ in model.operators()] == [(1, (14, 14))] * 2
    seen: list[torch.Size] = []
    for stage in (0, 2):
        model.network[stage].register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape))
    assert model(torch.randn(3, 1, 28, 28)).shape == (3, 10)
    assert seen == [(3, 14, 14, 8), (3, 7, 7, 16)]
    assert [info["reduction"] for info in model.feature_info] == [2, 4]


def test_windows_shift_in_every_second_outlooker() -> None:
    model = VOLO(attention=[AttentionConfig(), None], img_size=28, patch_size=2, **SMALL)
    assert [operator.neighborhood.geometry.shift for _, _, operator in model.operators()] == [(0, 0), (3, 3)]


@pytest.mark.parametrize("preset", ["net7", "net7_n", "dwconv"])
def test_operators_train_in_the_outlookers(preset: str) -> None:
    model = VOLO(attention=[PRESETS[preset].config, None], img_size=28, patch_size=2, weight_init="reset", **SMALL)
    model(torch.randn(2, 1, 28, 28)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("preset", ["net7", "net7_n"])
def test_set_input_size_takes_larger_images(preset: str) -> None:
    model = VOLO(attention=[PRESETS[preset].config, None], img_size=28, patch_size=2, **SMALL)
    model.set_input_size((28, 56))
    assert model(torch.randn(2, 1, 28, 56)).shape == (2, 10)
    assert {map_size for _, map_size, _ in model.operators()} == {(14, 28)}
    expected = (7, 14) if preset == "net7" else (7, 7)
    assert {operator.neighborhood.geometry.kernel_size for _, _, operator in model.operators()} == {expected}


def test_stages_of_global_attention_take_no_operator() -> None:
    with pytest.raises(ValueError, match=r"the attention of stages \[2\] cannot be replaced, that of stages \[1\] can"):
        VOLO(attention=[None, AttentionConfig()], img_size=64, **SMALL)


def test_one_entry_a_stage_is_needed() -> None:
    with pytest.raises(ValueError, match="2 stages need one operator each, got 1"):
        VOLO(attention=[AttentionConfig()], img_size=64, **SMALL)


def test_a_patch_of_1_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="patch_size must be 2, 4, 8 or 16, got 1"):
        VOLO(attention=[None, None], img_size=28, patch_size=1, **SMALL)


def _with_token_head() -> VOLO:
    return VOLO(attention=[None, None], img_size=32, **{**SMALL, "use_aux_head": True}).eval()


@torch.no_grad()
def test_token_labels_train_the_heads_that_forward_adds_up() -> None:
    model, x = _with_token_head(), torch.randn(3, 1, 32, 32)
    logits, token_logits = model.classify_tokens(x, (0, 0, 0, 0))
    assert token_logits.shape == (3, 2, 2, 10)
    torch.testing.assert_close(logits + 0.5 * token_logits.amax((1, 2)), model(x))


@torch.no_grad()
def test_what_is_exchanged_as_a_whole_is_the_reversed_batch_with_every_token_put_back() -> None:
    model, x = _with_token_head(), torch.randn(3, 1, 32, 32)
    logits, token_logits = model.classify_tokens(x, (0, 0, 2, 2))
    expected, expected_tokens = model.classify_tokens(x, (0, 0, 0, 0))
    torch.testing.assert_close(logits, expected.flip(0))
    torch.testing.assert_close(token_logits, expected_tokens)


@torch.no_grad()
def test_a_box_of_tokens_comes_from_the_counterpart() -> None:
    model = VOLO(attention=[None, None], img_size=(32, 64), **{**SMALL, "use_aux_head": True}).eval()
    x, seen, put_back = torch.randn(4, 1, 32, 64), [], []
    model.network[0].register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    model.aux_head.register_forward_hook(lambda _module, _inputs, output: put_back.append(output))
    _, token_logits = model.classify_tokens(x, (1, 1, 2, 3))  # of 2x4 tokens
    mixed, raw = model.patch_embed(x).permute(0, 2, 3, 1), put_back[0].unflatten(1, (2, 4))
    mixed[:, 2:4, 2:6] = mixed.flip(0)[:, 2:4, 2:6]
    raw[:, 1:2, 1:3] = raw.flip(0)[:, 1:2, 1:3]
    torch.testing.assert_close(seen[0], mixed)
    torch.testing.assert_close(token_logits, raw)


def test_without_a_head_over_all_tokens_there_is_nothing_to_label() -> None:
    with pytest.raises(ValueError, match="use_aux_head=True"):
        VOLO(attention=[None, None], img_size=32, **SMALL).classify_tokens(torch.zeros(1, 1, 32, 32), (0, 0, 0, 0))
