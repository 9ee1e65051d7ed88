"""The wheel holds all that the project needs to run: code, images, experiments."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("harness", "paradigms", "experiments")


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that the checkout stays as it is."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(target))
    run(sys.executable, "-m", "pip", "wheel", *options, str(source), cwd=source)
    (path,) = target.glob("*.whl")
    return path


def test_the_wheel_holds_every_file_of_the_tree(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = (path.relative_to(ROOT) for part in PARTS for path in (ROOT / part).rglob("*") if path.is_file())
    tree = {path.as_posix() for path in files if "__pycache__" not in path.parts}
    assert held == {f"harness/{name}" if name.startswith("experiments/") else name for name in tree}


def test_the_wheel_holds_both_licences(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "harness/data/files/fashion_mnist/LICENSE" in names


def test_an_installed_wheel_plans_a_shipped_experiment_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    environment, empty = tmp_path / "environment", tmp_path / "empty"
    empty.mkdir()
    run(sys.executable, "-m", "venv", "--without-pip", str(environment), cwd=tmp_path)
    python, harness = environment / "bin" / "python", environment / "bin" / "harness"
    install = ("-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    run(sys.executable, *install, cwd=tmp_path)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # only those: its own .pth files are not read
    where = run(str(python), "-c", "import harness; print(harness.__file__)", cwd=empty)
    assert Path(where.strip()).is_relative_to(site)
    plan = run(str(harness), "plan", "experiments/table1.yaml", cwd=empty, OMP_NUM_THREADS="1")
    assert all(row in plan for row in ("Swin-T", "Net1", "Net2", "Net3", "Net4", "Net5", "Net6", "Net7"))
