"""Released checkpoints, generated here by name and shape, become weights of our models."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.models.swin_transformer import SwinTransformer as TimmSwin
from torch import Tensor, nn

from paradigms import load_released
from paradigms.backbones import SwinTransformer
from paradigms.config import AttentionConfig, make_config
from paradigms.presets import PRESETS
from paradigms.released import convert_released

from .. import released_elsa
from ..released_elsa import Weights, draw

DIM, DEPTHS, HEADS, GROUP_WIDTH, SIDE = 12, (1, 2, 1), (3, 3, 6), 4, 48
WINDOW = SIDE // 16


def make_released() -> Weights:
    """A small ELSA-Swin: two stages of ELSA, windows in the last, on maps of 12, 6 and 3 pixels."""
    weights = draw(released_elsa.model_shapes(DIM, DEPTHS, HEADS, GROUP_WIDTH, WINDOW))
    identity = "layers.2.blocks.0.attn.relative_id"
    return weights | {identity: torch.arange(len(weights[identity]))}


def build_elsa() -> SwinTransformer:
    attention = [PRESETS["elsa"].config] * 2 + [AttentionConfig(window_size=WINDOW)]
    sizes = {"img_size": SIDE, "embed_dim": DIM, "depths": DEPTHS, "num_classes": 10, "window_size": WINDOW}
    return SwinTransformer(attention=attention, num_heads=HEADS, **sizes).double().eval()


def save(weights: object, path: Path) -> Path:
    torch.save(weights, path)
    return path


def test_an_elsa_checkpoint_fills_our_model(tmp_path: Path) -> None:
    build_elsa().load_state_dict(load_released(save(make_released(), tmp_path / "elsa.pth")), strict=True)


def test_a_converted_elsa_model_computes_the_released_formula(tmp_path: Path) -> None:
    """All blocks and the merging between them, as the released model has them in order."""
    released = make_released()
    ours = build_elsa()
    ours.load_state_dict(load_released(save(released, tmp_path / "elsa.pth")))
    images = torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(ours(images), _run_released(released, images), rtol=1e-9, atol=1e-9)


def _run_released(weights: Weights, images: Tensor) -> Tensor:
    def norm(x: Tensor, name: str) -> Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return nn.functional.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    x = nn.functional.conv2d(images, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=4)
    x = norm(x.permute(0, 2, 3, 1), "patch_embed.norm")
    for stage, depth in enumerate(DEPTHS):
        for number in range(depth):
            block = f"layers.{stage}.blocks.{number}"
            own = {name.removeprefix(f"{block}.attn."): w for name, w in weights.items() if name.startswith(block)}
            attend = released_elsa.attend_in_window if "rb" in own else released_elsa.attend
            x = x + attend(own, norm(x, f"{block}.norm1"), HEADS[stage])
            hidden = nn.functional.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
            x = x + linear(hidden, f"{block}.mlp.fc2")
        if stage < len(DEPTHS) - 1:
            four = [x[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
            x = linear(norm(torch.cat(four, dim=-1), f"layers.{stage}.downsample.norm"), _reduction(stage))
    return linear(norm(x, "norm").mean(dim=(1, 2)), "head")


def _reduction(stage: int) -> str:
    return f"layers.{stage}.downsample.reduction"


@pytest.mark.parametrize("place", ["start", "end"])
def test_timms_swin_becomes_ours_wherever_it_merges(place: str, tmp_path: Path) -> None:
    sizes = {"img_size": 32, "embed_dim": 8, "depths": (2, 2), "num_classes": 10, "window_size": 4}
    theirs = TimmSwin(num_heads=(2, 4), **sizes).double().eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.4)
    released = theirs.state_dict() if place == "start" else _to_old_names(theirs.state_dict())
    ours = SwinTransformer(attention=[AttentionConfig(window_size=4)] * 2, num_heads=(2, 4), **sizes).double().eval()
    ours.load_state_dict(load_released(save(released, tmp_path / "swin.pth")))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(ours(images), theirs(images), rtol=1e-9, atol=1e-9)


def _to_old_names(weights: Weights) -> Weights:
    """Before timm 0.9: merging at a stage's end, `head`, indices and masks saved."""
    old = {name.replace("layers.1.downsample", "layers.0.downsample"): w for name, w in weights.items()}
    old = {name.replace("head.fc", "head"): w for name, w in old.items()}
    saved = {"attn.relative_position_index": torch.zeros(16, 16, dtype=torch.long), "attn_mask": torch.zeros(4, 16, 16)}
    return old | {f"layers.0.blocks.1.{name}": tensor for name, tensor in saved.items()}


