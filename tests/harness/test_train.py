import copy
import io
import json
import math
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from harness.build import build_model
from harness.data import load_data
from harness.data.memory import MemoryData, Splits
from harness.errors import Cause, Diverged
from harness.floors import build_mlp
from harness.plan import make_plan
from harness.ranks import Ranks
from harness.reading import load_spec
from harness.record import EpochMetrics
from harness.spec import AugmentationSpec, DataSpec, TrainingSpec
from harness.tasks.classification import CLASSIFICATION
from harness.train import Training
from tests.pictures import draw_bars

CPU = torch.device("cpu")
AUGMENTATION = AugmentationSpec(hflip=0.5, shift=1, reprob=0.25)
EVERYTHING = {"smoothing": 0.1, "clip_grad": 5.0, "warmup_epochs": 0.5, "augmentation": AUGMENTATION}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _training(**values: object) -> TrainingSpec:
    return TrainingSpec.model_validate({"lr": 1e-2, "batch_size": 10, "epochs": 4, **values})


def _start(model: nn.Module | None = None, **values: object) -> Training:
    training = _training(**values)
    spec = DataSpec(name="bars", num_classes=4, channels=1, image_size=8, val_images=100)
    splits = Splits(draw_bars(200, seed=0), draw_bars(100, seed=1), draw_bars(100, seed=2), mean=0.4, std=0.25)
    data = MemoryData(spec, training, splits, digest="0", replicate=0, device=CPU)
    return Training(model or _with_dropout(), data, training, task=CLASSIFICATION, replicate=0, ranks=Ranks(CPU))


def _with_dropout() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(build_mlp((1, 8, 8), 16, width=16), nn.Dropout(0.1), nn.Linear(16, 4))


def _curve(**values: object) -> list[dict[str, float]]:
    """What is the same in every repetition of a run."""
    return [
        {name: value for name, value in epoch.metrics.items() if "second" not in name} for epoch in _start(**values)
    ]


def test_a_model_learns_and_says_how_it_goes() -> None:
    training = _start(**EVERYTHING)
    curve = list(training)
    assert [epoch.epoch for epoch in curve] == [1, 2, 3, 4]
    assert [epoch.step for epoch in curve] == [20, 40, 60, 80]
    assert set(curve[0].metrics) == {
        "train/loss",
        "train/lr",
        "train/seconds",
        "train/images_per_second",
        "val/top1",
        "val/top5",
        "val/loss",
        "val/seconds",
    }
    assert curve[-1].metrics["val/top1"] > 90
    assert curve[-1].metrics["train/lr"] == pytest.approx(0, abs=1e-9)
    tested = CLASSIFICATION.evaluate(training.evaluated_model, training.data.test_batches(), Ranks(CPU))
    assert tested.scores["top1"] > 90


@pytest.mark.slow
def test_the_same_seeds_give_the_same_curve_in_another_process() -> None:
    code = f"import runpy; print(runpy.run_path({__file__!r})['_curve_as_json']())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == json.loads(_curve_as_json())


def _curve_as_json() -> str:
    torch.set_num_threads(1)
    return json.dumps(_curve(**EVERYTHING))


def test_a_long_moving_average_is_worth_what_was_trained_after_a_short_run() -> None:
    """80 steps are nothing for a decay of 0.9999, which leaves 99 % of the initial weights."""
    last = list(_start(ema_decay=0.9999))[-1].metrics["val/top1"]
    assert last > 90


def test_drop_path_follows_its_own_stream() -> None:
    losses = []
    for seed in (1, 2):
        training = _start(**EVERYTHING)
        torch.manual_seed(seed)
        losses.append([epoch.metrics["train/loss"] for epoch in training])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "values",
    [
        {"precision": "bfloat16"},
        {"precision": "float16"},
        {"augmentation": AugmentationSpec(mixup=0.8, cutmix=1.0)},
        {"ema_decay": 0.8},
        {"opt": "lamb"},
    ],
    ids=["bfloat16", "float16", "mixing", "average", "lamb"],
)
def test_a_switch_of_the_recipe_trains_too(values: dict[str, object]) -> None:
    curve = _curve(**values)
    assert curve[-1]["val/top1"] > 50
    assert curve != _curve()


def test_the_moving_average_is_what_is_evaluated() -> None:
    training = _start(ema_decay=1.0, epochs=10)  # never moves from the weights of its first update
    epochs = iter(training)
    first, averaged = next(epochs), _copy(training.evaluated_model)
    trained = _copy(training.model)
    second = next(epochs)
    assert first.metrics["val/loss"] == second.metrics["val/loss"]
    assert _copy(training.evaluated_model) == averaged
    assert averaged != trained != _copy(training.model)


