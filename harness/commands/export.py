"""`harness export`: the model of a run as files that plain timm loads."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import save_for_hf
from torch import nn

import paradigms.models  # registers the names
from harness.data import load_data
from harness.data.memory import MemoryData
from harness.errors import StoreError
from harness.files import temporary_folder
from harness.plugins import list_plugins
from harness.provenance import FOREIGN
from harness.spec import DataSpec, TrainingSpec
from harness.tracking import Tracker
from harness.weights import load_weights

WEIGHTS, CONFIG, README = "model.safetensors", "config.json", "README.md"

_README = """\
# {row}, seed {seed} of {experiment}

Trained by elsa-ablation under the recipe {recipe}, MLflow run `{run_id}`.

```python
import timm
import paradigms.models  # registers {architecture}
{plugins}
model = timm.create_model("local-dir:{folder}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
```

The input is (batch, {channels}, {image_size}, {image_size}); pixels, in [0, 1], less {mean} and divided by {std}. The
output is {num_classes} logits. `model.safetensors` and `config.json` must stay in one folder.
"""


def export_run(tracker: Tracker, run_id: str, folder: Path, data_dir: Path | None) -> list[Path]:
    """Write the weights, the config and a README; they say how to load them.

    Raises:
        StoreError: there is no such run, it has no weights, it is no model of timm's, or the files cannot be written.
        WeightsError: the weights do not fit the model as it is built today.
        DataError: the images, whose statistics belong to the model, are missing.
    """
    with temporary_folder() as place:
        weights = tracker.fetch_file(run_id, "weights.pt", place)
        config = json.loads(tracker.fetch_file(run_id, "config.json", place).read_text())
        name, arguments = to_timm(config)
        model = timm.create_model(name, **arguments)
        load_weights(model, weights)
    data = to_data_config(config, data_dir)
    try:
        return _write(model, arguments, data, folder, _describe(config, run_id, name, folder, data))
    except OSError as error:
        raise StoreError(f"the model cannot be written to {folder}: {error.strerror}") from None


def to_timm(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and arguments for `timm.create_model`, in JSON's types, of a run's resolved config.

    Raises:
        StoreError: the run is of a floor, or of a backbone from outside.
    """
    name = f"attention_{config['backbone']}"
    if name not in paradigms.models.MODELS:
        raise StoreError(f"the backbone of {config['row']} is {config['backbone']}, of which timm knows no model")
    data = config["data"]
    shape = {"img_size": data["image_size"], "in_chans": data["channels"], "num_classes": data["num_classes"]}
    return name, {**config["sizes"], **shape, "num_heads": config["num_heads"], "attention": config["attention"]}


def to_data_config(config: Mapping[str, Any], data_dir: Path | None) -> dict[str, Any]:
    """How images become the model's input, by timm's names."""
    spec = DataSpec.model_validate(config["data"], strict=False)
    training = TrainingSpec.model_validate(config["training"], strict=False)
    data = load_data(spec, training, replicate=config["seed"], data_dir=data_dir, device=torch.device("cpu"))
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    if isinstance(data, MemoryData):
        mean, std = (data.splits.mean,) * spec.channels, (data.splits.std,) * spec.channels
    return {
        "input_size": (spec.channels, spec.image_size, spec.image_size),
        "mean": mean,
        "std": std,
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop_pct,
    }


def _describe(config: Mapping[str, Any], run_id: str, name: str, folder: Path, data: Mapping[str, Any]) -> str:
    shown = {key: config[key] for key in ("row", "seed", "experiment", "recipe")}
    numbers = {key: config["data"][key] for key in ("channels", "image_size", "num_classes")}
    place = {"run_id": run_id, "architecture": name, "folder": folder.name, "plugins": _describe_plugins()}
    return _README.format(**shown, **numbers, **place, mean=list(data["mean"]), std=list(data["std"]))


def _describe_plugins() -> str:
    """What was loaded here must be loaded there first: levels of the operators may be in it."""
    if not FOREIGN:
        return ""
    return f"import harness\n\nharness.load_plugins({', '.join(map(repr, list_plugins()))})\n"


def _write(model: nn.Module, arguments: dict[str, Any], data: dict[str, Any], folder: Path, readme: str) -> list[Path]:
    save_for_hf(model, str(folder), model_args=arguments, safe_serialization=True, data_config=data)
    (folder / README).write_text(readme)
    return [folder / name for name in (WEIGHTS, CONFIG, README)]
