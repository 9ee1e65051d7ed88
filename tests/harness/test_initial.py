"""Rows that start from trained weights: which recipe trains them, and what their cells are."""

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.build import build_model
from harness.cell import Cell
from harness.errors import SpecError, WeightsError
from harness.execution.source import check_fit
from harness.initial import FromFile, FromRun
from harness.plan import Plan, SkippedRow, find_row, make_plan
from harness.provenance import reached_modules
from harness.spec import BackbonesSpec, ExperimentSpec, RowSpec

ROWS: dict[str, dict[str, Any]] = {
    "A": {"preset": "net7", "heads": 2},
    "A larger": {"init_from": "A", "image_size": 56},
}


@pytest.fixture
def spec(small_spec: ExperimentSpec) -> ExperimentSpec:
    """Under a recipe that starts from `tiny`; the baseline is trained from scratch."""
    tiny = small_spec.recipe.model_copy(update={"floor_width": None})
    training = tiny.training.model_copy(update={"epochs": 1})
    finetune = tiny.model_copy(update={"name": "finetune", "init_recipe": tiny, "training": training})
    update = {"recipe": finetune, "baseline": "A", "published": {}}
    return make_spec(small_spec.model_copy(update=update), ROWS)


def make_spec(spec: ExperimentSpec, rows: dict[str, dict[str, Any]]) -> ExperimentSpec:
    return spec.model_copy(update={"rows": {name: RowSpec.model_validate(row) for name, row in rows.items()}})


def plan_from_scratch(spec: ExperimentSpec) -> Plan:
    return make_plan(spec.model_copy(update={"recipe": spec.recipe.init_recipe}))


def plan_row(spec: ExperimentSpec, row: dict[str, Any]) -> Cell:
    return make_plan(make_spec(spec, {**ROWS, "B": row}), is_derived=True).rows[-1].cell


def test_a_recipe_trains_from_scratch_or_starts_from_weights(spec: ExperimentSpec) -> None:
    finetune, scratch = make_plan(spec), plan_from_scratch(spec)
    assert [row.name for row in finetune.rows] == ["A larger"]
    assert finetune.skipped == (SkippedRow("A", "no init_from; recipe 'finetune' starts from trained weights"),)
    assert [row.name for row in scratch.rows] == ["A"]
    assert scratch.skipped == (SkippedRow("A larger", "starts from 'A'; recipe 'tiny' trains from scratch"),)
    with pytest.raises(SpecError, match=r"row 'A larger' is skipped: starts from 'A'"):
        find_row(scratch, "A larger")


def test_a_row_is_the_one_it_starts_from_but_for_what_it_states(spec: ExperimentSpec) -> None:
    (trained,), (larger,) = (plan.rows for plan in (plan_from_scratch(spec), make_plan(spec)))
    assert larger.cell.init_from == FromRun(trained.cell.id, "A", "tiny")
    assert (larger.cell.attention, larger.cell.num_heads) == (trained.cell.attention, trained.cell.num_heads)
    assert (larger.cell.data.image_size, trained.cell.data.image_size) == (56, 28)
    wider = plan_row(spec, {"init_from": "A", "window_size": 14})
    assert {config.window_size for config in wider.operators()} == {14}
    assert wider.num_heads == trained.cell.num_heads


def test_what_is_stated_for_the_other_recipe_holds_too(spec: ExperimentSpec) -> None:
    under = {"under": {"tiny": {"kernel_size": 5, "dilation": 2}, "finetune": {"dilation": 3}}}
    cell = plan_row(spec, {"init_from": "A", "neighborhood": "sliding_window", **under})
    assert {(config.kernel_size, config.dilation) for config in cell.operators()} == {(5, 3)}
    rows = {**ROWS, "B": {"sizes": {"tiny": {"mlp_ratio": 2.0, "qkv_bias": False}}}, "B larger": {"init_from": "B"}}
    rows["B larger"]["sizes"] = {**rows["B"]["sizes"], "finetune": {"drop_path_rate": 0.5}}
    sizes = make_plan(make_spec(spec, rows)).rows[-1].cell.sizes.model_dump()
    assert (sizes["mlp_ratio"], sizes["qkv_bias"], sizes["drop_path_rate"]) == (2.0, False, 0.5)


