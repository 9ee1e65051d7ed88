"""Training and evaluation on several ranks, against a single process."""

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.data.memory import MemoryData, Splits
from harness.data.part import take_part
from harness.errors import Diverged
from harness.floors import build_mlp
from harness.ranks import Ranks
from harness.spec import AugmentationSpec, DataSpec, TrainingSpec
from harness.tasks.classification import CLASSIFICATION
from harness.train import Training
from tests.forked_ranks import run_ranks
from tests.pictures import draw_bars

pytestmark = pytest.mark.forks

CPU = torch.device("cpu")
MIXED = AugmentationSpec(hflip=0.5, shift=1, reprob=0.5, mixup=0.8, cutmix=1.0)

TOLERANCE = 1e-6
"""Of the weights after 20 steps, relative to the largest of their tensor; 2.3e-7 was measured."""

Build = Callable[[], nn.Module]
State = dict[str, Tensor]


def build_plain() -> nn.Module:
    torch.manual_seed(0)
    return build_mlp((1, 8, 8), 4, width=16)


def build_with_dropout() -> nn.Module:
    return nn.Sequential(build_plain(), nn.Dropout(0.2), nn.Linear(4, 4))


def build_with_batch_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4))


class WithUnusedHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.other_head = build_plain(), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(images)
        return logits


def start(ranks: Ranks, build: Build = build_plain, **values: Any) -> Training:
    """Five steps an epoch with batches of 14 images, which three ranks do not divide."""
    spec = DataSpec(name="bars", num_classes=4, channels=1, image_size=8, val_images=150)
    stated = {"lr": 1e-2, "batch_size": 14, "epochs": 4, "clip_grad": 1.0, "ema_decay": 0.9, **values}
    training = TrainingSpec.model_validate(stated)
    splits = Splits(draw_bars(70, seed=0), draw_bars(150, seed=1), draw_bars(50, seed=2), mean=0.4, std=0.25)
    data = MemoryData(spec, training, splits, digest="0", replicate=0, device=CPU)
    return Training(build(), take_part(data, ranks), training, task=CLASSIFICATION, replicate=0, ranks=ranks)


def train(ranks: Ranks, build: Build = build_plain, **values: Any) -> tuple[list[dict[str, float]], State]:
    """The curve without what is measured, and the weights with their moving average."""
    training = start(ranks, build, **values)
    curve = [{name: x for name, x in epoch.metrics.items() if "second" not in name} for epoch in training]
    average = {f"average.{name}": tensor for name, tensor in training.evaluated_model.state_dict().items()}
    return curve, {**training.model.state_dict(), **average}


def find_difference(first: State, second: State) -> float:
    """The largest one, relative to the largest number of its tensor."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max() / first[name].abs().max().clip(1e-6)) for name in first)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_ranks_trains_one_model(world_size: int, accumulation: int) -> None:
    """Also where the batch is not divided evenly: 14 images are 4, 4 and 6."""
    options = {"augmentation": MIXED, "smoothing": 0.1}
    (curve, alone), *_ = run_ranks(partial(train, **options), 1)
    results = run_ranks(partial(train, **options), world_size, accumulation=accumulation)
    assert all(result[0] == results[0][0] for result in results)
    assert all(find_difference(result[1], results[0][1]) == 0 for result in results)
    assert find_difference(alone, results[0][1]) < TOLERANCE
    for expected, found in zip(curve, results[0][0], strict=True):
        assert found == pytest.approx(expected, rel=1e-5)


def test_micro_batches_of_one_process_add_up_to_the_batch() -> None:
    (_, whole), (_, parts) = (run_ranks(train, 1, accumulation=count)[0] for count in (1, 3))
    assert 0 < find_difference(whole, parts) < TOLERANCE


@pytest.mark.parametrize("build", [build_with_dropout, build_with_batch_norm, WithUnusedHead])
def test_all_ranks_agree_whatever_a_model_has(build: Build) -> None:
    """Random streams and statistics are those of a rank, what comes of them is not."""
    results = run_ranks(partial(train, build=build), 3)
    assert all(result[0] == results[0][0] for result in results), results
    assert all(find_difference(result[1], results[0][1]) == 0 for result in results)


def draw_dropout(ranks: Ranks) -> Tensor:
    training, drawn = start(ranks), list[Tensor]()
    training.after_step = lambda: drawn.append(torch.rand(3))
    next(iter(training))
    return drawn[0]


def test_every_rank_has_a_random_stream_of_its_own() -> None:
    (alone,) = run_ranks(draw_dropout, 1)
    first, second = run_ranks(draw_dropout, 2)
    assert torch.equal(first, alone)
    assert not torch.equal(first, second)


def evaluate(ranks: Ranks, **values: Any) -> tuple[dict[str, float], bytes]:
    training = start(ranks, **values)
    tested = CLASSIFICATION.evaluate(training.model, training.data.val_batches(), ranks)
    return dict(tested.scores), tested.per_image["predictions"].tobytes()


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_an_evaluation_is_the_same_bit_for_bit_on_any_number_of_ranks(world_size: int) -> None:
    """Three batches, the last of them incomplete; of four ranks one has none."""
    (alone,) = run_ranks(evaluate, 1)
    assert run_ranks(evaluate, world_size) == [alone] * world_size


class InfiniteOnRank(nn.Module):
    """Its second step has an infinite loss, on one rank alone."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.body, self.number, self.step = build_plain(), number, 0

    def forward(self, images: Tensor) -> Tensor:
        self.step += 1
        is_infinite = torch.distributed.get_rank() == self.number and self.step == 2
        logits: Tensor = self.body(images)
        return logits * (float("inf") if is_infinite else 1.0)


def diverge(ranks: Ranks) -> tuple[Any, ...]:
    with pytest.raises(Diverged) as raised:
        list(start(ranks, lambda: InfiniteOnRank(1)))
    return str(raised.value), raised.value.step, raised.value.cause


def test_a_loss_that_is_not_finite_on_one_rank_ends_all_in_the_same_way() -> None:
    results = run_ranks(diverge, 3)
    assert results == [("the training loss is nan at step 1", 1, "loss")] * 3


def interrupt(ranks: Ranks) -> tuple[list[bytes], State]:
    """The state of rank 0 after seven steps, and the weights at the end of the undisturbed training."""
    training, states = start(ranks, build_with_dropout), list[bytes]()

    def keep() -> None:
        state = training.state_dict()
        if training.step == 7:
            file = io.BytesIO()
            torch.save(state, file)
            states.append(file.getvalue())

    training.after_step = keep
    list(training)
    return states, training.model.state_dict()


def resume(ranks: Ranks, *, state: bytes) -> State:
    training = start(ranks, build_with_dropout)
    training.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
    list(training)
    return dict(training.model.state_dict())


@pytest.mark.parametrize("world_size", [2, 3])
def test_all_ranks_go_on_from_the_state_of_the_first_bit_for_bit(world_size: int) -> None:
    ((state,), whole), *_ = run_ranks(interrupt, world_size)
    for weights in run_ranks(partial(resume, state=state), world_size):
        assert find_difference(weights, whole) == 0
