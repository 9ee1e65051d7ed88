import warnings
from pathlib import Path

import pytest

from harness.document import read_document
from harness.errors import SpecError
from harness.parsing import MAX_BYTES, MAX_DEPTH, MAX_NODES, ParseError, parse_yaml

BOMB = "x0: &x0 [a, a, a, a, a, a, a, a, a]\n" + "".join(
    f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 40)
)
CHAIN = "x0: &x0 [a]\n" + "".join(f"x{i}: &x{i} [*x{i - 1}]\n" for i in range(1, MAX_DEPTH + 5))


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        pytest.param(BOMB, 5, "x4.1", f"more than {MAX_NODES:,} keys and values", id="aliases of aliases"),
        pytest.param(CHAIN, 31, "x30.0", f"more than {MAX_DEPTH} lists", id="a chain of aliases"),
        pytest.param(
            "c: &c {s: *c}", 1, "c.s", "the alias *c refers to a value that contains it", id="alias of itself"
        ),
        pytest.param("a: " + "[" * 100_000, 1, "a" + ".0" * 31, f"more than {MAX_DEPTH} lists", id="open brackets"),
        pytest.param(f"a: {'{b: ' * 1000}1{'}' * 1000}", 1, "a" + ".b" * 30, "inside one another", id="braces"),
        pytest.param(f"a:\n  b: {'9' * 5000}", 2, "a.b", "a number has at most 50 characters, got 5,000", id="digits"),
        pytest.param(f"a: 0x{'f' * 5000}", 1, "a", "a number has at most 50 characters", id="hexadecimal digits"),
        pytest.param(
            "a:\n  ? {b: 1}\n  : 2", 2, "a", "must be a string or a whole number, got a mapping", id="map key"
        ),
        pytest.param("a:\n  ? [1, 2]\n  : 2", 2, "a", "a whole number, got a list", id="list as a key"),
        pytest.param("b: &b [1]\na:\n  ? *b\n  : 2", 3, "a", "a whole number, got a list", id="alias as a key"),
        pytest.param("a: {true: 1}", 1, "a", 'got true; write "true"', id="flag as a key"),
        pytest.param("a: {.nan: 1}", 1, "a", 'got .nan; write ".nan"', id="no number as a key"),
        pytest.param("a: {~: 1}", 1, "a", "a whole number, got ~", id="nothing as a key"),
        pytest.param("a: {1.5: 1}", 1, "a", 'got 1.5; write "1.5"', id="fraction as a key"),
        pytest.param(f"a:\n  ? {'k' * 5000}\n  : 1", 2, "a", "a key has at most 200 characters", id="long key"),
        pytest.param('a: "\\ud83d\\ude00"', 1, "a", "U+D83D is not allowed in a string; write the", id="surrogates"),
        pytest.param('a: "\\ud83d"', 1, "a", "U+D83D is not allowed", id="half a surrogate pair"),
        pytest.param('a: ["x", "\\0"]', 1, "a.1", "U+0000 is not allowed in a string", id="escaped NUL"),
        pytest.param("a: 1\nb: \0", 2, "", "U+0000 is not allowed in YAML", id="NUL"),
        pytest.param("a: !!python/object/apply:os.system [ls]", 1, "a", "tags are not supported", id="code"),
        pytest.param("a: !mine 3", 1, "a", "tags are not supported, got !mine", id="tag"),
        pytest.param("a: !!set {b, c}", 1, "a", "tags are not supported, got !!set", id="set"),
        pytest.param("%YAML 1.1\n---\na: no", 2, "", "directives such as %YAML", id="directive"),
        pytest.param("a: 1\n---\nb: 2", 2, "", "another document", id="two documents"),
        pytest.param("a:\n\tb: 1", 2, "", "'\\t'", id="tab"),
        pytest.param("a: *b", 1, "", "undefined alias 'b'", id="unknown alias"),
        pytest.param("a: {<<: 3}", 1, "", "expected a mapping", id="merge of a number"),
        pytest.param("a: 0b_", 1, "", "'0b_' is neither a number nor a string", id="no digits"),
    ],
)
def test_hostile_yaml_is_one_message_with_its_line_and_key(text: str, line: int, key: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_yaml(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (caught.value.line, ".".join(map(str, caught.value.key))) == (line, key)


def test_what_is_unusual_and_harmless_is_read() -> None:
    text = "day: 2024-05-01\nno: off\nflag: &f true\nagain: *f\nA: &a {x: 1}\nB: {<<: *a, y: 2}\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = parse_yaml(f"{text}C: &a [1]\nD: *a\n")
    assert root["day"] == "2024-05-01"
    assert dict(root["B"]) == {"x": 1, "y": 2}
    assert root["D"] == [1]


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "it.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: &x true\nb: *x\n")
    assert read_document(path).to_plain() == {"a": True, "b": True}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("a: é\nb: 1".encode("latin-1"), ":1: cannot be read: it is not UTF-8", id="Latin-1"),
        pytest.param("a: 1\nb: 2".encode("utf-16"), ":1: cannot be read: it is not UTF-8", id="UTF-16"),
        pytest.param(b"a: 1\n" + b"#" * MAX_BYTES, ": is larger than 1,000,000 bytes", id="large"),
    ],
)
def test_a_file_that_is_no_text_of_usual_size_is_reported(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "it.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        read_document(path)
    assert str(caught.value).startswith(f"{path}{message}")


def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        with pytest.raises(SpecError, match="is a pipe or a device, not a YAML file"):
            read_document(path)


def test_very_many_mistakes_are_cut_short(tmp_path: Path) -> None:
    from harness.spec import ExperimentSpec

    path = tmp_path / "it.yaml"
    path.write_text("".join(f"key{i}: {i}\n" for i in range(500)))
    with pytest.raises(SpecError) as caught:
        read_document(path).validate(ExperimentSpec)
    assert len(str(caught.value).splitlines()) == 21
    assert str(caught.value).endswith("and 484 more")
