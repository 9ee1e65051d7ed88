from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

import harness.data.memory
import harness.optim
import harness.train
from harness.build import build_model
from harness.cell import Cell
from harness.data import load_data
from harness.plan import make_plan
from harness.ranks import Ranks
from harness.reading import load_spec
from harness.rehearsal import MAX_EPOCHS, Trace, VisitedData, choose_epochs, list_learning_rates, plan_visit
from harness.spec import TrainingSpec
from harness.tasks import CLASSIFICATION
from harness.trace import digest_trace, is_short
from harness.train import Training

CPU = torch.device("cpu")
LONG = ["training.epochs=24", "training.ema_decay=0.5", "training.warmup_epochs=2"]


def find_cell(*overrides: str) -> Cell:
    """A floor, which trains in an instant."""
    rows = make_plan(load_spec("table1", recipe="smoke", overrides=list(overrides))).rows
    return next(row.cell for row in rows if row.name == "One hidden layer")


def start(cell: Cell, replicate: int = 0) -> tuple[Training, VisitedData]:
    visit = plan_visit(cell)
    data = VisitedData(load_data(cell.data, cell.training, replicate=replicate, data_dir=None, device=CPU), visit)
    model, task = build_model(cell, replicate=replicate), CLASSIFICATION
    return Training(
        model, data, cell.training, task=task, replicate=replicate, ranks=Ranks(CPU), epochs=visit.epochs
    ), data


def rehearse(cell: Cell, replicate: int = 0) -> str:
    training, data = start(cell, replicate)
    trace = Trace(training, data)
    for _ in trace.follow():
        pass
    tested = CLASSIFICATION.evaluate(training.evaluated_model, data.test_batches(), Ranks(CPU))
    return digest_trace(trace.to_content(tested))


@pytest.mark.parametrize(
    ("epochs", "warmup", "cooldown"), [(1, 0, 0), (8, 0.5, 0), (16, 2, 0), (40, 5, 0), (300, 20, 10)]
)
def test_a_rehearsal_visits_the_turns_of_the_schedule(epochs: int, warmup: float, cooldown: int) -> None:
    training = TrainingSpec(lr=0.1, batch_size=8, epochs=epochs, warmup_epochs=warmup, cooldown_epochs=cooldown)
    visited, total = choose_epochs(training), epochs + cooldown
    assert len(visited) == min(total, MAX_EPOCHS)
    assert list(visited) == sorted(set(visited))
    assert {1, int(warmup) + 1, epochs, total} <= set(visited)
    assert all(later - epoch <= max(1, total / 5) for epoch, later in pairwise(visited))


def test_a_run_as_short_as_its_rehearsal_is_one() -> None:
    assert is_short(find_cell())
    assert plan_visit(find_cell()).steps is None
    assert not is_short(find_cell(*LONG))
    assert not is_short(find_cell("data.test_images=null"))


def test_a_visited_epoch_has_the_learning_rate_of_its_place() -> None:
    cell = find_cell(*LONG)
    training, data = start(cell)
    rates = list_learning_rates(training.model, cell.training, data.steps_per_epoch)
    for epoch in training:
        first = (epoch.epoch - 1) * data.steps_per_epoch
        assert epoch.step == first + 2
        reached = epoch.metrics["train/lr"]
        low, high = sorted((rates[2 * epoch.epoch - 2][0], rates[2 * epoch.epoch - 1][0]))
        assert low <= reached <= high


@pytest.mark.parametrize("overrides", [(), tuple(LONG)], ids=["short", "long"])
def test_two_rehearsals_are_equal_and_those_of_two_replicates_are_not(overrides: tuple[str, ...]) -> None:
    cell = find_cell(*overrides)
    assert rehearse(cell) == rehearse(cell) != rehearse(cell, replicate=1)


def _change_min_lr(monkeypatch: pytest.MonkeyPatch) -> None:
    make = harness.optim.make_schedule

    def make_changed(training: TrainingSpec, steps: int) -> harness.optim.Schedule:
        schedule = make(training, steps)
        return type(schedule)(**{**vars(schedule), "min_lr": schedule.min_lr * (1 + 1e-9)})

    for module in ("harness.train", "harness.rehearsal"):
        monkeypatch.setattr(f"{module}.make_schedule", make_changed)


def _change_average(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.train, "EMA_SHARE", 8.0)


def _change_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    normalize = harness.data.memory.normalize

    def shift(images: torch.Tensor, *, mean: float, std: float) -> torch.Tensor:
        return normalize(images, mean=mean, std=std) + 1e-6

    monkeypatch.setattr(harness.data.memory, "normalize", shift)


def _change_clipping(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = harness.train.clip_grads_with_norm_

    def clip_less(parameters: object, limit: float, *rest: object, **options: object) -> None:
        clip(parameters, limit * 0.01, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(harness.train, "clip_grads_with_norm_", clip_less)


def _change_order(monkeypatch: pytest.MonkeyPatch) -> None:
    make = harness.data.memory.order_generator
    monkeypatch.setattr(harness.data.memory, "order_generator", lambda seed: make(seed + 1))


@pytest.mark.parametrize("change", [_change_min_lr, _change_average, _change_pixels, _change_clipping, _change_order])
def test_code_that_computes_something_else_has_another_trace(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[pytest.MonkeyPatch], None]
) -> None:
    cell = find_cell(*LONG)
    before = rehearse(cell)
    change(monkeypatch)
    assert rehearse(cell) != before
