"""Rules about the tree that no linter checks."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for package in ("benchmarks", "harness", "paradigms") for path in (ROOT / package).rglob("*.py"))
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core"}


def test_every_module_is_named_after_what_it_holds() -> None:
    assert [path for path in SOURCES if path.stem in NAMELESS or path.parent.name in NAMELESS] == []


def test_printing_is_left_to_the_command_line() -> None:
    printing = [path for path in SOURCES if re.search(r"^\s*print\(", path.read_text(), re.MULTILINE)]
    assert printing and {path.parent for path in printing} == {ROOT / "harness" / "cli"}


def test_measures_of_classification_are_known_to_its_task_alone() -> None:
    knowing = {path.parent for path in SOURCES if "top1" in path.read_text() and path.is_relative_to(ROOT / "harness")}
    assert knowing == {ROOT / "harness" / "tasks"}


def test_every_name_that_a_module_exports_exists() -> None:
    exporting = [path for path in SOURCES if re.search(r"^__all__", path.read_text(), re.MULTILINE)]
    assert len(exporting) > 10
    for path in exporting:
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
        assert [name for name in module.__all__ if not hasattr(module, name)] == [], module.__name__
        assert len(set(module.__all__)) == len(module.__all__), module.__name__


def test_exceptions_become_outcomes_in_one_place() -> None:
    catching = [path for path in SOURCES if re.search(r"except Exception\b", path.read_text())]
    assert catching == [ROOT / "harness" / "execution" / "cell.py"]


@pytest.mark.parametrize(
    "module", ["paradigms", "paradigms.config", "paradigms.presets", "harness", "harness.plan", "harness.cli"]
)
def test_names_and_plans_cost_no_torch(module: str) -> None:
    heavy = "torch", "timm", "mlflow", "pandas"
    code = f"import sys, {module}; sys.exit(str([name for name in {heavy} if name in sys.modules] or ''))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
