"""Loads plug-ins: levels, datasets, tasks and columns from entry points, modules or files.

An entry point is of the group `elsa_ablation.<room>` and called like its level. A module lists its levels as the rooms
do: `NORMALIZATIONS = {"mine": Mine}`. Torch is imported where there is something to load, not before.
"""

import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from harness.data import DATASETS
from harness.data.family import Family
from harness.errors import PluginError
from harness.measure import Measure
from harness.project import read_project
from harness.provenance import FOREIGN
from harness.spec import BackboneSpec, BackbonesSpec, PublishedSpec, add_backbone, add_level_fields
from harness.spec.data import DATASETS as DATASET_NAMES
from harness.spec.experiment import COLUMNS
from harness.tasks import TASKS, Task
from paradigms.config import LEVELS
from paradigms.facts import ROOMS

T = TypeVar("T")

GROUP = "elsa_ablation"
MAPPINGS = {
    "parameterization": "PARAMETERIZATIONS",
    "normalization": "NORMALIZATIONS",
    "neighborhood": "NEIGHBORHOODS",
    "aggregation": "AGGREGATIONS",
    "backbone": "BACKBONES",
    "dataset": "DATASETS",
    "task": "TASKS",
    "column": "COLUMNS",
}
"""What a module calls its levels of each room."""

IMPORT_ERRORS = (ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError, LookupError, OSError)
"""What goes wrong when a module with a mistake is imported."""

_loaded: dict[str, None] = {}


def load_plugins(*plugins: str | Path) -> None:
    """Make the levels of installed packages known, and those of modules or files; again is nothing new.

    Args:
        plugins: modules by their import names, or files ending in `.py`.

    Raises:
        PluginError: a plugin cannot be imported, lists nothing, or a level of it cannot be used.
    """
    installed = entry_points()
    for room in MAPPINGS:
        for point in installed.select(group=f"{GROUP}.{room}"):
            _add(room, point.name, _guard(point.value, point.load), importlib.import_module(point.module))
    for plugin in plugins:
        _load_module(str(plugin))


def load_project_plugins() -> None:
    """Load the plug-ins that `harness.yaml` of the project names.

    Raises:
        SpecError: a mistake in the file, or a plug-in of it cannot be loaded; with its place.
    """
    project = read_project()
    for number, plugin in enumerate(project.spec.plugins if project else ()):
        assert project is not None
        try:
            load_plugins(project.locate(plugin))
        except PluginError as error:
            raise project.file.error(str(error), "plugins", number) from error


def list_plugins() -> tuple[str, ...]:
    """The modules that were loaded by name or file, in order: what another process must load."""
    return tuple(_loaded)


def _load_module(plugin: str) -> None:
    module = _guard(plugin, lambda: _import(plugin))
    stated = {room: getattr(module, mapping) for room, mapping in MAPPINGS.items() if hasattr(module, mapping)}
    if not any(stated.values()):
        raise PluginError(f"plugin {plugin} lists no level; it must have one of {', '.join(MAPPINGS.values())}")
    for room, levels in stated.items():
        if not isinstance(levels, Mapping):
            raise PluginError(f"plugin {plugin}: {MAPPINGS[room]} must map names to levels, got {levels!r}")
        for name, level in levels.items():
            _add(room, name, level, module)
    _loaded.setdefault(module.__name__)


def _import(plugin: str) -> ModuleType:
    """A module, or a file as `python FILE` sees it: its folder is where its imports are looked for, last of all."""
    path = Path(plugin)
    if path.suffix != ".py":
        return importlib.import_module(plugin)
    if not path.is_file():
        raise ImportError("no such file")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    module = importlib.import_module(path.stem)
    if module.__file__ is None or not path.samefile(module.__file__):
        raise ImportError(f"there is another module {path.stem!r}, {module.__file__}; give the file another name")
    return module


