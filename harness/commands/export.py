"""`harness export`: the model of a run as files that `timm.create_model` loads."""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import save_for_hf
from torch import nn

import paradigms.models  # noqa: F401 - registers the names
from harness.build import to_arguments
from harness.cell import Cell
from harness.data import DATASETS, load_data
from harness.data.family import Statistics
from harness.data.memory import MemoryData
from harness.errors import PluginError, StoreError
from harness.files import temporary_folder
from harness.floors import FLOORS
from harness.plugins import list_plugins
from harness.provenance import FOREIGN, code_digest, list_foreign
from harness.tracking import Tracker
from harness.weights import load_weights

ADVICE = "name its plug-in by --plugin, or by plugins in harness.yaml"

WEIGHTS, CONFIG, README = "model.safetensors", "config.json", "README.md"

_README = """\
# {row}, seed {seed} of {experiment}

Trained by elsa-ablation under the recipe {recipe}, MLflow run `{run_id}`.

```python
import timm
import paradigms.models  # registers names in timm

folder = {folder!r}  # where this file lies
{plugins}
model = timm.create_model(f"local-dir:{{folder}}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
```

The input is (batch, {channels}, {image_size}, {image_size}); pixels, in [0, 1], less {mean} and divided by {std}. The
output is {num_classes} logits. `model.safetensors` and `config.json` must stay in one folder. The packages `timm` and
`elsa-ablation` are needed.
"""

_LOAD_PLUGINS = """
import sys
import harness

sys.path.append(folder)
harness.load_plugins({modules})  # levels that are no part of elsa-ablation
"""


@dataclass(frozen=True)
class Exported:
    """The written files.

    Attributes:
        warnings: warnings about the model.
    """

    files: tuple[Path, ...]
    warnings: tuple[str, ...] = ()


def export_run(tracker: Tracker, run_id: str, folder: Path, data_dir: Path | None) -> Exported:
    """Write the weights, the config, a README that explains how to load them, and the code of required plug-ins.

    Images are read only for a dataset of a plug-in that does not state its statistics.

    Raises:
        StoreError: there is no such run, it has no weights, it is not a model of timm, or the files cannot be written.
        PluginError: the backbone of the run, or a level of its operators, is unknown.
        WeightsError: the weights do not fit the model as the present code builds it.
        DataError: the images are missing, but needed for the statistics of the model's input.
    """
    with temporary_folder() as place:
        weights = tracker.fetch_file(run_id, "weights.pt", place)
        config = json.loads(tracker.fetch_file(run_id, "config.json", place).read_text(encoding="utf-8"))
        cell = _read_cell(config)
        name, arguments = to_timm(cell)
        model = timm.create_model(name, **arguments)
        load_weights(model, weights)
    data = to_data_config(cell, config["seed"], data_dir)
    plugins = _find_plugins(cell)
    readme = _describe(config, run_id, folder, data, plugins)
    try:
        files = (*_write(model, arguments, data, folder, readme), *_copy_code(cell, plugins, folder))
    except OSError as error:
        raise StoreError(f"the model cannot be written to {folder}: {error.strerror}") from None
    return Exported(files, _list_warnings(tracker, run_id, cell))


def _read_cell(config: Mapping[str, Any]) -> Cell:
    """The cell of a run with a model of timm.

    Raises:
        StoreError: the run is that of a floor, or has a framework on its backbone.
        PluginError: one of its levels is unknown.
    """
    if config["backbone"] in FLOORS:
        raise StoreError(f"the backbone of {config['row']} is {config['backbone']}, which is not a model of timm")
    if config.get("framework") is not None:
        name = config["framework"]["name"]
        raise StoreError(f"the model of {config['row']} is a {name} on its backbone, which is not a model of timm")
    try:
        return Cell.from_dict(config)
    except ValueError as error:
        raise PluginError(f"the run's config cannot be read here: {error}; if a plug-in has it, {ADVICE}") from None


