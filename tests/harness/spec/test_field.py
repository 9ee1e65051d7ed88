import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from harness.errors import SpecError
from harness.reading import load_spec
from harness.spec import AugmentationSpec


def test_a_spec_is_frozen_and_strict() -> None:
    spec = AugmentationSpec(hflip=0.5)
    with pytest.raises(ValidationError):
        spec.hflip = 0.1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        AugmentationSpec.model_validate({"hflip": "0.5"})
    with pytest.raises(ValidationError):
        AugmentationSpec.model_validate({"hflop": 0.5})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_is_finite(value: float) -> None:
    with pytest.raises(ValidationError):
        AugmentationSpec(mixup=value)


NAMES = {
    "": r"\..*: .*must not be empty",
    "  ": r"\..*: .*must not be empty",
    " Net1": r"\..*: .*must not begin or end with a blank",
    "two\nlines": r"\..*: .*one line without control characters, got \\x0a",
    "bell\x07": r": the character U\+0007 is not allowed in a string",
    "sepa\u2028rator": r"\..*: .*one line without control characters, got \\u2028",
    "right\u202eleft": r"\..*: .*one line without control characters, got \\u202e",
    "x" * 201: ": a key has at most 200 characters, got 201",
}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_row_has_a_name_that_a_table_can_show(name: str, tmp_path: Path) -> None:
    path = tmp_path / "few.yaml"
    rows = f"rows:\n  Swin-T: {{}}\n  {json.dumps(name)}: {{}}\n"
    path.write_text(f"title: Few\nrecipe: smoke\nbaseline: Swin-T\n{rows}")
    with pytest.raises(SpecError, match=rf"few\.yaml:6: rows{NAMES[name]}") as caught:
        load_spec(path)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("key", ["title: ''", 'title: "two\\nlines"', 'title: x\nsource: {paper: "\\e[31m"}'])
def test_a_title_and_a_source_are_one_line(key: str, tmp_path: Path) -> None:
    path = tmp_path / "few.yaml"
    path.write_text(f"{key}\nrecipe: smoke\nbaseline: Swin-T\nrows: {{Swin-T: {{}}}}\n")
    expected = r"few\.yaml:[12]: (title: must|source\.paper: the character U\+001B is not allowed)"
    with pytest.raises(SpecError, match=expected):
        load_spec(path)


@pytest.mark.parametrize("name", ["a|b", "<b>", "λ=1, γ=½", "VOLO-D1↑384", "Net1 (ours)", "漢字"])
def test_any_printable_name_is_a_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "few.yaml"
    path.write_text(f"title: Few\nrecipe: smoke\nbaseline: Swin-T\nrows:\n  Swin-T: {{}}\n  {json.dumps(name)}: {{}}\n")
    assert name in load_spec(path).rows
