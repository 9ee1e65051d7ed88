"""The model of a recipe: data, model sizes and schedule that all rows of a table share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from harness.spec.backbone import Backbone, BackbonesSpec
from harness.spec.data import DataSpec
from harness.spec.field import Channels, Images, Line, Processes, Spec, Text
from harness.spec.training import LimitsSpec, TrainingSpec


class RecipeSpec(Spec):
    """Data, model sizes and schedule: what every row of a table shares. `name` is the stem of the file at `path`.

    `title` names the data; `summary` adds the number of images and epochs, which `--set` may change.

    `training_of` is the exception: for a backbone that is trained otherwise, the fields of `training` that differ. What
    rows these are stands under every table.

    `paper` is the paper whose own recipe this is: under others its printed numbers are not compared with ours.
    `workers` is how many runs execute at once when the command line does not say. `note` stands under every table.
    `floor_width` is the hidden width of the network with one hidden layer that, beside a linear classifier, is trained
    on the same images as a floor: choose it so that its parameters equal the baseline's. None: no floors.
    `device_batch_size` is how many images of a step one GPU is meant to hold: `harness plan` forecasts the memory that
    they need. None: no forecast. It changes nothing that is trained.
    `checkpoint_minutes` is the longest time between two checkpoints within an epoch; every epoch ends with one, unless
    checkpoints would take more than 3 % of the time. `keep_checkpoint` keeps those of a run that ended well.
    `init_recipe`, in a file its name, is the recipe whose runs rows with `init_from` start from; rows without are
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
    data: DataSpec
    backbones: BackbonesSpec
    training: TrainingSpec
    training_of: dict[Backbone, TrainingSpec] = {}
    limits: LimitsSpec = LimitsSpec()
    init_recipe: "RecipeSpec | None" = None

    @property
    def summary(self) -> str:
        """What is trained on and for how long: `Fashion-MNIST, 10,000 images, 8 epochs`."""
        images, epochs = self.data.train_images, self.training.total_epochs
        amount = "all images" if images is None else f"{images:,} images"
        return f"{self.title}, {amount}, {epochs} {'epoch' if epochs == 1 else 'epochs'}"

    @model_validator(mode="before")
    @classmethod
    def _complete_training_of(cls, stated: Any) -> Any:
        """What a backbone's training does not state is that of all."""
        shared, own = (stated.get(name) for name in ("training", "training_of"))
        if not isinstance(shared, Mapping) or not isinstance(own, Mapping):
            return stated
        try:
            TrainingSpec.model_validate(shared)
        except ValidationError:  # is told where it stands, not once more for each backbone
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
    def _check_floors(self) -> Self:
        if self.floor_width is not None and self.training.token_labels is not None:
            raise ValueError("floors have no tokens: state token_labels under training_of, or floor_width: null")
        if self.floor_width is not None and self.init_recipe is not None:
            raise ValueError("floor_width: floors are trained from scratch, a recipe with init_recipe has none")
        return self


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what `changes` replace; of a mapping in both they replace only what they state."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
