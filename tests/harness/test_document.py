from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from harness.document import Document, parse_override, read_document
from harness.errors import SpecError


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    rate: float = 0.1
    label: str = ""


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    count: int = 1
    parts: dict[str, Part] = {}
    sizes: tuple[int, ...] = ()


def write(folder: Path, text: str) -> Path:
    path = folder / "it.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str) -> Document:
    return read_document(write(folder, text))


def test_yaml_is_version_1_2(tmp_path: Path) -> None:
    content = read(tmp_path, "rate: 1e-3\nswitch: off\nanswer: no\ncount: 012\nnothing:\nflag: true\n").to_plain()
    assert content == {"rate": 0.001, "switch": "off", "answer": "no", "count": 12, "nothing": None, "flag": True}
    assert type(content["rate"]) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: 1\nb: 2\na: 3\n", ':3: duplicate key "a"', id="duplicate key"),
        pytest.param("rows:\n  A: {}\n  A: {x: 1}\n", ':3: duplicate key "A"', id="duplicate row"),
        pytest.param("a: [1\nb: 2\n", ":2: ", id="open list"),
        pytest.param("a: b: c\n", ":1: mapping values are not allowed here", id="two colons"),
        pytest.param("a: 1\n---\nb: 2\n", "another document", id="two documents"),
        pytest.param("- 1\n- 2\n", ": the top level must be a mapping, got [1, 2]", id="list"),
        pytest.param("just words\n", 'the top level must be a mapping, got "just words"', id="text"),
        pytest.param("", "the top level must be a mapping, got null", id="empty"),
        pytest.param("a: \x01\n", ":1: the character U+0001 is not allowed", id="control character"),
    ],
)
def test_what_is_not_a_yaml_mapping_is_told_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "it.yaml"))
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"gone\.yaml: no such file"):
        read_document(tmp_path / "gone.yaml")
    with pytest.raises(SpecError, match="is a directory"):
        read_document(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match=r"binary\.yaml:1: cannot be read"):
        read_document(tmp_path / "binary.yaml")


def test_all_mistakes_are_told_one_a_line(tmp_path: Path) -> None:
    document = read(tmp_path, "# a comment\ncuont: 2\nparts:\n  A: {rate: fast}\n  B:\n    lable: x\nsizes: [1, two]\n")
    with pytest.raises(SpecError) as caught:
        document.validate(Whole)
    path = tmp_path / "it.yaml"
    assert str(caught.value).splitlines() == [
        f"{path}: name: this key is missing",
        f'{path}:4: parts.A.rate: must be a number, got "fast"',
        f"{path}:6: parts.B.lable: unknown key 'lable'; did you mean 'label'? (known: rate, label)",
        f'{path}:7: sizes.1: must be a whole number, got "two"',
        f"{path}:2: cuont: unknown key 'cuont'; did you mean 'count'? (known: name, count, parts, sizes)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("count: '3'", 'count: must be a whole number, got "3"', id="quoted number"),
        pytest.param("count: true", "count: must be a whole number, got true", id="flag as number"),
        pytest.param("parts: [1]", "parts: must be a mapping, got [1]", id="list as mapping"),
        pytest.param("parts: {A: }", "parts.A: must be a mapping, got null", id="nothing as mapping"),
        pytest.param("sizes: 3", "sizes: must be a list, got 3", id="number as list"),
        pytest.param("parts: {A: {label: 3}}", "parts.A.label: must be a text, got 3", id="number as text"),
    ],
)
def test_a_wrong_type_says_what_is_expected(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(tmp_path, text).validate(Whole, name="it")
    assert str(caught.value) == f"{tmp_path / 'it.yaml'}:1: {message}"


def test_a_derived_field_cannot_be_stated(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"it\.yaml:1: name: unknown key 'name'"):
        read(tmp_path, "name: mine\n").validate(Whole, name="it")


def test_a_mistake_in_a_replaced_value_is_told_as_the_options(tmp_path: Path) -> None:
    document = read(tmp_path, "parts:\n  A: {rate: 0.5}\n")
    document.replace(("parts", "A", "rate"), "fast", option="--set parts.A.rate=fast")
    with pytest.raises(SpecError) as caught:
        document.validate(Whole, name="it")
    assert str(caught.value) == '--set parts.A.rate=fast: parts.A.rate: must be a number, got "fast"'


def test_replacing_makes_the_mappings_on_the_way(tmp_path: Path) -> None:
    document = read(tmp_path, "count: 2\n")
    document.replace(("parts", "A", "rate"), 0.5, option="")
    assert document.validate(Whole, name="it").parts["A"].rate == 0.5


def test_replacing_below_a_number_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"--set count\.x=1: count is not a mapping"):
        read(tmp_path, "count: 2\n").replace(("count", "x"), 1, option="--set count.x=1")


def test_replacing_changes_no_other_use_of_an_alias(tmp_path: Path) -> None:
    document = read(tmp_path, "parts:\n  A: &a {rate: 0.5}\n  B: *a\n  C: {<<: *a}\n")
    document.replace(("parts", "B", "rate"), 0.25, option="")
    assert {name: part.rate for name, part in document.validate(Whole, name="it").parts.items()} == {
        **{"A": 0.5, "B": 0.25},
        "C": 0.5,
    }


def test_replacing_finds_a_key_that_is_a_number(tmp_path: Path) -> None:
    document = read(tmp_path, "stages: {1: {heads: 2}}\n")
    document.replace(("stages", "1", "heads"), 4, option="")
    document.replace(("stages", "2", "heads"), 8, option="")
    assert document.to_plain() == {"stages": {1: {"heads": 4}, 2: {"heads": 8}}}


@pytest.mark.parametrize(
    ("pair", "key", "value"),
    [
        ("seeds=5", "seeds", 5),
        ("training.lr=1e-3", "training.lr", 1e-3),
        ("backbones.swin.depths=[1, 1]", "backbones.swin.depths", [1, 1]),
        ("cell.border=", "cell.border", None),
        ("title=a = b", "title", "a = b"),
        ('rows."λ=0.5".heads=2', 'rows."λ=0.5".heads', 2),
    ],
)
def test_an_override_is_a_key_path_and_a_yaml_value(pair: str, key: str, value: object) -> None:
    assert parse_override(pair) == (key, value)


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("rows.Swin-T, drop path 0.2.heads", ("rows", "Swin-T, drop path 0.2", "heads")),
        ("rows.Swin-T, drop path 0", ("rows", "Swin-T, drop path 0")),
        ("rows.Swin-T, drop path 0.stages.1.heads", ("rows", "Swin-T, drop path 0", "stages", "1", "heads")),
        ('rows."λ=0.5".heads', ("rows", "λ=0.5", "heads")),
        ("rows.'A.heads'.window_size", ("rows", "A.heads", "window_size")),
        ("rows.A.heads", ("rows", "A", "heads")),
        ("rows.unknown.heads", ("rows", "unknown", "heads")),
    ],
)
def test_a_path_may_name_a_row_with_a_dot(tmp_path: Path, path: str, keys: tuple[str, ...]) -> None:
    names = "  A: {}\n  Swin-T, drop path 0: {}\n  Swin-T, drop path 0.2: {}\n  λ=0.5: {}\n"
    assert read(tmp_path, f"rows:\n{names}").split_path(path) == keys


@pytest.mark.parametrize("pair", ["seeds", "=3", "a..b=1", ".a=1", "", "seeds=[1"])
def test_a_malformed_override_is_told(pair: str) -> None:
    with pytest.raises(SpecError, match="--set"):
        parse_override(pair)
