"""The training of a recipe: optimizer, schedule, augmentation and limits."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, model_validator

from harness.spec.data import AugmentationSpec
from harness.spec.field import Epochs, EpochsOrNone, Images, Probability, Side, Spec
from harness.spec.timm_names import check_optimizer


class TokenLabelsSpec(Spec):
    """Token labeling (arXiv:2104.10858): every token learns classes of its own, read from the label map of its image.

    The label maps lie in `label_maps/` of the data's folder. Needs a backbone with a head over all tokens.

    Attributes:
        grid: tokens a side of the map that the head sees.
        weight: of the tokens' mean loss, beside that of the image.
        mix_token: alpha of the Beta distribution from which MixToken draws the area that it leaves in place; 0 is off.
    """

    grid: Side
    weight: PositiveFloat = 0.5
    mix_token: NonNegativeFloat = 1.0


class TrainingSpec(Spec):
    """How a run is trained; every duration is in epochs and becomes steps in `harness.optim`.

    Attributes:
        opt: timm's name of the optimizer.
        lr: the peak learning rate, at `lr_base_size` images a step where that is given.
        lr_base_size: scales `lr`, `warmup_lr` and `min_lr` linearly with `batch_size`; None: they stay as stated.
        epochs: warm-up and cosine, without the cool-down.
        cooldown_epochs: further epochs at `min_lr`.
        warmup_lr: where warm-up starts.
        schedule_unit: how often the learning rate changes: after every `step`, or after every `epoch`.
        clip_grad: largest norm of all gradients; None: no clipping.
        smoothing: label smoothing.
        position_decay: weight decay of position tables too.
        ema_decay: evaluates an exponential moving average of the weights, whose decay rises to this number as the steps
            become many; None: the weights themselves.
        precision: of the forward pass and its gradients, by torch's names; the weights are float32. `bfloat16` and
            `float16` are automatic mixed precision, the latter with loss scaling.
        augmentation: random changes of the images.
        token_labels: what the tokens are trained on; None: the class of the image alone is learned.
    """

    former_keys = {"amp": "precision; `amp: true` was `precision: float16` on a GPU, `bfloat16` on a CPU"}

    opt: Annotated[str, AfterValidator(check_optimizer)] = "adamw"
    lr: PositiveFloat
    lr_base_size: Images | None = None
    batch_size: Images
    weight_decay: NonNegativeFloat = 0.05
    position_decay: bool = False
    epochs: Epochs
    warmup_epochs: NonNegativeFloat = 0.0
    cooldown_epochs: EpochsOrNone = 0
    warmup_lr: NonNegativeFloat = 0.0
    min_lr: NonNegativeFloat = 0.0
    schedule_unit: Literal["step", "epoch"] = "step"
    clip_grad: PositiveFloat | None = None
    smoothing: Probability = 0.0
    ema_decay: Probability | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    augmentation: AugmentationSpec = AugmentationSpec()
    token_labels: TokenLabelsSpec | None = None

    @model_validator(mode="after")
    def _check_mixing(self) -> Self:
        mixed = [name for name in ("mixup", "cutmix") if getattr(self.augmentation, name) > 0]
        if self.token_labels is not None and mixed:
            raise ValueError(
                f"token_labels have MixToken in place of mixup and cutmix: set augmentation.{mixed[0]} to 0"
            )
        return self

    @property
    def total_epochs(self) -> int:
        """All that are trained, those of the cool-down too."""
        return self.epochs + self.cooldown_epochs

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs must not exceed epochs, got {self.warmup_epochs} of {self.epochs}")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr must not exceed lr, got {self.min_lr} and {self.lr}")
        if self.warmup_epochs and self.warmup_lr > self.lr:
            raise ValueError(f"warmup_lr must not exceed lr, got {self.warmup_lr} and {self.lr}")
        if self.schedule_unit == "epoch" and self.warmup_epochs and not self.warmup_lr:
            raise ValueError("schedule_unit 'epoch' needs a warmup_lr above 0: the first epoch is trained with it")
        return self


class LimitsSpec(Spec):
    """What a run may use; beyond it the run ends as `timed_out` or `out_of_memory`. None: no limit."""

    time_limit_minutes: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    memory_limit_gb: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
