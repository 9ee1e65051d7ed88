from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch

from harness.build import build_model
from harness.confounds import check_confounds
from harness.data import load_data
from harness.errors import SpecError
from harness.plan import Plan, make_plan
from harness.ranks import Ranks
from harness.reading import is_search, list_experiments, load_spec
from harness.rehearsal import Trace, VisitedData, plan_visit
from harness.spec import ExperimentSpec, RowSpec
from harness.tasks import CLASSIFICATION
from harness.trace import Rehearsal
from harness.train import Training

CPU = torch.device("cpu")


def trace(plan: Plan, name: str) -> Rehearsal:
    """What a row computes before its first step, and its first batch."""
    cell = next(row.cell for row in plan.rows if row.name == name)
    data = VisitedData(load_data(cell.data, cell.training, replicate=0, data_dir=None, device=CPU), plan_visit(cell))
    training = Training(
        build_model(cell, replicate=0), data, cell.training, task=CLASSIFICATION, replicate=0, ranks=Ranks(CPU)
    )
    content = Trace(training, data)
    next(data.train_batches(1))
    next(iter(data.val_batches()))
    return Rehearsal(cell.id, 0, "code", "data", {}, trace=content.to_content())


@pytest.fixture(scope="module")
def experiment() -> tuple[Plan, dict[str, Rehearsal]]:
    plan = make_plan(load_spec("table1", recipe="smoke"))
    return plan, {made.cell_id: made for made in (trace(plan, name) for name in ("Swin-T", "Net1"))}


def change_cell(plan: Plan, part: str, **changes: object) -> Plan:
    """The plan with some fields of Net1's recipe or sizes changed behind its back."""
    rows = [
        row
        if row.name != "Net1"
        else replace(row, cell=replace(row.cell, **{part: getattr(row.cell, part).model_copy(update=changes)}))
        for row in plan.rows
    ]
    return replace(plan, rows=tuple(rows))


FIELDS: list[tuple[str, str, object]] = [
    ("training", "lr", 0.5),
    ("training", "lr_base_size", 64),
    ("training", "opt", "adamw"),
    ("training", "batch_size", 32),
    ("training", "weight_decay", 0.3),
    ("training", "position_decay", True),
    ("training", "epochs", 2),
    ("training", "warmup_epochs", 0.0),
    ("training", "cooldown_epochs", 1),
    ("training", "warmup_lr", 1e-5),
    ("training", "min_lr", 1e-3),
    ("training", "schedule_unit", "epoch"),
    ("training", "clip_grad", None),
    ("training", "smoothing", 0.1),
    ("training", "ema_decay", 0.9),
    ("training", "precision", "bfloat16"),
    ("data", "image_size", 56),
    ("data", "train_images", 160),
    ("data", "val_images", 500),
    ("data", "test_images", 100),
    ("data", "crop_pct", 0.9),
    ("data", "interpolation", "bilinear"),
    ("data", "source", "another"),
    ("sizes", "embed_dim", 16),
    ("sizes", "mlp_ratio", 3.0),
    ("sizes", "drop_path_rate", 0.1),
    ("sizes", "weight_init", "jax"),
]


@pytest.mark.parametrize(("part", "name", "value"), FIELDS, ids=[f"{part}.{name}" for part, name, _ in FIELDS])
def test_a_field_of_the_recipe_or_the_sizes_that_no_row_states_is_found(
    experiment: tuple[Plan, dict[str, Rehearsal]], part: str, name: str, value: object
) -> None:
    with pytest.raises(SpecError, match=rf"Net1 differs from Swin-T .*{part}\.{name} "):
        check_confounds(change_cell(experiment[0], part, **{name: value}), {})


Edit = Callable[[dict[str, Any]], None]


def _decay(content: dict[str, Any]) -> None:
    content["optimizer"]["groups"][0]["settings"]["weight_decay"] += 0.1


def _raise_last_rate(content: dict[str, Any]) -> None:
    content["learning_rates"][-1][0] *= 2


def _reorder(content: dict[str, Any]) -> None:
    content["batches"]["1"] = ["0" * 16, *content["batches"]["1"]]


def _redraw(content: dict[str, Any]) -> None:
    content["initial"]["head.fc.weight"][1] = "0" * 16


