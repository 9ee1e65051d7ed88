"""What the guide and the README show works: commands parse, experiments load, Python runs, links lead somewhere."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from harness.cli import make_parser
from harness.reading import load_spec
from harness.spec import DataSpec

from .dead_links import find_dead_links

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "index.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)


def list_blocks(path: Path, language: str) -> Iterator[str]:
    """The fenced blocks of one language."""
    yield from re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def list_commands(path: Path) -> list[str]:
    """Lines that begin with `harness`, fenced or indented, without their comments."""
    return re.findall(r"^(?: {4})?(harness [a-z].*?)(?: +#.*)?$", path.read_text(), re.MULTILINE)


def test_there_is_something_to_check() -> None:
    assert sum(len(list_commands(path)) for path in PAGES) > 15
    assert sum(len(list(list_blocks(path, "python"))) for path in PAGES) > 3


@page
def test_every_command_is_one_that_harness_takes(path: Path) -> None:
    parser = make_parser()
    for command in list_commands(path):
        parser.parse_args(shlex.split(command)[1:])


def test_the_commands_that_take_plugins_are_those_that_the_guide_names() -> None:
    (verbs,) = (action.choices for action in make_parser()._actions if isinstance(action.choices, dict))
    taking = {name for name, verb in verbs.items() if "--plugin" in verb.format_help()}
    (sentence,) = re.findall(
        r"^(`run`.+?) take `--plugin`", (PAGES[1].parent / "guide" / "outside.md").read_text(), re.MULTILINE
    )
    assert set(re.findall("`([a-z]+)`", sentence)) == taking


@page
def test_every_experiment_can_be_read(path: Path, tmp_path: Path) -> None:
    for text in list_blocks(path, "yaml"):
        if text.startswith("title:"):
            (tmp_path / "shown.yaml").write_text(text)
            load_spec(tmp_path / "shown.yaml")
        elif text.startswith("data:"):
            DataSpec.model_validate(YAML(typ="safe").load(text)["data"])


@pytest.mark.slow
@page
def test_python_runs_as_it_stands(path: Path, tmp_path: Path) -> None:
    code = "\n".join(list_blocks(path, "python"))
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True, timeout=300)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_no_link_is_dead(tmp_path: Path) -> None:
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("paradigms", "harness"):
        assert f"{name}." in (site / "reference" / f"{name}.html").read_text()
    assert find_dead_links(site) == []


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "guide").mkdir()
    (tmp_path / "guide" / "row.html").write_text('<h2 id="a-row">A row</h2><a href="../index.html#top">up</a>')
    (tmp_path / "picture.png").touch()
    good = ["guide/row.html", "guide/row.html#a-row", "picture.png", "/guide/row.html", "https://example.org/x", "#top"]
    dead = ["guide/", "guide/column.html", "guide/row.html#a-column", "#bottom", "../row.html", "file:///row.html"]
    links = "".join(f'<a href="{address}">x</a>' for address in good + dead)
    images = '<img src="picture.png" srcset="picture.png 1x, large.png 2x"><img src="chart.png"><script src="https://example.org/y"></script>'
    (tmp_path / "index.html").write_text(f'<h1 id="top">Top</h1>{links}{images}')
    found = find_dead_links(tmp_path)
    assert found == [f"index.html: {address}" for address in [*dead, "large.png", "chart.png", "https://example.org/y"]]


MARKDOWN = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_link_between_files_of_the_source_tree_leads_to_one() -> None:
    """As a host of repositories shows them: without a build."""
    links = [(path, link) for path in MARKDOWN for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text())]
    inner = [(path, link) for path, link in links if not re.match(r"[a-z]+:|#", link)]
    assert len(inner) > 30
    assert [(path.name, link) for path, link in inner if not (path.parent / link.partition("#")[0]).exists()] == []