def _guard(plugin: str, load: Callable[[], T]) -> T:
    """Turn whatever is wrong with a module into one message."""
    try:
        return load()
    except IMPORT_ERRORS as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = "" if isinstance(error, ImportError | SyntaxError) else f" ({last.filename}:{last.lineno})"
        raise PluginError(f"plugin {plugin} cannot be imported: {type(error).__name__}: {error}{place}") from error


def _add(room: str, name: str, level: Any, module: ModuleType) -> None:
    from paradigms.plugins import add_level

    try:
        if room == "column":
            _add_column(name, level)
            return  # no run depends on it
        if name not in FOREIGN and (name in LEVELS or name in DATASETS or name in TASKS):
            raise ValueError(f"{room} {name!r}: a level or dataset of this name exists already; choose another name")
        if room == "dataset":
            _add_dataset(name, level)
        elif room == "task":
            _add_task(name, level)
        elif room == "backbone":
            _add_backbone(name, level)
        else:
            add_level(room, name, level)
            add_level_fields(ROOMS[room][name].fields)
    except ValueError as error:
        raise PluginError(f"plugin {module.__name__}: {error}") from None
    FOREIGN[name] = FOREIGN.get(name, frozenset()) | {module.__name__, _find_module(level)}


def _add_dataset(name: str, family: Family) -> None:
    from paradigms.plugins import check_needs, list_needs

    check_needs(f"dataset {name!r}", family, list_needs(Family))
    if DATASETS.setdefault(name, family) is not family:
        raise ValueError(f"dataset {name!r} exists already; choose another name")
    if name not in DATASET_NAMES:
        DATASET_NAMES.append(name)


def _add_task(name: str, task: Any) -> None:
    """A task lists measures whose names are free to be columns of a table."""
    if not isinstance(task, Task):
        raise ValueError(f"task {name!r} must be an instance of a subclass of harness.tasks.Task, got {task!r}")
    measures = getattr(task, "measures", ())
    if not measures or not all(isinstance(measure, Measure) for measure in measures):
        raise ValueError(f"task {name!r} must have `measures`, one harness.measure.Measure or more, got {measures!r}")
    names = [measure.name for measure in measures]
    taken = [each for each in names if each in (*COLUMNS, *PublishedSpec.model_fields) or not each.isidentifier()]
    if taken or len(set(names)) < len(names):
        raise ValueError(f"task {name!r}: each measure needs a name that no other column has, got {names}")
    if TASKS.setdefault(name, task) is not task:
        raise ValueError(f"task {name!r} exists already; choose another name")


def _add_column(name: str, column: Any) -> None:
    """A column has a name that no other one has; by its key an experiment asks for it."""
    from harness.table import COLUMNS as ADDED
    from harness.table import Column, make_columns

    if not isinstance(column, Column) or column.name != name:
        raise ValueError(f"column {name!r} must be a harness.table.Column of this name, got {column!r}")
    taken = (each.name for task in TASKS.values() for each in make_columns(task.measures, baseline=""))
    if ADDED.get(name) is not column and name in taken:
        raise ValueError(f"column {name!r} exists already; choose another name")
    ADDED[name] = column
    if column.key and column.key not in COLUMNS:
        COLUMNS.append(column.key)


def _add_backbone(name: str, backbone: Any) -> None:
    """A recipe gives sizes to a backbone, so that it brings a spec of them."""
    from harness.floors import FLOORS
    from paradigms.plugins import add_level

    if name not in FOREIGN and (name in BackbonesSpec.model_fields or name in FLOORS):
        raise ValueError(f"backbone {name!r} exists already; choose another name")
    sizes = getattr(backbone, "sizes", None)
    if not (isinstance(sizes, type) and issubclass(sizes, BackboneSpec) and getattr(sizes, "family", None) == name):
        raise ValueError(
            f"backbone {name!r} must have `sizes`, a subclass of harness.spec.BackboneSpec whose family is its name, "
            f"got {sizes!r}"
        )
    add_level("backbone", name, backbone)
    add_backbone(name, sizes)


def _find_module(level: Any) -> str:
    """Where the code of a level is, which may be listed elsewhere."""
    return level.__name__ if isinstance(level, ModuleType) else str(level.__module__)
