"""The wheel holds all that the project needs to run: code, images, experiments."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_packages

ROOT = Path(__file__).parents[1]
PARTS = ("harness", "paradigms", "experiments")


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


LIBRARY = "paradigms/kernels/_native.so"


def build_wheel(folder: Path, **environment: str) -> Path:
    """The wheel, built from a copy so that the checkout stays as it is."""
    source, target = folder / "source", folder / "wheel"
    for part in PARTS:
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(target))
    run(sys.executable, "-m", "pip", "wheel", *options, str(source), cwd=source, **environment)
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the compiled kernels of one instruction set, which takes less time than all.

    A warning of the optimizing compiler is an error, without which the wheel would lack the library.
    """
    flags = {"PARADIGMS_INSTRUCTION_SETS": "baseline", "CXXFLAGS": "-Werror"}
    return build_wheel(tmp_path_factory.mktemp("wheel"), **flags)


def list_tree() -> set[str]:
    """Every file that the wheel must hold, with the library, which need not be built here."""
    files = (path.relative_to(ROOT) for part in PARTS for path in (ROOT / part).rglob("*") if path.is_file())
    return {path.as_posix() for path in files if "__pycache__" not in path.parts} | {LIBRARY}


def test_every_file_of_the_tree_is_code_or_data_of_a_package() -> None:
    """By what pyproject.toml says; the slow tests look into the wheel."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    names = [*find_packages(str(ROOT), include=["harness*", "paradigms*"]), *settings["package-dir"]]
    folders = {name: ROOT / settings["package-dir"].get(name, name.replace(".", "/")) for name in names}
    patterns = {name: ["*.py", *settings["package-data"].get(name, [])] for name in folders}
    found = (path for name, folder in folders.items() for pattern in patterns[name] for path in folder.glob(pattern))
    assert {path.relative_to(ROOT).as_posix() for path in found if path.is_file()} | {LIBRARY} == list_tree()


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_tree(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == {f"harness/{name}" if name.startswith("experiments/") else name for name in list_tree()}


@pytest.mark.slow
def test_the_wheel_serves_every_python_on_its_platform(wheel: Path) -> None:
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")


@pytest.mark.slow
def test_without_a_compiler_the_wheel_lacks_the_compiled_kernels_alone(tmp_path: Path, wheel: Path) -> None:
    poor = build_wheel(tmp_path, CC="no-such-compiler", CXX="no-such-compiler")
    assert set(zipfile.ZipFile(wheel).namelist()) - set(zipfile.ZipFile(poor).namelist()) == {LIBRARY}


@pytest.mark.slow
def test_the_wheel_holds_both_licences(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "harness/data/files/fashion_mnist/LICENSE" in names


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment in which the wheel is all that there is of the project."""
    environment = tmp_path_factory.mktemp("installed") / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", str(environment), cwd=wheel.parent)
    python = environment / "bin" / "python"
    install = ("-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    run(sys.executable, *install, cwd=wheel.parent)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # only those: its own .pth files are not read
    where = run(str(python), "-c", "import harness; print(harness.__file__)", cwd=environment)
    assert Path(where.strip()).is_relative_to(site)
    return environment / "bin"


@pytest.mark.slow
def test_an_installed_wheel_plans_a_shipped_experiment_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    sets = "from paradigms.kernels import cpu; print(cpu.list_instruction_sets())"
    assert run(str(installed / "python"), "-c", sets, cwd=tmp_path, OMP_NUM_THREADS="1").strip() == "('baseline',)"
    plan = run(str(installed / "harness"), "plan", "experiments/table1.yaml", cwd=tmp_path, OMP_NUM_THREADS="1")
    assert all(row in plan for row in ("Swin-T", "Net1", "Net2", "Net3", "Net4", "Net5", "Net6", "Net7"))


@pytest.mark.slow
def test_an_installed_wheel_starts_a_study_in_an_empty_folder(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run(str(installed / "harness"), "init", cwd=tmp_path)
    shipped = {path.relative_to(ROOT) for path in (ROOT / "experiments").rglob("*.yaml")}
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()} == shipped
    small = ("--recipe", "smoke", "--seeds", "1", "--set", "floor_width=null", "training.epochs=1")
    run(str(installed / "harness"), "run", "experiments/table6.yaml", *small, cwd=tmp_path, OMP_NUM_THREADS="1")
    assert (tmp_path / "mlflow.db").is_file()
    assert list((tmp_path / "results").rglob("table6.csv"))


def list_required(*names: str) -> set[str]:
    """These distributions and all that they require, by canonical name; what is not installed is left out."""
    found, left = set[str](), [canonicalize_name(name) for name in names]
    while left:
        name = left.pop()
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        needed = [
            requirement
            for requirement in map(Requirement, lines)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ]
        left += [
            canonicalize_name(requirement.name)
            for requirement in needed
            if canonicalize_name(requirement.name) not in found
        ]
    return found


OPERATOR_ALONE = """
import sys
sys.modules.update(dict.fromkeys({missing}))  # importing them fails
import timm, torch
import paradigms, paradigms.laws, paradigms.models, paradigms.plugins
attention = paradigms.build_attention("elsa", dim=32, num_heads=2)
assert attention(torch.ones(1, 8, 8, 32)).shape == (1, 8, 8, 32)
timm.create_model("net7_swin_tiny")
"""


@pytest.mark.slow
def test_paradigms_needs_torch_timm_and_jaxtyping_alone(tmp_path: Path) -> None:
    """Every module of another distribution is made impossible to import, those of the harness included."""
    present = list_required("torch", "timm", "jaxtyping")
    assert "mlflow" not in present
    modules = metadata.packages_distributions().items()
    missing = [name for name, owners in modules if present.isdisjoint(map(canonicalize_name, owners))]
    missing = sorted({*missing, "harness"} - {"paradigms", *sys.stdlib_module_names})
    assert {"mlflow", "pandas", "scipy", "harness"} <= set(missing)
    run(sys.executable, "-c", OPERATOR_ALONE.format(missing=missing), cwd=tmp_path, PYTHONPATH=str(ROOT))