class _StopError(Exception):
    """The process ends here."""


def _train_to(step: int, *, at_end: bool = False, **values: object) -> tuple[bytes, list[EpochMetrics]]:
    """The state after so many steps as a file has it, and the epochs that had ended; `at_end`: where an epoch has."""
    training, file, curve = _start(**values), io.BytesIO(), list[EpochMetrics]()

    def stop() -> None:
        if training.step == step:
            torch.save(training.state_dict(), file)
            raise _StopError

    training.after_step = (lambda: None) if at_end else stop
    with suppress(_StopError):
        for epoch in training:
            curve.append(epoch)
            if at_end and epoch.step == step:
                torch.save(training.state_dict(), file)
                break
    return file.getvalue(), curve


def _resume(state: bytes, **values: object) -> Training:
    """In another process: nothing is left of the first one's random state."""
    torch.manual_seed(12345)
    training = _start(**values)
    training.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
    torch.manual_seed(54321)
    return training


def _compute(training: Training, before: Iterable[EpochMetrics] = ()) -> tuple[list[object], dict[str, Tensor]]:
    """All that is the same in every repetition of a run, to the bit."""
    curve: list[object] = [
        (epoch.epoch, epoch.step, {name: value for name, value in epoch.metrics.items() if "second" not in name})
        for epoch in (*before, *training)
    ]
    average = {f"average.{name}": tensor for name, tensor in training.evaluated_model.state_dict().items()}
    return curve, {**training.model.state_dict(), **average}


def _require_equal(
    found: tuple[list[object], dict[str, Tensor]], expected: tuple[list[object], dict[str, Tensor]]
) -> None:
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    assert all(torch.equal(tensor, expected[1][name]) for name, tensor in found[1].items())


MIXED = AugmentationSpec(hflip=0.5, shift=1, reprob=0.5, mixup=0.8, cutmix=1.0)


@pytest.mark.parametrize(
    "values",
    [
        EVERYTHING,
        {"augmentation": MIXED, "smoothing": 0.1, "ema_decay": 0.9, "clip_grad": 1.0},
        {"precision": "float16", "ema_decay": 0.99},
        {"schedule_unit": "epoch", "warmup_epochs": 1, "warmup_lr": 1e-4, "cooldown_epochs": 1},
    ],
    ids=["everything", "mixing", "scaler", "epochs"],
)
@pytest.mark.parametrize(("step", "at_end"), [(1, False), (27, False), (40, False), (40, True)])
def test_a_training_that_was_broken_off_goes_on_bit_for_bit(values: dict[str, object], step: int, at_end: bool) -> None:
    """Within an epoch, after its last step and after its end, with dropout."""
    whole = _compute(_start(**values))
    state, curve = _train_to(step, at_end=at_end, **values)
    _require_equal(_compute(_resume(state, **values), curve), whole)


@pytest.mark.parametrize(
    "opt",
    [
        *("sgd", "lamb", "lion", "muon", "adafactor", "lookahead_adamw"),
        pytest.param("kron", marks=pytest.mark.slow),  # compiles
    ],
)
def test_an_optimizer_goes_on_bit_for_bit(opt: str) -> None:
    values = {"opt": opt, "lr": 1e-3, "epochs": 2}
    state, curve = _train_to(13, **values)
    _require_equal(_compute(_resume(state, **values), curve), _compute(_start(**values)))


def test_an_epoch_that_was_broken_off_twice_has_the_time_of_all_its_parts() -> None:
    state, _ = _train_to(7, **EVERYTHING)
    before = torch.load(io.BytesIO(state), weights_only=True)["seconds"]
    first = next(iter(_resume(state, **EVERYTHING)))
    assert first.metrics["train/seconds"] > before
    assert first.metrics["train/images_per_second"] == pytest.approx(200 / first.metrics["train/seconds"])


def _copy(model: nn.Module) -> list[list[float]]:
    return [parameter.flatten().tolist() for parameter in model.parameters()]


