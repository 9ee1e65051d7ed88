from itertools import pairwise
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from harness.build import build_model
from harness.optim import _find_kinds, build_optimizer, build_scheduler, make_schedule, peak_lr
from harness.plan import make_plan
from harness.reading import load_spec
from harness.spec import TrainingSpec

TRAINING = TrainingSpec(lr=1e-2, batch_size=8, epochs=4, warmup_epochs=1.5, cooldown_epochs=1, min_lr=1e-4)


class _Table(nn.Embedding):
    """A module that says what it is; its name says nothing."""

    is_position_table = True


class _Operator(nn.Module):
    """One parameter of each kind that the rule distinguishes."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.norm = nn.Linear(4, 6), nn.LayerNorm(6)
        self.rows, self.columns, self.rb = _Table(9, 3), _Table(9, 3), nn.Embedding(9, 3)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))

    def no_weight_decay(self) -> set[str]:
        return {"cls_token", "rows.weight"}


def _decayed(model: nn.Module, training: TrainingSpec) -> set[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optimizer(model, training).param_groups
    assert sum(len(group["params"]) for group in groups) == len(names)
    return {names[id(parameter)] for group in groups if group["weight_decay"] for parameter in group["params"]}


def test_biases_norms_and_position_tables_are_not_decayed() -> None:
    assert _decayed(_Operator(), TRAINING) == {"qkv.weight", "rb.weight"}


def test_a_recipe_can_decay_position_tables() -> None:
    decayed = _decayed(_Operator(), TRAINING.model_copy(update={"position_decay": True}))
    assert decayed == {"qkv.weight", "rb.weight", "rows.weight", "columns.weight"}


def test_the_tables_of_net7_are_recognized() -> None:
    plan = make_plan(load_spec(Path("experiments/table1.yaml"), recipe="smoke"))
    model = build_model(next(row.cell for row in plan.rows if row.name == "Net7"), replicate=None)
    plain, everything = (
        _decayed(model, TRAINING.model_copy(update={"position_decay": decay})) for decay in (False, True)
    )
    assert {name.split(".")[-2] for name in everything - plain} == {"rk", "rq", "rb"}
    assert all(name.endswith("weight") for name in plain)


@pytest.mark.parametrize("opt", ["adamw", "sgd", "lamb"])
def test_an_optimizer_is_called_by_its_name_in_timm(opt: str) -> None:
    model = nn.Linear(3, 2)
    optimizer = build_optimizer(model, TRAINING.model_copy(update={"opt": opt}))
    model(torch.ones(1, 3)).sum().backward()
    before = model.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(model.weight, before)


def test_the_learning_rate_follows_the_batch_where_the_recipe_says_so() -> None:
    assert peak_lr(TRAINING) == 1e-2
    assert peak_lr(TRAINING.model_copy(update={"lr_base_size": 64})) == pytest.approx(1e-2 / 8)


@pytest.mark.parametrize("batch_size", [1, 8, 1024, 8192])
def test_no_batch_size_makes_the_learning_rate_rise_where_it_should_fall(batch_size: int) -> None:
    overrides = [f"training.batch_size={batch_size}"]
    training = load_spec(Path("experiments/table1.yaml"), recipe="imagenet", overrides=overrides).recipe.training
    schedule = make_schedule(training, 10)
    scale = batch_size / 1024
    assert (schedule.warmup_lr, schedule.peak_lr, schedule.min_lr) == pytest.approx(
        (1e-6 * scale, 1e-3 * scale, 1e-5 * scale)
    )
    rates = _learning_rates(training, 1)
    assert all(later > earlier for earlier, later in pairwise(rates[:20]))
    assert all(later < earlier for earlier, later in pairwise(rates[20:300]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 1e-6, "min_lr": 1e-5}, "min_lr must not exceed lr"),
        ({"lr": 1e-3, "warmup_lr": 1e-2, "warmup_epochs": 1}, "warmup_lr must not exceed lr"),
        ({"lr": 1e-3, "warmup_epochs": 1, "schedule_unit": "epoch"}, "needs a warmup_lr above 0"),
    ],
)
def test_learning_rates_in_an_impossible_order_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingSpec.model_validate({"batch_size": 8, "epochs": 4, **values})


def test_a_schedule_by_epoch_changes_the_rate_once_an_epoch() -> None:
    training = TRAINING.model_copy(update={"schedule_unit": "epoch", "warmup_lr": 1e-5, "warmup_epochs": 2.0})
    schedule = make_schedule(training, 10)
    by_step = _learning_rates(training, 10)
    by_epoch = [by_step[schedule.place(step)] for step in range(schedule.total_steps)]
    assert [by_epoch[10 * epoch : 10 * epoch + 10] for epoch in range(5)] == [
        [by_step[10 * epoch]] * 10 for epoch in range(5)
    ]
    assert by_epoch[0] == 1e-5  # timm's schedule in epochs: that of epoch 0 is where warm-up starts
    assert [make_schedule(TRAINING, 10).place(step) for step in (0, 9, 10)] == [0, 9, 10]


def _learning_rates(training: TrainingSpec, steps_per_epoch: int) -> list[float]:
    optimizer = build_optimizer(nn.Linear(2, 2), training)
    schedule = make_schedule(training, steps_per_epoch)
    scheduler = build_scheduler(optimizer, schedule)
    rates = []
    for step in range(schedule.total_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step_update(step + 1)
    return rates


def test_durations_are_steps() -> None:
    schedule = make_schedule(TRAINING, 10)
    assert (schedule.warmup_steps, schedule.cosine_steps, schedule.cooldown_steps) == (15, 40, 10)
    assert (schedule.epochs, schedule.total_steps) == (5, 50)


def test_the_rate_rises_to_its_peak_falls_to_its_least_and_stays() -> None:
    rates = _learning_rates(TRAINING, 10)
    assert rates[0] == 0
    assert rates[:15] == pytest.approx([1e-2 * step / 15 for step in range(15)])
    assert all(later < earlier for earlier, later in pairwise(rates[15:41]))
    assert rates[40:] == pytest.approx([1e-4] * 10)


def test_without_warm_up_the_peak_comes_first() -> None:
    assert _learning_rates(TRAINING.model_copy(update={"warmup_epochs": 0.0}), 10)[0] == pytest.approx(1e-2)


def test_recipe_imagenet_is_the_schedule_of_the_paper() -> None:
    training = load_spec(Path("experiments/table1.yaml"), recipe="imagenet").recipe.training
    steps_per_epoch = 1_281_167 // training.batch_size
    schedule = make_schedule(training, steps_per_epoch)
    assert schedule.epochs == 310
    assert schedule.warmup_steps == 20 * steps_per_epoch
    assert schedule.cosine_steps == 300 * steps_per_epoch
    assert schedule.peak_lr == pytest.approx(1e-3 * training.batch_size / 1024)
    rates = _learning_rates(training, 10)
    assert rates[0] == pytest.approx(1e-6)
    assert max(rates) == pytest.approx(schedule.peak_lr, rel=0.02)
    assert rates[199] < rates[200] * 1.02
    assert rates[3000:] == pytest.approx([1e-5] * 100)


class _Foreign(nn.Module):
    """A level of another package: a parameter of each kind, and one without a declaration."""

    parameter_kinds = {"mixing": "matrix", "offsets": "table", "temperature": "scalar"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        for name, shape in (("mixing", (3, 3)), ("offsets", (2, 9)), ("temperature", (2, 1, 1)), ("unknown", (3, 3))):
            setattr(self, name, nn.Parameter(torch.ones(shape)))


def test_an_optimizer_for_matrices_trains_no_parameter_that_is_not_declared_to_be_one() -> None:
    model = nn.Sequential(nn.Linear(3, 3), _Foreign())
    groups = build_optimizer(model, TRAINING.model_copy(update={"opt": "muon"})).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    by_matrix = {
        names[id(p)] for group in groups if not group.get("use_fallback") for p in group["params"] if p.ndim > 1
    }
    assert by_matrix == {"0.weight", "1.mixing"}
    assert _decayed(model, TRAINING) == {"0.weight", "1.mixing", "1.unknown"}
    decayed = _decayed(model, TRAINING.model_copy(update={"position_decay": True}))
    assert decayed == {"0.weight", "1.mixing", "1.unknown", "1.offsets"}


@pytest.mark.parametrize("name", ["table4", "table5", "table11"])
def test_no_parameter_of_a_shipped_level_is_without_a_declaration(name: str) -> None:
    for row in make_plan(load_spec(Path(name), recipe="smoke")).rows:
        model = build_model(row.cell, replicate=None)
        undeclared = {parameter for parameter, kind in _find_kinds(model).items() if not kind}
        assert undeclared <= set(getattr(model, "no_weight_decay", set)()), row.name


def test_an_optimizer_for_matrices_leaves_position_tables_and_tokens_to_its_fallback() -> None:
    model = _Operator()
    groups = build_optimizer(model, TRAINING.model_copy(update={"opt": "muon"})).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    fallback = {names[id(parameter)] for group in groups if group.get("use_fallback") for parameter in group["params"]}
    assert fallback == {"rows.weight", "columns.weight", "cls_token"}
