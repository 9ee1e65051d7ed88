"""Provenance of a run: code digests of a cell, commit, versions and device. Imports no torch."""

import ast
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.cell import Cell
from paradigms.config import LEVELS

ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds the packages `harness` and `paradigms`."""

DISTRIBUTION = "elsa-ablation"
SOURCES = ("harness", "paradigms", "experiments")
SOURCE_SUFFIXES = (".py", ".c", ".cpp", ".cu", ".h", ".hpp")
PACKAGES = ("torch", "torchvision", "timm", "mlflow", "numpy")

TRAINING_MODULES = (
    "harness.batch",
    "harness.build",
    "harness.checkpoint",
    "harness.data",
    "harness.data.part",
    "harness.division",
    "harness.evaluate",
    "harness.floors",
    "harness.optim",
    "harness.execution.cell",
    "harness.execution.checkpoints",
    "harness.execution.prepared",
    "harness.ranks",
    "harness.seeding",
    "harness.spec.data",
    "harness.spec.training",
    "harness.tasks.task",
    "harness.train",
)
"""What every run executes. Their own imports are not followed: what tracks, plans or prints changes no number."""

COMPILED = {"paradigms.kernels.cpu": "paradigms/kernels/native"}
"""Where the sources lie that a module calls compiled."""

FOREIGN: dict[str, frozenset[str]] = {}
"""The modules of levels and datasets from outside of the two packages, by the level's name; see `harness.plugins`."""

CONFIGURATION = frozenset({"paradigms", "paradigms.config", "paradigms.facts", "paradigms.presets", "paradigms.models"})
"""Names and defaults; what a cell resolves to is its id already."""


def collect(*, device: str | None = None, threads: int | None = None) -> dict[str, str]:
    """The checkout, the versions and the machine, as they are recorded with every run.

    `device` is the accelerator's name, the CPU's when None; `threads` are torch's, those of the environment when None.
    """
    return {
        **_describe_checkout(ROOT),
        **collect_versions(),
        "device": device or name_cpu(),
        "threads": str(threads or os.environ.get("OMP_NUM_THREADS") or os.cpu_count()),
    }


def collect_versions() -> dict[str, str]:
    """The versions of Python and of `PACKAGES`."""
    return {"python": platform.python_version(), **{package: _version_of(package) for package in PACKAGES}}


def code_digest(cell: Cell, *, root: Path = ROOT) -> str:
    """Twelve hexadecimal digits of all code that can change a cell's numbers.

    Comments and formatting cannot; of an index, which only imports and lists names, the rows of other levels cannot.
    """
    digest = hashlib.sha256()
    modules = reached_modules(cell, root=root)
    for module in modules:
        source = _read(module, root)
        rows = _list_rows(source)
        content = _parse(source) if rows is None else "\n".join(row for key, row in rows if _is_named(key, cell))
        digest.update(f"{module}\n{content}\n".encode())
    for path in _list_sources([COMPILED[module] for module in modules if module in COMPILED], root):
        digest.update(f"{path.name}\n{_strip(path.read_text(encoding='utf-8'))}\n".encode())
    for content in sorted(f"{path.name}\n{_read_code(path)}\n" for path in list_foreign(cell)):
        digest.update(content.encode())
    return digest.hexdigest()[:12]


def list_foreign(cell: Cell) -> list[Path]:
    """The files of all code from outside that a cell reaches: empty unless it names a level of a plugin."""
    modules = {module for level in cell.levels() for module in FOREIGN.get(level, ())}
    return sorted({path for module in modules for path in _list_foreign_files(module)})


def _list_foreign_files(module: str) -> set[Path]:
    """The whole package that a module lies in; of a lone one, the modules beside it that it imports too."""
    top = module.partition(".")[0]
    file = getattr(sys.modules[top], "__file__", None) or getattr(sys.modules[module], "__file__", None)
    if file is None or top in (*SOURCES, *sys.stdlib_module_names):
        return set()
    home = Path(file).parent
    if Path(file).name == "__init__.py":
        return set(_list_sources([str(home)], home))
    reached, waiting = set[Path](), [Path(file)]
    while waiting:
        path = waiting.pop()
        reached.add(path)
        names = (name for name in _find_imports(path.read_text(encoding="utf-8"), "") if name not in SOURCES)
        beside = (home / f"{name}.py" for name in names if not any(home.glob("*.dist-info")))  # installed, not beside
        waiting += [found for found in beside if found.is_file() and found not in reached]
    return reached


def tree_digest(*folders: str, root: Path = ROOT) -> str:
    """Twelve hexadecimal digits of all code in some folders, without comments and formatting."""
    digest = hashlib.sha256()
    for path in _list_sources(folders, root):
        digest.update(f"{path.relative_to(root).as_posix()}\n{_read_code(path)}\n".encode())
    return digest.hexdigest()[:12]


def fingerprint_code(*, root: Path = ROOT) -> str:
    """A digest of all our code as it lies there, words included: cheap, and equal as long as nobody edits it."""
    digest = hashlib.sha256()
    for path in _list_sources(("harness", "paradigms"), root):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _read_code(path: Path) -> str:
    """Read the code of a file without comments and formatting."""
    source = path.read_text(encoding="utf-8")
    return _parse(source) if path.suffix == ".py" else _strip(source)