def test_image_size_and_source_are_part_of_the_cell(spec: ExperimentSpec, tmp_path: Path) -> None:
    (tmp_path / "one.pt").write_bytes(b"one")
    (tmp_path / "two.pt").write_bytes(b"two")
    same = {"preset": "net7", "heads": 2}
    rows: list[dict[str, Any]] = [
        {"init_from": "A"},
        {"init_from": "A", "image_size": 56},
        {**same, "init_from": "Other"},
        {**same, "init_from": str(tmp_path / "one.pt")},
        {**same, "init_from": str(tmp_path / "two.pt")},
    ]
    with_other = {**ROWS, "Other": {"preset": "net1"}}
    cells = [make_plan(make_spec(spec, {**with_other, "B": row}), is_derived=True).rows[-1].cell for row in rows]
    assert len({cell.id for cell in cells}) == len(cells)


def test_a_row_of_its_own_size_may_be_trained_from_scratch(spec: ExperimentSpec) -> None:
    rows = make_plan(
        make_spec(spec, {"A": {}, "B": {"image_size": 56}, "C": {"image_size": 28}}).model_copy(
            update={"recipe": spec.recipe.init_recipe}
        ),
        is_derived=True,
    ).rows
    assert [row.cell.data.image_size for row in rows] == [28, 56, 28]
    assert rows[0].cell.id == rows[2].cell.id != rows[1].cell.id


def test_of_a_file_its_content_counts_not_its_name(spec: ExperimentSpec, tmp_path: Path) -> None:
    for name in ("one.pt", "copy.pt"):
        (tmp_path / name).write_bytes(b"the same")
    one, copy = (plan_row(spec, {"init_from": str(tmp_path / name)}) for name in ("one.pt", "copy.pt"))
    assert isinstance(one.init_from, FromFile)
    assert one.init_from != copy.init_from
    assert one.id == copy.id


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param(
            {"init_from": "Aa"}, "rows.B.init_from: no such file, and unknown row 'Aa'; did you mean 'A'", id="typo"
        ),
        pytest.param(
            {"init_from": "A larger"}, "rows.B.init_from: A larger is not trained from scratch itself", id="chain"
        ),
        pytest.param({"init_from": "B"}, "rows.B.init_from: B is not trained from scratch itself", id="itself"),
        pytest.param(
            {"init_from": "A", "image_size": 57}, "rows.B: recipe 'finetune': patch_size must divide", id="patch"
        ),
    ],
)
def test_a_row_that_cannot_start_names_its_place(spec: ExperimentSpec, row: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan_row(spec, row)
    assert str(caught.value).startswith(message)


def test_a_row_whose_source_the_other_recipe_lacks_is_skipped(spec: ExperimentSpec) -> None:
    assert spec.recipe.init_recipe is not None
    without = spec.recipe.init_recipe.model_copy(update={"backbones": BackbonesSpec()})
    plan = make_plan(spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"init_recipe": without})}))
    assert SkippedRow("A larger", "recipe 'tiny' has no sizes for backbone 'swin'") in plan.skipped


def test_who_reads_weights_is_code_of_the_cells_that_start_from_them_alone(spec: ExperimentSpec) -> None:
    readers = {"harness.weights", "paradigms.released", "paradigms.released.swin", "paradigms.backbones.resize"}
    assert readers <= set(reached_modules(make_plan(spec).rows[0].cell))
    assert not readers & set(reached_modules(plan_from_scratch(spec).rows[0].cell))


@pytest.mark.usefixtures("quick_meta")
def test_the_plan_knows_whether_weights_fit(spec: ExperimentSpec, tmp_path: Path) -> None:
    """Of a run by its recipe, of a file by its tensors; larger images are no difference."""
    check_fit(make_plan(spec))
    assert spec.recipe.init_recipe is not None
    data = spec.recipe.data.model_copy(update={"num_classes": 1000})
    wide = spec.recipe.init_recipe.model_copy(update={"data": data})
    other = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"init_recipe": wide})})
    with pytest.raises(SpecError, match=r"row A under recipe tiny do not fit .*head\.fc\.weight is \(1000, 16\)"):
        check_fit(make_plan(other))
    (row,) = plan_from_scratch(spec).rows
    weights = build_model(row.cell, replicate=0).state_dict()
    torch.save(weights, tmp_path / "a.pt")
    rows = {"A": ROWS["A"], "B": {**ROWS["A"], "init_from": str(tmp_path / "a.pt"), "image_size": 56}}
    check_fit(make_plan(make_spec(spec, rows)))
    torch.save({**weights, "head.fc.bias": torch.zeros(1000)}, tmp_path / "a.pt")
    with pytest.raises(SpecError, match=r"rows\.B\.init_from: .*head\.fc\.bias is \(1000,\)"):
        check_fit(make_plan(make_spec(spec, rows)))
    (tmp_path / "a.pt").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(WeightsError, match="Git LFS"):
        check_fit(make_plan(make_spec(spec, rows)))