def to_timm(cell: Cell) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a cell's model for `timm.create_model`; operators are plain dicts."""
    return f"attention_{cell.backbone}", {**to_arguments(cell), "attention": cell.to_dict()["attention"]}


def to_data_config(cell: Cell, seed: int, data_dir: Path | None) -> dict[str, Any]:
    """The preprocessing of images, by timm's names."""
    spec = cell.data
    found = _find_statistics(cell, seed, data_dir)
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    if found is not None:
        mean, std = (found[0],) * spec.channels, (found[1],) * spec.channels
    return {
        "input_size": (spec.channels, spec.image_size, spec.image_size),
        "mean": mean,
        "std": std,
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop_pct,
    }


def _find_statistics(cell: Cell, seed: int, data_dir: Path | None) -> Statistics:
    """The statistics that the dataset states; a dataset of a plug-in that states none is loaded to compute them."""
    family = DATASETS[cell.data.name]
    if hasattr(family, "statistics"):
        stated: Statistics = family.statistics
        return stated
    data = load_data(cell.data, cell.training, replicate=seed, data_dir=data_dir, device=torch.device("cpu"))
    return (data.splits.mean, data.splits.std) if isinstance(data, MemoryData) else None


def _find_plugins(cell: Cell) -> tuple[str, ...]:
    """The plug-ins of the backbone and of levels of the operators, in the order in which they were loaded."""
    levels = {cell.backbone}.union(*(config.levels() for config in cell.operators()))
    used = {module for level in levels for module in FOREIGN.get(level, ())}
    return tuple(name for name in list_plugins() if name in used)


def _describe(
    config: Mapping[str, Any], run_id: str, folder: Path, data: Mapping[str, Any], plugins: Sequence[str]
) -> str:
    shown = {key: config[key] for key in ("row", "seed", "experiment", "recipe")}
    numbers = {key: config["data"][key] for key in ("channels", "image_size", "num_classes")}
    code = _LOAD_PLUGINS.format(modules=", ".join(map(repr, plugins))) if plugins else ""
    place = {"run_id": run_id, "folder": str(folder), "plugins": code}
    return _README.format(**shown, **numbers, **place, mean=list(data["mean"]), std=list(data["std"]))


def _write(model: nn.Module, arguments: dict[str, Any], data: dict[str, Any], folder: Path, readme: str) -> list[Path]:
    save_for_hf(model, str(folder), model_args=arguments, safe_serialization=True, data_config=data)
    (folder / README).write_text(readme, encoding="utf-8")
    (folder / WEIGHTS).chmod((folder / README).stat().st_mode)  # safetensors makes it readable for the owner only
    return [folder / name for name in (WEIGHTS, CONFIG, README)]


def _copy_code(cell: Cell, plugins: Sequence[str], folder: Path) -> list[Path]:
    """Copy the files of plug-ins that are not installed, with their relative paths."""
    copied = []
    for home in {_find_home(name) for name in plugins}:
        if any(home.glob("*.dist-info")):
            continue
        for path in list_foreign(cell):
            if path.is_relative_to(home):
                place = folder / path.relative_to(home)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
                copied.append(place)
    return copied


def _find_home(module: str) -> Path:
    """The folder from which a module, or its package, is imported."""
    top = sys.modules[module.partition(".")[0]]
    assert top.__file__ is not None
    folder = Path(top.__file__).parent
    return folder.parent if hasattr(top, "__path__") else folder


def _list_warnings(tracker: Tracker, run_id: str, cell: Cell) -> tuple[str, ...]:
    """A warning if the run used older code: the model that the present code builds may compute something else."""
    found = next((run for run in tracker.find_runs(run_id) if run.run_id == run_id), None)
    if found is None or found.record is None or found.record.provenance.get("code_digest") == code_digest(cell):
        return ()
    return (f"run {run_id} is stale, code has changed since it was trained: its model may compute other numbers",)
