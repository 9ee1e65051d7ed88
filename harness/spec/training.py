"""The training of a recipe: optimizer, schedule, augmentation and limits."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, model_validator

from harness.spec.data import AugmentationSpec
from harness.spec.field import Epochs, EpochsOrNone, Images, Probability, Side, Spec
from harness.spec.timm_names import check_optimizer


class TokenLabelsSpec(Spec):
    """Token labeling (arXiv:2104.10858): every token has its own target, read from the label map of its image.

    The label maps are in `label_maps/` in the folder of the data. The backbone needs a head over all tokens.

    Attributes:
        grid: tokens per side of the map that the head gets.
        weight: weight of the mean loss of the tokens; that of the image has weight 1.
        mix_token: alpha of the Beta distribution from which MixToken draws the area that is not replaced; 0 is off.
    """

    grid: Side
    weight: PositiveFloat = 0.5
    mix_token: NonNegativeFloat = 1.0


class TrainingSpec(Spec):
    """How a run is trained; durations are in epochs, and `harness.optim` converts them to steps.

    Attributes:
        opt: timm's name of the optimizer.
        lr: the peak learning rate, for `lr_base_size` images per step if that is given.
        lr_base_size: scales `lr`, `warmup_lr` and `min_lr` linearly with `batch_size`; None: they are not scaled.
        epochs: epochs of warm-up and cosine, without the cool-down.
        cooldown_epochs: further epochs at `min_lr`.
        warmup_lr: the learning rate at the start of the warm-up.
        schedule_unit: how often the learning rate changes: after every `step`, or after every `epoch`.
        clip_grad: largest norm of all gradients; None: no clipping.
        smoothing: label smoothing.
        position_decay: whether weight decay includes position tables.
        ema_decay: evaluates an exponential moving average of the weights, whose decay rises to this number during
            training; None: evaluates the weights themselves.
        precision: precision of the forward and backward pass, by torch's names; the weights are float32. `bfloat16` and
            `float16` are automatic mixed precision, the latter with loss scaling.
        augmentation: random changes of the images.
        token_labels: token labeling; None: only the class of the image is trained.
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
        """All epochs, including the cool-down."""
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
    """Limits of a run; beyond them, it ends as `timed_out` or `out_of_memory`. None: no limit."""

    time_limit_minutes: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    memory_limit_gb: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