def test_both_filters_of_a_ghost_head_keep_their_order() -> None:
    shapes = released_elsa.model_shapes(DIM, DEPTHS, HEADS, GROUP_WIDTH, WINDOW)
    name = "layers.0.blocks.0.attn"
    released = draw(shapes | {f"{name}.ghost_head": (2, 1, DIM, 7, 7)})
    found = convert_released(released)
    filters = released[f"{name}.ghost_head"].view(2, DIM, 49)
    assert torch.equal(found[f"{name}.aggregation.mul.weight"], filters[0])
    assert torch.equal(found[f"{name}.aggregation.add.weight"], filters[1])


@pytest.mark.parametrize("name", ["layers.0.blocks.0.attn.gamma", "optimizer.step"])
def test_a_tensor_that_no_rule_takes_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"no rule of ELSA-Swin .* takes {name}"):
        convert_released({**make_released(), name: torch.zeros(1)})


def test_a_missing_tensor_is_told_by_the_model() -> None:
    released = make_released()
    del released["layers.1.blocks.1.mlp.fc1.bias"]
    with pytest.raises(RuntimeError, match="Missing key"):
        build_elsa().load_state_dict(convert_released(released))


def test_weights_of_no_layout_are_refused_with_the_layouts() -> None:
    with pytest.raises(ValueError, match=r"no known layout, .*'conv1'.*elsa_swin.*swin"):
        convert_released({"conv1": torch.zeros(1)})


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "bare", "parallel", "safetensors", "trained"])
def test_what_training_wraps_around_weights_is_taken_off(wrapper: str, tmp_path: Path) -> None:
    released = make_released()
    path = tmp_path / "weights.pth"
    match wrapper:
        case "safetensors":
            path = path.with_suffix(".safetensors")
            save_file(released, path)
        case "bare":
            save(released, path)
        case "parallel":
            save({"state_dict": {f"module.{name}": tensor for name, tensor in released.items()}}, path)
        case "trained":
            worse = {name: torch.zeros_like(tensor) for name, tensor in released.items()}
            options = {"args": Namespace(lr=1e-3), "epoch": 309}
            save({"state_dict": worse, "state_dict_ema": released, **options}, path)
        case _:
            save({wrapper: released}, path)
    found, expected = load_released(path), convert_released(released)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class _Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize("content", [_Trap(), [1, 2], {"epoch": 3}, {}], ids=["code", "list", "no tensors", "empty"])
def test_a_file_without_weights_or_with_code_is_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"weights\.pth (cannot be read as|has no) weights"):
        load_released(save(content, tmp_path / "weights.pth"))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_damaged_file_is_one_message(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(ValueError, match="no such file"):
        load_released(path)
    path.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_released(path)


def test_the_released_tiny_model_fits_ours_name_by_name() -> None:
    shapes = released_elsa.model_shapes(96, (2, 2, 6, 2), (3, 6, 12, 24), 4, 7)
    released = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    converted = convert_released(released)
    with torch.device("meta"):
        attention = [make_config({"group_width": 4}, base=PRESETS["elsa"].config)] * 3 + [AttentionConfig()]
        model = SwinTransformer(attention=attention, num_heads=(3, 6, 12, 24), num_classes=10)
    assert {name: x.shape for name, x in converted.items()} == {n: x.shape for n, x in model.state_dict().items()}
