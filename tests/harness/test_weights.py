"""Files of weights fit and are whole, or are refused in one line: whatever is in them."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.models.swin_transformer import SwinTransformer as TimmSwin
from torch import Tensor, nn

from harness.errors import WeightsError
from harness.weights import find_misfit, load_weights, start_from
from paradigms.backbones import SwinTransformer
from paradigms.config import AttentionConfig

SIZES = {"img_size": 32, "embed_dim": 8, "depths": (1, 1), "num_classes": 10, "window_size": 4, "num_heads": (2, 4)}


def _save_old(weights: dict[str, Tensor], path: Path) -> None:
    torch.save(weights, path, _use_new_zipfile_serialization=False)


FORMATS = {"pth": torch.save, "old.pth": _save_old, "safetensors": save_file}
"""By the end of a file's name, which no reader goes by."""


def build() -> nn.Module:
    return cast("nn.Module", SwinTransformer(attention=[AttentionConfig(window_size=4)] * 2, **SIZES))


@pytest.fixture(scope="module")
def released() -> dict[str, Tensor]:
    """A Swin under timm's names."""
    torch.manual_seed(0)
    return TimmSwin(**SIZES).state_dict()


def refuse(path: Path, model: nn.Module | None = None) -> str:
    """The message, which is one line and names the file."""
    with pytest.raises(WeightsError) as told:
        load_weights(model or build(), path)
    message = str(told.value)
    assert str(path) in message
    assert "\n" not in message
    assert "weights_only" not in message
    return message


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_is_what_its_content_says(kind: str, released: dict[str, Tensor], tmp_path: Path) -> None:
    FORMATS[kind](released, tmp_path / "weights.bin")
    load_weights(build(), tmp_path / "weights.bin")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "pointer of Git LFS.*git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", "a page or a text.*download the file itself"),
        (b'{"error": "not found"}', "a page or a text"),
        (b"\x1f\x8b\x08\x00 something", "neither torch's format nor that of safetensors"),
        (b"PK\x03\x04 no archive", "damaged or cut off"),
        (b"\x80\x02}q\x00.", "damaged, cut off or foreign"),
        (struct.pack("<Q", 10**9) + b"{}", "damaged, cut off or foreign"),
    ],
    ids=["empty", "Git LFS", "HTML", "JSON", "gzip", "zip", "empty pickle", "safetensors"],
)
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_what_is_no_file_of_weights_is_said(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_weights(build(), tmp_path / name)
    refuse(tmp_path / name)


class _Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('executed')",)


def test_code_in_a_file_is_named_and_not_executed(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(2)}, "hook": _Trap()}, tmp_path / "a.pth")
    assert "it would execute code: builtins.exec" in refuse(tmp_path / "a.pth")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused(kind: str, part: float, released: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"weights.{kind}"
    FORMATS[kind](released, path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    refuse(path)


def test_a_flipped_bit_of_a_tensor_in_torchs_format_is_found(released: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(released, path)
    content = bytearray(path.read_bytes())
    place = content.find(released["norm.weight"].numpy().tobytes())
    assert place > 0
    content[place + 5] ^= 1
    path.write_bytes(content)
    assert "the checksum of" in refuse(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_numbers_that_are_not_finite_are_refused(value: float, released: dict[str, Tensor], tmp_path: Path) -> None:
    weights = {**released, "norm.weight": released["norm.weight"].double()}
    weights["norm.weight"][3] = value
    torch.save(weights, tmp_path / "a.pth")
    assert "not finite, in norm.weight" in refuse(tmp_path / "a.pth")


@pytest.mark.parametrize("change", [torch.Tensor.long, torch.Tensor.bool, torch.Tensor.cfloat, torch.Tensor.to_sparse])
@pytest.mark.parametrize("names", ["timm's", "ours"])
def test_no_tensor_is_cast_from_another_kind_of_number(
    change: Callable[[Tensor], Tensor], names: str, released: dict[str, Tensor], tmp_path: Path
) -> None:
    weights = released if names == "timm's" else build().state_dict()
    torch.save({**weights, "norm.weight": change(weights["norm.weight"])}, tmp_path / "a.pth")
    assert "norm.weight" in refuse(tmp_path / "a.pth")


def test_half_precision_is_read(released: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({name: tensor.bfloat16() for name, tensor in released.items()}, tmp_path / "a.safetensors")
    load_weights(build(), tmp_path / "a.safetensors")


def test_two_tensors_of_one_name_are_refused(released: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({**released, "module.norm.weight": released["norm.weight"]}, tmp_path / "a.pth")
    assert "one name" in refuse(tmp_path / "a.pth")


def test_a_head_of_other_classes_is_told_in_one_line(released: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({**released, "head.fc.weight": torch.zeros(1000, 16), "head.fc.bias": torch.zeros(1000)}, path)
    message = refuse(path)
    assert "head.fc.weight is (1000, 16), the model's (10, 16)" in message
    with pytest.raises(WeightsError, match=r"\(1000, 16\)"):
        start_from(build(), path)


def test_whether_weights_fit_is_known_without_numbers(released: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        model = build()
    weights = {name: tensor.to("meta") for name, tensor in released.items()}
    assert find_misfit(weights, model, resize=False) is None
    del weights["norm.bias"]
    assert find_misfit(weights, model, resize=False) == "it lacks norm.bias"


def _mutate(content: bytes, random: np.random.Generator) -> bytes:
    """Flip, overwrite, cut out or repeat some bytes; half of the places are in the first 4 kB, where headers are."""
    changed = bytearray(content)
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(0, min(len(changed), 4096) if random.random() < 0.5 else len(changed)))
        match random.integers(4):
            case 0:
                changed[place] ^= 1 << int(random.integers(8))
            case 1:
                changed[place : place + 4] = random.bytes(4)
            case 2:
                del changed[place : place + int(random.integers(1, 64))]
            case _:
                changed[place:place] = changed[place : place + int(random.integers(1, 64))]
    return bytes(changed)


def _change_tensors(weights: dict[str, Tensor], random: np.random.Generator) -> dict[str, Tensor]:
    """Whole tensors are lost, renamed, exchanged, reshaped or cut."""
    changed = dict(weights)
    for _ in range(random.integers(1, 3)):
        name, other = (str(name) for name in random.choice(sorted(changed), 2, replace=False))
        match random.integers(5):
            case 0:
                del changed[name]
            case 1:
                changed[name.replace("0", "7") + "x" * int(random.integers(2))] = changed.pop(name)
            case 2:
                changed[name], changed[other] = changed[other], changed[name]
            case 3:
                changed[name] = changed[name].reshape(-1)[: int(random.integers(0, 5))]
            case _:
                changed[name] = changed[name].unsqueeze(0)
    return changed


def _load_or_refuse(path: Path, model: nn.Module, load: Callable[[nn.Module, Path], object]) -> None:
    try:
        load(model, path)
    except WeightsError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
    else:
        assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("count", [40, pytest.param(1500, marks=pytest.mark.slow)], ids=["some", "many"])
def test_no_mutated_file_escapes(kind: str, count: int, released: dict[str, Tensor], tmp_path: Path) -> None:
    random, path, model = np.random.default_rng(0), tmp_path / f"weights.{kind}", build()
    FORMATS[kind](released, path)
    content = path.read_bytes()
    for _ in range(count):
        path.write_bytes(_mutate(content, random))
        _load_or_refuse(path, model, load_weights)


@pytest.mark.parametrize("load", [load_weights, start_from])
@pytest.mark.parametrize("count", [40, pytest.param(1500, marks=pytest.mark.slow)], ids=["some", "many"])
def test_no_mutated_checkpoint_escapes(
    load: Callable[[nn.Module, Path], object], count: int, released: dict[str, Tensor], tmp_path: Path
) -> None:
    random, path, model = np.random.default_rng(0), tmp_path / "weights.safetensors", build()
    for weights in (released, model.state_dict()):
        for _ in range(count // 2):
            save_file({n: t.contiguous().clone() for n, t in _change_tensors(weights, random).items()}, path)
            _load_or_refuse(path, model, load)
