"""What the guide and the README show works: commands parse, experiments load, Python runs, links lead somewhere."""

import hashlib
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from benchmarks.__main__ import make_parser as make_benchmark_parser
from harness.cli import make_parser
from harness.commands.forecast import forecast_memory
from harness.plan import make_plan
from harness.reading import load_spec
from harness.search.spec import load_search
from harness.spec import DataSpec
from paradigms.config import KERNEL_SUPPORT
from paradigms.facts import BORDERS, NEIGHBORHOODS, NORMALIZATIONS, ROOMS

from .dead_links import find_dead_links

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / "index.md", ROOT / "docs" / "findings.md", ROOT / "CONTRIBUTING.md"),
    *sorted((ROOT / "docs" / "guide").glob("*.md")),
]

BACKENDS = ("cpu", "torch", "triton", "dense")

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)


def list_blocks(path: Path, language: str) -> Iterator[str]:
    """The fenced blocks of one language."""
    yield from re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def list_commands(path: Path) -> list[str]:
    """Lines that begin with `harness`, fenced or indented, without their comments."""
    return re.findall(r"^(?: {4})?(?:\.venv/bin/)?(harness [a-z].*?)(?: +#.*)?$", path.read_text(), re.MULTILINE)


def test_there_is_something_to_check() -> None:
    assert sum(len(list_commands(path)) for path in PAGES) > 15
    assert sum(len(list(list_blocks(path, "python"))) for path in PAGES) > 3


@page
def test_every_command_is_one_that_harness_takes(path: Path) -> None:
    parser = make_parser()
    for command in list_commands(path):
        parser.parse_args(shlex.split(command)[1:])


VERBS = next(action.choices for action in make_parser()._actions if isinstance(action.choices, dict))
OPTIONS = {verb: set(parser._option_string_actions) for verb, parser in VERBS.items()}
OF_OTHERS = {"--editable", "--no-deps", *make_benchmark_parser()._option_string_actions}
"""Options in the guide that are pip's or the benchmark's."""


@page
def test_every_option_exists(path: Path) -> None:
    known = OF_OTHERS.union(*OPTIONS.values())
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text())) <= known


def test_sentences_on_who_takes_an_option_name_all_commands() -> None:
    found = {}
    for path in PAGES:
        for verbs, option in re.findall(r"((?:`[a-z ]+`(?:,\s| and |\s))+)take `(--[a-z-]+)", path.read_text()):
            found[option] = {verb.removeprefix("harness ") for verb in re.findall("`([a-z ]+)`", verbs)}
    assert found.keys() == {"--plugin", "--json", "--rows"}
    for option, verbs in found.items():
        assert verbs == {verb for verb, options in OPTIONS.items() if option in options}, option