def test_gradients_are_clipped_to_the_norm_of_the_recipe() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    next(iter(_start(model, opt="sgd", clip_grad=1e-3, weight_decay=0.0, epochs=100)))
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert torch.nn.utils.get_total_norm(gradients) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.slow
def test_recipe_imagenet_does_a_step_with_every_switch_on(tmp_path: Path) -> None:
    for split, name in product(("train", "val"), ("ant", "bee")):
        (tmp_path / split / name).mkdir(parents=True)
        Image.effect_noise((300, 260), 80).convert("RGB").save(tmp_path / split / name / "0.jpg")
    changed = ["data.num_classes=2", "data.loading_workers=0", "training.batch_size=2", "training.ema_decay=0.9999"]
    plan = make_plan(load_spec(Path("experiments/table1.yaml"), recipe="imagenet", overrides=changed))
    cell = plan.rows[0].cell
    assert cell.training.precision == "float16"
    data = load_data(cell.data, cell.training, replicate=0, data_dir=tmp_path, device=CPU)
    training = Training(
        build_model(cell, replicate=0), data, cell.training, task=CLASSIFICATION, replicate=0, ranks=Ranks(CPU)
    )
    epoch = next(iter(training))
    assert epoch.step == 1
    assert epoch.metrics["train/loss"] == pytest.approx(math.log(2), abs=0.2)


class _Broken(nn.Module):
    """A linear classifier that `break_` harms in its forward pass number `at` (0-based)."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.linear, self.at, self.calls = nn.Linear(64, 4), at, 0
        self.scale = nn.ParameterDict({"weak": torch.zeros(1)})

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.flatten(1))
        self.calls += 1
        return self.harm(logits) if self.calls == self.at + 1 else logits + self.scale["weak"]

    def harm(self, logits: Tensor) -> Tensor:
        raise NotImplementedError


class _InfiniteLoss(_Broken):
    def harm(self, logits: Tensor) -> Tensor:
        return logits * math.inf


class _InfiniteGradient(_Broken):
    def harm(self, logits: Tensor) -> Tensor:
        return logits + (self.scale["weak"] - self.scale["weak"].detach()).sqrt()


class _InfiniteWeight(_Broken):
    def harm(self, logits: Tensor) -> Tensor:
        self.scale["unused"] = torch.tensor([1.0, math.nan])
        return logits


@pytest.mark.parametrize(
    ("model", "message", "step", "cause", "module"),
    [
        (_InfiniteLoss(3), "training loss is nan at step 3", 3, Cause.LOSS, ""),
        (_InfiniteGradient(4), "norm of the gradients is (nan|inf) at step 4", 4, Cause.GRADIENT, "scale"),
        (_InfiniteWeight(5), "weight is not finite at step 19", 19, Cause.WEIGHT, "scale"),
        (_InfiniteLoss(20), "validation loss is nan at step 19", 19, Cause.VALIDATION, ""),
    ],
    ids=["loss", "gradient", "weight", "validation"],
)
@pytest.mark.parametrize("clip_grad", [None, 1.0])
def test_leaving_the_finite_numbers_is_divergence(
    model: nn.Module, message: str, step: int, cause: Cause, module: str, clip_grad: float | None
) -> None:
    """Clipping by a norm that is nan makes every gradient nan, so that they are examined before."""
    with pytest.raises(Diverged, match=message) as caught:
        list(_start(copy.deepcopy(model), weight_decay=0.0, lr=1e-5, clip_grad=clip_grad))
    assert (caught.value.step, caught.value.cause, caught.value.module) == (step, cause, module)


class _Amplifier(nn.Module):
    """Makes gradients large."""

    def forward(self, logits: Tensor) -> Tensor:
        return 100 * logits


class _Constant(nn.Module):
    """Says the same class of every image."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(4))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), 4)


def test_a_model_that_learns_nothing_is_trained_to_its_end() -> None:
    training = _start(_Constant())
    assert [epoch.metrics["val/top1"] for epoch in training] == [25.0] * 4
    assert training.num_validated == 100


def test_a_gradient_that_only_the_loss_scale_made_infinite_is_skipped() -> None:
    training = _start(nn.Sequential(build_mlp((1, 8, 8), 4, width=4), _Amplifier()))
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    next(iter(training))
    assert 1 < training.scaler.get_scale() < 2.0**127
    assert all(parameter.isfinite().all() for parameter in training.model.parameters())


def test_an_infinite_gradient_without_a_loss_scale_to_blame_is_divergence() -> None:
    training = _start(_InfiniteGradient(0))
    training.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    with pytest.raises(Diverged, match="gradients"):
        next(iter(training))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_model_trains_on_cuda_in_every_precision(precision: str) -> None:
    training = _start(_with_dropout())
    cuda = torch.device("cuda")
    spec = _training(precision=precision, **EVERYTHING)
    data = MemoryData(
        DataSpec(name="bars", num_classes=4, channels=1, image_size=8, val_images=100),
        spec,
        training.data.splits,  # type: ignore[attr-defined]
        digest="0",
        replicate=0,
        device=cuda,
    )
    assert (
        list(train(_with_dropout(), data, spec, task=CLASSIFICATION, replicate=0, ranks=Ranks(cuda)))[-1].metrics[
            "val/top1"
        ]
        > 90
    )
