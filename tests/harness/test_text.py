import csv
import io
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from harness.text import (
    escape_cell,
    escape_code,
    escape_csv,
    escape_html,
    escape_latex,
    escape_markdown,
    escape_terminal,
    find_control,
    to_csv,
    to_line,
)

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "![x](http://example.org/x.png)",
    "[x][y]",
    "[x]: http://example.org",
    "**b** __b__ *i* _i_ ~~s~~ `c`",
    "a|b",
    r"a\|b",
    "`|`",
    "&lt;b&gt; &amp; &#60;",
    "# title #",
    "- item",
    "1. item",
    "12) item",
    "---",
    "+ item",
    "$x$ and \\(y\\)",
    r"\input{/etc/passwd} % ^ ~ # { }",
    "--flag",
    "=1+1",
    "@SUM(A1)",
    "+1",
    "-1",
    "_name",
    "two\nlines",
    "carriage\rreturn",
    "tab\tbed",
    "line\u2028separator",
    "bell\x07 escape\x1b[31m null\x00 c1\x9b31m",
    "right\u202eleft",
    "half \udc41",
    "λ=1, γ=½ 漢字 🐟",
]


class Text(HTMLParser):
    """The text of a page, and its tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.parts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.parts).strip()


def render(markdown: str) -> Text:
    return Text(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown))


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    ("place", "tags"),
    [("{}", ["p"]), ("# {}", ["h1"]), ("* {}", ["ul", "li", "p"]), ("**{}**", ["p", "strong"])],
    ids=["paragraph", "title", "item", "bold"],
)
def test_markdown_shows_a_text_as_it_is(text: str, place: str, tags: list[str]) -> None:
    shown = render(place.format(escape_markdown(text)))
    assert shown.text == to_line(text).strip()
    assert [tag for tag in shown.tags if tag != "p"] == [tag for tag in tags if tag != "p"]


@pytest.mark.parametrize("escape", [escape_markdown, escape_code], ids=["text", "code"])
def test_a_cell_of_a_markdown_table_shows_a_text_as_it_is(escape) -> None:
    rows = "".join(f"| {escape_cell(escape(text))} | x |\n" for text in HOSTILE)
    shown = render(f"| a | b |\n|---|---|\n{rows}")
    cells = [part.strip() for part in shown.parts if part.strip()]
    assert set(shown.tags) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    assert shown.tags.count("tr") == 1 + len(HOSTILE)
    assert cells.count("x") == len(HOSTILE)
    assert "".join(cells).count("alert(1)") == "".join(HOSTILE).count("alert(1)")


@pytest.mark.parametrize("text", HOSTILE)
def test_html_shows_a_text_as_it_is(text: str) -> None:
    shown = Text(f"<p>{escape_html(text)}</p>")
    assert (shown.tags, shown.text) == (["p"], to_line(text).strip())


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isprintable() or "half" not in text])
def test_a_csv_computes_and_controls_nothing(text: str) -> None:
    written = to_csv(pd.DataFrame({text: [text, None], "number": [-1.5, 2.0]}))
    (head, number), (cell, value), _ = list(csv.reader(io.StringIO(written)))
    assert head == cell == escape_csv(text)
    assert (number, value) == ("number", "-1.5")
    assert not cell.startswith(("=", "+", "-", "@")) or float(cell)
    assert find_control(cell) is None


def test_numbers_of_a_csv_stay_as_they_are() -> None:
    frame = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [0.1 + 0.2, None], "c": [True, False]})
    assert to_csv(frame) == frame.to_csv(index=False, lineterminator="\n")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_terminal_is_not_controlled(text: str) -> None:
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", escape_terminal(text))
    assert find_control(to_line(text)) is None
    to_line(text).encode()


@pytest.mark.parametrize("text", HOSTILE)
def test_latex_gets_no_command_of_a_text(text: str) -> None:
    escaped = escape_latex(text)
    plain = re.sub(r"\\(text[a-z]+\{\}|[&%$#_{}])|\$(\\[A-Za-z]+|\^\\dagger|\^9|-)\$|-\{\}", "", escaped)
    assert not re.search(r"[\\&%$#_{}~^<>|`]|--", plain), plain
