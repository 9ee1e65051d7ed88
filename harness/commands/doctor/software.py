"""Checks of Python, the packages and the installation of this package."""

import json
import platform
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from harness.commands.doctor.finding import Finding, Level
from harness.provenance import DISTRIBUTION, collect

SETUP = "`make setup`, or `pip install --editable . --constraint constraints.txt`, installs the required versions"


def check_software(root: Path) -> Iterator[Finding]:
    """Check the checkout at `root`, or the installed package if `root` is not a checkout."""
    project = _read_project(root)
    yield _check_python(project)
    yield from _check_packages(project, _read_constraints(root))
    yield _check_installation(project, root)
    yield _check_commit()


def _read_project(root: Path) -> Mapping[str, Any] | None:
    """The project table of pyproject.toml; None outside a checkout."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError):
        return None
    return project if project.get("name") == DISTRIBUTION else None


def _read_constraints(root: Path) -> dict[str, str]:
    """The versions with which results were made, by package."""
    path = root / "constraints.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = (line.partition("#")[0].strip().partition("==") for line in lines)
    return {name: pinned for name, equals, pinned in pairs if equals}


def _check_python(project: Mapping[str, Any] | None) -> Finding:
    wanted = project["requires-python"] if project else _require_installed().metadata["Requires-Python"]
    found = f"{platform.python_version()} at {sys.executable}, {wanted} is required"
    if SpecifierSet(wanted).contains(platform.python_version()):
        return Finding(Level.OK, "python", found)
    return Finding(Level.PROBLEM, "python", found, "make a new environment: `make clean setup PYTHON=...`")


def _require_installed() -> Distribution:
    return distribution(DISTRIBUTION)


def _check_packages(project: Mapping[str, Any] | None, pinned: Mapping[str, str]) -> Iterator[Finding]:
    stated = project["dependencies"] if project else _require_installed().requires or ()
    requirements = [Requirement(text) for text in stated]
    wanted = [needed for needed in requirements if needed.marker is None or needed.marker.evaluate({"extra": ""})]
    wrong = [text for needed in wanted if (text := _find_fault(needed))]
    if wrong:
        yield Finding(Level.PROBLEM, "packages", "; ".join(wrong), SETUP)
    else:
        yield Finding(Level.OK, "packages", f"all {len(wanted)} dependencies are installed in the required versions")
    others = {name: found for name, want in pinned.items() if (found := _find_version(name)) not in (None, want)}
    if others:
        listed = ", ".join(f"{name} {found} (not {pinned[name]})" for name, found in others.items())
        advice = "numbers may differ in the last digits from committed results; " + SETUP
        yield Finding(Level.WARNING, "versions", f"versions differ from constraints.txt: {listed}", advice)
    elif pinned:
        yield Finding(
            Level.OK, "versions", "the versions in constraints.txt, which the committed results were made with"
        )


def _find_fault(needed: Requirement) -> str:
    """The problem of a package; empty if there is none."""
    found = _find_version(needed.name)
    if found is None:
        return f"{needed.name} is missing"
    return "" if needed.specifier.contains(found, prereleases=True) else f"{needed} is required, found {found}"


@cache
def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _check_installation(project: Mapping[str, Any] | None, root: Path) -> Finding:
    """Compare the installed metadata of this package with its folder."""
    try:
        installed = _require_installed()
    except PackageNotFoundError:
        return Finding(Level.WARNING, "installation", f"{root} is used without being installed", SETUP)
    if project is None:
        return Finding(Level.OK, "installation", f"{DISTRIBUTION} {installed.version} in {root}")
    place = _find_editable(installed)
    if place != root:
        where = "a copy" if place is None else str(place)
        found = f"this is {root}, but the `harness` that is installed is {where}"
        return Finding(Level.WARNING, "installation", found, f"in {root}: {SETUP}")
    changed = _compare(project, installed)
    if changed:
        found = f"older than pyproject.toml: {', '.join(changed)}"
        return Finding(Level.WARNING, "installation", found, f"install again: {SETUP}")
    return Finding(Level.OK, "installation", f"editable, as {root / 'pyproject.toml'} says")


def _find_editable(installed: Distribution) -> Path | None:
    """The folder of an editable installation."""
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlsplit(origin["url"]).path))


def _compare(project: Mapping[str, Any], installed: Distribution) -> list[str]:
    """The changes of pyproject.toml since the package was installed."""
    stated = {str(Requirement(text)) for text in project["dependencies"]}
    known = {
        str(needed) for text in installed.requires or () if "extra" not in str((needed := Requirement(text)).marker)
    }
    scripts = {point.name: point.value for point in installed.entry_points if point.group == "console_scripts"}
    pairs = {
        "version": (project["version"], installed.version),
        "dependencies": (stated, known),
        "commands": (project["scripts"], scripts),
        "extras": (set(project["optional-dependencies"]), set(installed.metadata.get_all("Provides-Extra") or ())),
    }
    return [name for name, (now, then) in pairs.items() if now != then]


def _check_commit() -> Finding:
    """Warn of uncommitted changes, since the numbers of a run could not be reproduced."""
    found = collect()
    if found["dirty"] == "true":
        advice = "commit before runs whose numbers you keep: the store records only that there were changes"
        return Finding(Level.WARNING, "sources", f"commit {found['commit'][:12]} with uncommitted changes", advice)
    return Finding(Level.OK, "sources", found["commit"])