PLANTED: list[tuple[str, Edit]] = [
    ("steps", lambda content: content.update(steps=[1, 19, 16])),
    ("images", lambda content: content.update(images=[310, 1000, 200])),
    ("average", lambda content: content.update(average=True)),
    ("learning_rates", _raise_last_rate),
    ("training_images", _reorder),
    ("evaluated_images", lambda content: content["evaluated"].update(val="0")),
    ("optimizer", lambda content: content["optimizer"].update(name="SGD")),
    ("parameter_groups", _decay),
    ("initial_values", _redraw),
]


def edit(rehearsals: Mapping[str, Rehearsal], plan: Plan, change: Edit) -> dict[str, Rehearsal]:
    cell_id = next(row.cell.id for row in plan.rows if row.name == "Net1")
    content = deepcopy(dict(rehearsals[cell_id].trace))
    change(content)
    return {**rehearsals, cell_id: replace(rehearsals[cell_id], trace=content)}


@pytest.mark.parametrize(("name", "change"), PLANTED, ids=[name for name, _ in PLANTED])
def test_what_code_does_to_one_row_alone_is_found_unless_the_row_declares_it(
    experiment: tuple[Plan, dict[str, Rehearsal]], name: str, change: Edit
) -> None:
    plan, rehearsals = experiment
    check_confounds(plan, rehearsals)
    planted = edit(rehearsals, plan, change)
    with pytest.raises(SpecError, match=rf"table1\.yaml:\d+: rows\.Net1: .*also_changes: \[{name}\] declares it"):
        check_confounds(plan, planted)
    rows = (replace(row, also_changes=(name,)) if row.name == "Net1" else row for row in plan.rows)
    check_confounds(replace(plan, rows=tuple(rows)), planted)


def test_traces_of_other_replicates_or_environments_are_not_compared(
    experiment: tuple[Plan, dict[str, Rehearsal]],
) -> None:
    plan, rehearsals = experiment
    planted = edit(rehearsals, plan, _redraw)
    net1 = next(row.cell.id for row in plan.rows if row.name == "Net1")
    for change in ({"seed": 1}, {"environment": {"torch": "another"}}):
        check_confounds(plan, {**planted, net1: replace(planted[net1], **change)})


def test_parameters_that_no_module_holds_are_compared(spec: ExperimentSpec) -> None:
    """A DeiT has its position embedding and its class token at the top."""
    rows = {"A": RowSpec(backbone="deit"), "B": RowSpec(backbone="deit", preset="elsa")}
    data = spec.recipe.data.model_copy(update={"train_images": 32, "test_images": 10})
    recipe = spec.recipe.model_copy(update={"data": data})
    plan = make_plan(spec.model_copy(update={"rows": rows, "recipe": recipe}))
    check_confounds(plan, {made.cell_id: made for made in (trace(plan, name) for name in ("A", "B"))})


def test_a_row_that_starts_from_another_one_inherits_what_that_states(tmp_path: Any) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "title: Mine\nbaseline: A\nrecipe: finetune\n"
        "rows:\n  S: {backbone: volo}\n  T: {backbone: swin}\n  A: {init_from: S}\n  B: {init_from: T}\n"
    )
    plan = make_plan(load_spec(path))
    check_confounds(plan, {})


@pytest.mark.parametrize(
    "recipe",
    ["laptop", *(pytest.param(name, marks=pytest.mark.slow) for name in ("smoke", "finetune", "gpu", "imagenet"))],
)
def test_no_shipped_experiment_is_refused(recipe: str) -> None:
    for name, path in list_experiments().items():
        if not is_search(path):
            try:
                plan = make_plan(load_spec(path, recipe=recipe))
            except SpecError as error:
                assert "no sizes" in str(error) or "skip" in str(error), name
                continue
            check_confounds(plan, {})


def test_a_row_that_a_search_adds_is_compared_with_nothing(experiment: tuple[Plan, dict[str, Rehearsal]]) -> None:
    """Its values of the recipe are what the search has found."""
    plan = change_cell(experiment[0], "training", lr=0.5)
    found = next(row for row in plan.rows if row.name == "Net1")
    check_confounds(replace(experiment[0], rows=(*experiment[0].rows, replace(found, name="Winner"))), {})
