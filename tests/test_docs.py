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
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("paradigms", "harness"):
        text = (tmp_path / "site" / "reference" / name / "index.html").read_text()
        assert f"{name}." in text
