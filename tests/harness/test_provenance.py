import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import provenance
from harness.plan import Plan
from harness.provenance import ROOT, code_digest, collect, reached_modules, tree_digest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources that may be changed."""
    for package in ("harness", "paradigms"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("files", "__pycache__"))
    return tmp_path


def rows_that_a_change_reaches(plan: Plan, tree: Path, module: str, old: str, new: str) -> set[str]:
    before = {row.name: code_digest(row.cell, root=tree) for row in plan.rows}
    path, changed = tree / module, re.sub(old, new, (tree / module).read_text(), count=1)
    assert changed != path.read_text()
    path.write_text(changed)
    return {row.name for row in plan.rows if code_digest(row.cell, root=tree) != before[row.name]}


ATTENTION = {"Swin-T", "Net1", "Net7-N"}
FLOORS = {"Linear classifier", "One hidden layer"}


@pytest.mark.parametrize(
    ("module", "rows"),
    [
        pytest.param("paradigms/normalization/softmax.py", ATTENTION, id="a room"),
        pytest.param("paradigms/kernels/sliding_window.py", {"Net7-N"}, id="a kernel of some cells"),
        pytest.param("paradigms/kernels/__init__.py", ATTENTION, id="a package"),
        pytest.param("paradigms/kernels/native/window.h", ATTENTION, id="a compiled kernel"),
        pytest.param("harness/train.py", ATTENTION | FLOORS, id="training"),
        pytest.param("harness/data/fashion_mnist.py", ATTENTION | FLOORS, id="the dataset"),
        pytest.param("harness/data/memory.py", ATTENTION | FLOORS, id="what the dataset imports"),
        pytest.param("harness/data/image_folder.py", set(), id="another dataset"),
        pytest.param("harness/table/entry.py", set(), id="the table"),
        pytest.param("paradigms/presets.py", set(), id="presets"),
    ],
)
def test_changed_code_makes_stale_exactly_what_reaches_it(small_plan, tree, module, rows):
    assert rows_that_a_change_reaches(small_plan, tree, module, r"\Z", "\nchanged = 1\n") == rows


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(r"\Z", "\n\n# a comment\n", id="comment"),
        pytest.param(r'\A"""', '"""Changed. ', id="docstring of the module"),
        pytest.param(r'(def \w+\([^"]*?:\n +""")', r"\1Changed. ", id="docstring of a function"),
        pytest.param(r"\n\n\n", "\n\n\n\n", id="blank line"),
        pytest.param(r"import (\w)", r"import   \1", id="spaces"),
    ],
)
def test_a_change_of_words_and_layout_makes_nothing_stale(small_plan, tree, old, new):
    assert rows_that_a_change_reaches(small_plan, tree, "paradigms/normalization/softmax.py", old, new) == set()


def test_words_and_layout_of_compiled_kernels_make_nothing_stale(small_plan, tree):
    module = "paradigms/kernels/native/window.h"
    assert rows_that_a_change_reaches(small_plan, tree, module, r"\Z", "\n\n  // a comment\n") == set()


def test_a_new_level_makes_no_cell_of_other_levels_stale(small_plan, tree):
    (tree / "paradigms/aggregation/identity.py").write_text("class Identity:\n    scale = 1.0\n")
    module, old = "paradigms/aggregation/__init__.py", r"from (.*)GhostHead\n"
    new = r"from \1GhostHead\nfrom paradigms.aggregation.identity import Identity\n"
    assert rows_that_a_change_reaches(small_plan, tree, module, old, new) == set()
    assert (
        rows_that_a_change_reaches(small_plan, tree, module, r'"ghost_head"', '"identity": Identity, "ghost_head"')
        == set()
    )


def test_another_row_of_a_level_makes_its_cells_stale(small_plan, tree):
    module = "paradigms/neighborhood/__init__.py"
    changed = rows_that_a_change_reaches(small_plan, tree, module, r'"sliding_window": \w+', '"sliding_window": Other')
    assert changed == {"Net7-N"}