@page
def test_every_file_that_is_named_exists(path: Path) -> None:
    named = re.findall(
        r"`((?:benchmarks|experiments|harness|paradigms|results|docs|tests)/[\w/.-]+\.\w+)`", path.read_text()
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_readme_is_short_and_its_tree_names_folders_that_exist() -> None:
    text = PAGES[0].read_text()
    assert len(text.splitlines()) <= 150
    (tree,) = re.findall(r"^## Where things are\n\n```\n(.+?)^```", text, re.MULTILINE | re.DOTALL)
    top, missing = ROOT, []
    for indent, names in re.findall(r"^( *)(\S+(?:, \S+)*)  ", tree, re.MULTILINE):
        top = top if indent else ROOT / names
        folders = [top / name for name in names.split(", ")] if indent else [top]
        missing += [folder for folder in folders if not folder.is_dir()]
    assert missing == []


def run_generator(name: str) -> dict[str, Any]:
    """The functions of a script in `docs`; `make docs` executes it."""
    return runpy.run_path(str(ROOT / "docs" / f"{name}.py"))


def test_the_page_of_the_architecture_is_what_the_docstrings_say() -> None:
    page = run_generator("generate_architecture")["make_page"]()
    assert (ROOT / "docs" / "architecture.md").read_text() == page, "make docs"
    modules = [path for top in ("benchmarks", "harness", "paradigms") for path in (ROOT / top).rglob("*.py")]
    assert page.count(".py`: ") == sum(path.name != "__init__.py" for path in modules) > 100


def test_the_figures_of_the_readme_show_all_levels_and_the_results_of_today() -> None:
    images = ROOT / "docs" / "images"
    assert (images / "equation.svg").read_text() == run_generator("generate_images")["draw_equation"](), "make docs"
    digest = hashlib.sha256((ROOT / "results" / "laptop" / "table1.csv").read_bytes()).hexdigest()
    assert digest in (images / "table1.svg").read_text(), "make docs"


@pytest.mark.parametrize("name", ["README.md", "docs/findings.md", "docs/guide/start.md"])
def test_every_interval_that_is_shown_is_in_a_results_file(name: str) -> None:
    """But for those of the recipe `smoke`, whose results are not kept."""
    text = (ROOT / name).read_text().partition("--recipe smoke\n\n    row")
    _, _, rest = text[2].partition("\n\n")
    shown = re.findall(r"[+-]\d+\.\d+ \[[+-].+?\]", " ".join((text[0] + rest).split()))
    results = " ".join(path.read_text() for path in (ROOT / "results" / "laptop").glob("*.md"))
    assert len(shown) >= 3
    assert [interval for interval in shown if interval not in results] == []


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = YAML(typ="safe").load(ROOT / "CITATION.cff")
    assert citation["version"] == version
    assert f"\n## {version} ({citation['date-released']})\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_guide_lists_every_level() -> None:
    for room in ("parameterization", "normalization", "neighborhood", "aggregation"):
        text = (ROOT / "docs" / "guide" / "operator.md").read_text()
        (row,) = re.findall(rf"^\| {room}: .+\| (.+) \|$", text, re.MULTILINE)
        assert re.findall(r"`(\w+)`", row) == list(ROOMS[room])


def list_table(path: Path, head: str) -> list[list[str]]:
    """The cells below a table's first two lines."""
    rows = path.read_text().partition(f"\n{head}")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_guide_says_what_each_backend_computes() -> None:
    rows = list_table(ROOT / "docs" / "guide" / "operator.md", "| neighborhood and border |")
    shown = {}
    for place, *cells in rows:
        neighborhood, *borders = re.findall(r"`(\w+)`", place)
        for border in borders or NEIGHBORHOODS[neighborhood].borders:
            shown |= {(neighborhood, border, name): cell for name, cell in zip(BACKENDS, cells, strict=True)}
    for neighborhood, border, name in product(NEIGHBORHOODS, BORDERS, BACKENDS):
        if border in NEIGHBORHOODS[neighborhood].borders:
            computed = [
                normalization
                for normalization in list(NORMALIZATIONS)
                for support in KERNEL_SUPPORT[name]
                if support.includes(neighborhood, (border, normalization, "weighted_sum", "terms"))
            ]
            expected = "any" if computed == list(NORMALIZATIONS) else ", ".join(computed)
            assert shown.pop((neighborhood, border, name)) == expected, (neighborhood, border, name)
    assert not shown


@pytest.mark.slow
def test_the_guide_shows_the_memory_that_the_plan_forecasts(tmp_path: Path) -> None:
    rows, shown = [], []
    for operator, backend, *cells in list_table(ROOT / "docs" / "guide" / "imagenet.md", "| operator | backend"):
        preset, name = re.findall(r"`(\w+)`", operator + backend)
        for heads, cell in zip(("2x", "C"), cells, strict=True):
            rows.append(f"  {preset} {name} {heads}: {{preset: {preset}, backend: {name}, heads: {heads}}}")
            shown.append(cell)
    text = "\n".join(["title: Shown", "recipe: imagenet", "baseline: swin torch 2x", "seeds: 1", "rows:", *rows])
    (tmp_path / "shown.yaml").write_text(text)
    plan = make_plan(load_spec(tmp_path / "shown.yaml"))
    needed = [forecast_memory(row.cell, num_images=128).total for row in plan.rows]
    assert [f"{size / 1e9:.0f} GB" for size in needed] == shown


def test_the_search_of_the_guide_can_be_read(tmp_path: Path) -> None:
    blocks = list(list_blocks(ROOT / "docs" / "guide" / "search.md", "yaml"))
    (tmp_path / "shown_search.yaml").write_text("\n".join(["title: Shown", "recipe: laptop", *blocks]))
    load_search(tmp_path / "shown_search.yaml")


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


MARKDOWN = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_link_between_files_of_the_source_tree_leads_to_one() -> None:
    """As a host of repositories shows them: without a build."""
    links = [(path, link) for path in MARKDOWN for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text())]
    inner = [(path, link) for path, link in links if not re.match(r"[a-z]+:|#", link)]
    assert len(inner) > 30
    assert [(path.name, link) for path, link in inner if not (path.parent / link.partition("#")[0]).exists()] == []