def _list_sources(folders: Iterable[str], root: Path) -> list[Path]:
    """Every file of code under some folders."""
    files = (path for folder in folders for path in root.joinpath(folder).rglob("*"))
    return sorted(path for path in files if path.suffix in SOURCE_SUFFIXES)


def reached_modules(cell: Cell, *, root: Path = ROOT) -> tuple[str, ...]:
    """The modules that the digest of a cell covers, sorted.

    They are the modules of training, the files of the dataset, the task and the backbone and, for a cell that starts
    from trained weights, of who reads them; and what these import. A module
    called like a level is not followed where the cell does not name that level: only cells with `sliding_window`
    reach `paradigms.kernels.sliding_window`. Of a level from outside it is what its code imports.
    """
    named = [f"harness.data.{cell.data.name}", f"harness.tasks.{cell.data.task}"]
    named += [f"paradigms.backbones.{cell.backbone}"] if cell.attention else []
    named += ["harness.weights"] if cell.init_from is not None else []
    starts = [module for module in named if _locate(module, root) is not None]
    for path in list_foreign(cell):
        found = _find_imports(path.read_text(encoding="utf-8"), "") if path.suffix == ".py" else ()
        starts += [name for name in found if _locate(name, root) is not None and _is_reached(name, cell)]
    reached, waiting = set(TRAINING_MODULES), starts
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += [found for found in _imports_of(module, root) if _is_reached(found, cell)]
    return tuple(sorted(reached))


def _is_reached(module: str, cell: Cell) -> bool:
    if not module.startswith(("harness.data.", "harness.tasks.", "paradigms")) or module in CONFIGURATION:
        return False
    return _is_named(module.rpartition(".")[2], cell)


def _is_named(name: str, cell: Cell) -> bool:
    """False for a level that the cell does not name; which of them code from outside calls is not known."""
    return name not in LEVELS or name in cell.levels() or not FOREIGN.keys().isdisjoint(cell.levels())


def _imports_of(module: str, root: Path) -> Iterator[str]:
    """The modules under `root` that a module imports, anywhere in it, and the packages that it lies in."""
    parts = module.split(".")
    yield from (".".join(parts[:length]) for length in range(1, len(parts)))
    package = module if _locate(module, root) == root.joinpath(*parts, "__init__.py") else module.rpartition(".")[0]
    for name in _find_imports(_read(module, root), package):
        if _locate(name, root) is not None:
            yield name


@cache
def _find_imports(source: str, package: str) -> tuple[str, ...]:
    """Every name that may be a module: of `from a import b` both `a` and `a.b`."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*parent, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(names)


@cache
def _list_rows(source: str) -> tuple[tuple[str, str], ...] | None:
    """The rows, with their keys, of a module that only imports and lists names; None where it does anything else."""
    rows: list[tuple[str, str]] = []
    for statement in ast.parse(source).body:
        match statement:
            case ast.Import() | ast.ImportFrom():
                pass
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                pass
            case ast.Assign(value=ast.Dict() as listing) | ast.AnnAssign(value=ast.Dict() as listing):
                for key, value in zip(listing.keys, listing.values, strict=True):
                    if not (isinstance(key, ast.Constant) and isinstance(value, ast.Name | ast.Attribute)):
                        return None
                    rows.append((str(key.value), ast.unparse(value)))
            case _ if not _is_docstring(statement):
                return None
    return tuple(sorted(rows))


@cache
def _parse(source: str) -> str:
    """What the interpreter makes of a module, docstrings left out."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [statement for statement in node.body if not _is_docstring(statement)]
    return ast.unparse(tree)  # unlike a dump, the same text in every version of Python


def _strip(source: str) -> str:
    """C++ without comments and with single spaces."""
    lines = (line.partition("//")[0] for line in source.splitlines())
    return " ".join(word for line in lines for word in line.split())


def _is_docstring(statement: ast.stmt) -> bool:
    """A string that is a statement: a docstring, of an attribute too; it is never executed to any effect."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _locate(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _read(module: str, root: Path) -> str:
    path = _locate(module, root)
    assert path is not None, f"{module} is not under {root}"
    return path.read_text(encoding="utf-8")


def _describe_checkout(root: Path) -> dict[str, str]:
    """The commit and whether the sources differ from it; outside a checkout of ours the version that is installed."""
    if _git(root, "rev-parse", "--show-toplevel") != str(root):
        installed = _version_of(DISTRIBUTION)
        return {"commit": "unknown" if installed == "none" else f"{DISTRIBUTION} {installed}", "dirty": "unknown"}
    changes = _git(root, "status", "--porcelain", "--", *SOURCES)
    return {
        "commit": _git(root, "rev-parse", "HEAD") or "unknown",
        "dirty": "unknown" if changes is None else str(bool(changes)).lower(),
    }


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None without git, or where it refuses."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def name_cpu() -> str:
    """The model's name where Linux tells it, the architecture elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