def test_an_index_that_computes_is_code(small_plan, tree):
    module = "paradigms/aggregation/__init__.py"
    old, new = r"ChannelFilter,\n}", "ChannelFilter(),\n}"
    assert rows_that_a_change_reaches(small_plan, tree, module, old, new) == ATTENTION
    assert rows_that_a_change_reaches(small_plan, tree, module, r"\Z", "\nSTD = 0.02\n") == ATTENTION
    assert rows_that_a_change_reaches(small_plan, tree, module, r"STD = 0.02", "STD = 0.03") == ATTENTION


def test_the_digest_depends_on_content_alone(small_plan, tree):
    cell = small_plan.rows[0].cell
    assert code_digest(cell) == code_digest(cell, root=tree)
    assert re.fullmatch("[0-9a-f]{12}", code_digest(cell))


def test_relative_and_late_imports_are_followed(small_plan, tree):
    (tree / "paradigms" / "late.py").write_text("value = 1\n")
    (tree / "paradigms" / "later.py").write_text("value = 2\n")
    backbone = tree / "paradigms" / "backbones" / "swin.py"
    backbone.write_text(
        backbone.read_text() + "\n\ndef use():\n    from .. import late\n    from ..later import value\n"
    )
    reached = reached_modules(small_plan.rows[0].cell, root=tree)
    assert {"paradigms.late", "paradigms.later"} <= set(reached)


def test_floors_reach_no_operator(small_plan):
    floor = next(row for row in small_plan.rows if row.is_floor)
    assert not [module for module in reached_modules(floor.cell) if module.startswith("paradigms")]


def test_the_digest_of_folders_covers_their_code_of_every_language_and_no_words(tree: Path) -> None:
    before = tree_digest("paradigms", root=tree)
    module = tree / "paradigms/aggregation/weighted_sum.py"
    module.write_text(f"# words\n{module.read_text()}")
    header = tree / "paradigms/kernels/native/window.h"
    header.write_text(f"// words\n{header.read_text()}")
    assert tree_digest("paradigms", root=tree) == before
    (tree / "paradigms/kernels/fast.cpp").write_text("int main() {}")
    assert tree_digest("paradigms", root=tree) != before


def test_provenance_names_commit_versions_and_machine():
    found = collect(threads=1)
    assert set(found) == {"commit", "dirty", "python", *provenance.PACKAGES, "device", "threads"}
    assert all(found.values())
    assert (found["threads"], collect(device="NVIDIA H100")["device"]) == ("1", "NVIDIA H100")


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_checkout_is_dirty_when_its_sources_are_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "a.py").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    (tmp_path / "results.md").write_text("written by a run")
    assert collect()["commit"] == git(tmp_path, "rev-parse", "HEAD")
    assert collect()["dirty"] == "false"
    (tmp_path / "harness" / "a.py").write_text("changed = 1")
    assert collect()["dirty"] == "true"


def test_packages_inside_a_foreign_checkout_do_not_take_its_commit(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q")
    installed = tmp_path / "site-packages"
    installed.mkdir()
    monkeypatch.setattr(provenance, "ROOT", installed)
    assert re.fullmatch(r"unknown|elsa-ablation \S+", collect()["commit"])
    assert collect()["dirty"] == "unknown"


def test_records_and_tables_need_neither_torch_nor_mlflow():
    modules = "harness.provenance, harness.statistics, harness.table, harness.tracking"
    check = f"import sys, {modules}; sys.exit(len({{'torch', 'timm', 'mlflow'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("changed", "is_reached"),
    [
        ("outside_levels.py", True),
        ("beside.py", True),
        ("unrelated.py", False),
        ("outside_package/__init__.py", True),
        ("outside_package/deep/part.py", True),
    ],
)
def test_code_from_outside_is_digested(
    changed: str, is_reached: bool, small_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "outside_levels.py": "import beside",
        "beside.py": "from harness import seeding",
        "unrelated.py": "",
        "outside_package/__init__.py": "",
        "outside_package/deep/part.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("outside_levels", "outside_package", "beside"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    modules = frozenset(importlib.import_module(name).__name__ for name in ("outside_levels", "outside_package"))
    monkeypatch.setitem(provenance.FOREIGN, "sliding_window", modules)
    before = {row.name: code_digest(row.cell) for row in small_plan.rows}
    (tmp_path / changed).write_text(f"{files[changed]}\nchanged = 1\n")
    after = {row.name for row in small_plan.rows if code_digest(row.cell) != before[row.name]}
    assert after == ({"Net7-N"} if is_reached else set())
