"""The model of a recipe: data, model sizes and schedule that all rows of a table share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from harness.spec.backbone import Backbone, BackbonesSpec
from harness.spec.data import DataSpec
from harness.spec.field import Channels, Images, Line, Processes, Spec, Text
from harness.spec.framework import FrameworksSpec
from harness.spec.training import LimitsSpec, TrainingSpec


class RecipeSpec(Spec):
    """Data, model sizes and schedule, which all rows of a table share. `name` is the stem of the file at `path`.

    `title` names the data; `summary` adds the number of images and epochs, which `--set` may change.

    `training_of` is the exception: the fields of `training` that differ for some backbones. A note under every table
    lists the rows that are trained differently.

    `frameworks` are the sizes of what tasks such as detection put on a backbone.
    `paper` is the paper that uses this recipe; under other recipes its printed numbers are not compared with ours.
    `workers` is the number of runs that execute at once, unless the command line states it. `note` is shown under every
    table.
    `floor_width` is the width of a network with one hidden layer. Together with a linear classifier, it is trained on
    the same images as a floor. Choose it so that its number of parameters equals the baseline's. None: no floors.
    `device_batch_size` is the number of images of a step that one device (a GPU, or a process on a CPU) holds:
    `harness plan` forecasts the memory that they need. A run has as many processes as that requires, each with a GPU of
    its own; where there are fewer, each accumulates the gradients of several micro-batches. None: all images of a step.
    `processes` is the number of processes of a run; None: on GPUs as many as `device_batch_size` requires, else one.
    `compile` trains the model compiled by torch.compile. `channels_last` is the memory format of its weights and maps.
    These four decide only rounding, random streams in the model, and batch norm: they belong to the environment of a
    run, not to its cell.
    `checkpoint_minutes` is the longest time between two checkpoints within an epoch. Every epoch ends with a
    checkpoint, unless checkpoints would take more than 3 % of the time. `keep_checkpoint` keeps those of a run that
    ended well.
    `init_recipe`, stated by its name, is the recipe whose runs rows with `init_from` start from; other rows are
    skipped. None: every row is trained from scratch.
    """

    name: str
    path: Path | None = None
    title: Line
    note: Text | None = None
    paper: Line | None = None
    workers: Processes = 1
    floor_width: Channels | None = None
    checkpoint_minutes: Annotated[float, Field(gt=0, le=10_000_000)] = 10.0
    keep_checkpoint: bool = False
    device_batch_size: Images | None = None
    processes: Processes | None = None
    compile: bool = False
    channels_last: bool = False
    data: DataSpec
    backbones: BackbonesSpec
    frameworks: FrameworksSpec = FrameworksSpec()
    training: TrainingSpec
    training_of: dict[Backbone, TrainingSpec] = {}
    limits: LimitsSpec = LimitsSpec()
    init_recipe: "RecipeSpec | None" = None

    @property
    def summary(self) -> str:
        """Dataset, number of images and epochs: `Fashion-MNIST, 10,000 images, 8 epochs`."""
        images, epochs = self.data.train_images, self.training.total_epochs
        amount = "all images" if images is None else f"{images:,} images"
        return f"{self.title}, {amount}, {epochs} {'epoch' if epochs == 1 else 'epochs'}"

    @model_validator(mode="before")
    @classmethod
    def _complete_training_of(cls, stated: Any) -> Any:
        """Complete the training of single backbones by the common `training`."""
        shared, own = (stated.get(name) for name in ("training", "training_of"))
        if not isinstance(shared, Mapping) or not isinstance(own, Mapping):
            return stated
        try:
            TrainingSpec.model_validate(shared)
        except ValidationError:  # it is reported for `training`, not again for each backbone
            return {**stated, "training_of": {}}
        complete = {
            name: _merge(shared, changes) if isinstance(changes, Mapping) else changes for name, changes in own.items()
        }
        return {**stated, "training_of": complete}

    @model_validator(mode="after")
    def _check_training_of(self) -> Self:
        sized = [name for name, sizes in self.backbones if sizes is not None]
        idle = [name for name in self.training_of if name not in sized]
        if idle:
            raise ValueError(f"training_of: the recipe has no backbone {', '.join(idle)}; it has {', '.join(sized)}")
        return self

    @model_validator(mode="after")
    def _check_processes(self) -> Self:
        smallest = min(training.batch_size for training in (self.training, *self.training_of.values()))
        if (self.processes or 1) > max(1, smallest // 2):
            raise ValueError(f"processes must not exceed half of batch_size, got {self.processes} and {smallest}")
        return self

    @model_validator(mode="after")
    def _check_floors(self) -> Self:
        if self.floor_width is not None and self.training.token_labels is not None:
            raise ValueError("floors have no tokens: state token_labels under training_of, or floor_width: null")
        if self.floor_width is not None and self.init_recipe is not None:
            raise ValueError("floor_width: floors are trained from scratch, a recipe with init_recipe has none")
        return self


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `changes` into `base`; mappings that both have are merged, too."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
