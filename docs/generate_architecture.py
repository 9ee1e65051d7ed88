"""Writes docs/architecture.md: every module and experiment with the first line of its docstring or comment.

python docs/generate_architecture.py
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
SUFFIXES = (".py", ".cpp", ".h", ".yaml")

HEAD = """\
# Architecture

`paradigms` is the operator: Eq. 4 of the paper as four rooms, with fast kernels, in timm's backbones. It knows nothing
of the harness. `harness` is the experiment runner. Data flows in one direction: spec → plan → run → record → table.
`pyproject.toml` states which module may import which, and `make check` enforces it.

This page is generated from the first line of every module's docstring. `make docs` writes it again.
"""


def make_page() -> str:
    """The whole page as Markdown."""
    tops = sorted(path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests")
    folders = [folder for top in tops for folder in list_folders(top)] + list(list_folders(ROOT / "experiments"))
    return "\n".join([HEAD, *(section for folder in folders for section in make_section(folder))])


def list_folders(folder: Path) -> Iterator[Path]:
    """The folder, then every folder below it that holds source files."""
    if list_files(folder):
        yield folder
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from list_folders(path)


def list_files(folder: Path) -> list[Path]:
    """The source files of one folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)


def make_section(folder: Path) -> Iterator[str]:
    """A heading, what the package says about itself, and a line for each file."""
    yield f"## {folder.relative_to(ROOT).as_posix()}\n"
    files = list_files(folder)
    if files[0].name == "__init__.py":
        yield f"{read_summary(files.pop(0))}\n"
    if files:
        yield "\n".join(f"* `{path.name}`: {read_summary(path)}" for path in files) + "\n"


def read_summary(path: Path) -> str:
    """The first line of a module's docstring, or of the comment that opens any other file."""
    text = path.read_text(encoding="utf-8")
    summary = ast.get_docstring(ast.parse(text)) if path.suffix == ".py" else text.lstrip("/# ")
    if not summary:
        raise ValueError(f"{path.relative_to(ROOT)} must open with a docstring")
    return summary.splitlines()[0]


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
