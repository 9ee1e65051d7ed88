from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.build import build_model, describe_stages
from harness.cell import Cell
from harness.plan import Plan, make_plan
from harness.reading import load_spec
from harness.spec import CellSpec, RowSpec
from paradigms.config import AttentionConfig
from paradigms.presets import PRESETS

TABLE1 = Path("experiments/table1.yaml")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(load_spec(TABLE1, recipe="smoke"))


@pytest.fixture(scope="module", params=["", "jax", "moco", "reset"])
def plan_of_each_rule(request: pytest.FixtureRequest) -> Plan:
    return make_plan(load_spec(TABLE1, recipe="smoke", overrides=[f"backbones.swin.weight_init='{request.param}'"]))


def _weights(cell: Cell, replicate: int) -> dict[str, Tensor]:
    return build_model(cell, replicate=replicate).state_dict()


def test_all_rows_of_table_1_start_from_the_same_values_where_they_share_a_parameter(plan_of_each_rule: Plan) -> None:
    rows = [_weights(row.cell, replicate=1) for row in plan_of_each_rule.rows if not (row.is_floor or row.is_placebo)]
    assert len(rows) == 8
    full = next(weights for weights in rows if len(weights) == max(map(len, rows)))
    for weights in rows:
        for name, value in weights.items():
            assert torch.equal(value, full[name]), name


def test_replicates_start_from_different_values(plan_of_each_rule: Plan) -> None:
    first, second = (_weights(plan_of_each_rule.rows[0].cell, replicate) for replicate in (0, 1))
    name = "layers.0.blocks.0.mlp.fc1.weight"
    assert not torch.equal(first[name], second[name])
    assert not torch.equal(
        first["layers.0.blocks.0.attn.parameterization.rb.weight"],
        second["layers.0.blocks.0.attn.parameterization.rb.weight"],
    )


OTHERS = {
    "volo": {"backbone": "volo"},
    "volo_net7": {"backbone": "volo", "preset": "net7"},
    "deit": {"backbone": "deit"},
    "deit_net7": {"backbone": "deit", "preset": "net7"},
}


@pytest.fixture(scope="module")
def others() -> Mapping[str, Cell]:
    """Cells of the backbones that Table 1 does not have."""
    spec = load_spec(TABLE1, recipe="smoke")
    rows = {name: RowSpec.model_validate(row) for name, row in OTHERS.items()}
    changed = spec.model_copy(update={"cell": CellSpec(), "rows": rows})
    return {row.name: row.cell for row in make_plan(changed).rows}


@pytest.mark.parametrize("rule", ["", "jax", "moco", "reset"])
@pytest.mark.parametrize("name", OTHERS)
def test_initial_values_depend_on_the_replicate_alone(others: Mapping[str, Cell], name: str, rule: str) -> None:
    cell = replace(others[name], sizes=others[name].sizes.model_copy(update={"weight_init": rule}))
    torch.manual_seed(1)
    first, other = _weights(cell, replicate=0), _weights(cell, replicate=1)
    torch.manual_seed(2)
    again = _weights(cell, replicate=0)
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not torch.equal(first["pos_embed"], other["pos_embed"])
    assert first["pos_embed"].std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("backbone", ["volo", "deit"])
def test_rows_of_every_backbone_share_what_is_no_attention(others: Mapping[str, Cell], backbone: str) -> None:
    own, replaced = (_weights(others[name], replicate=0) for name in (backbone, f"{backbone}_net7"))
    shared = set(own) & set(replaced)
    assert {key for key in own if ".attn." not in key} <= shared
    assert all(torch.equal(own[key], replaced[key]) for key in shared)


def test_stages_are_described_where_there_are_operators(others: Mapping[str, Cell]) -> None:
    assert describe_stages(others["volo"]) == describe_stages(others["deit"]) == []
    (volo,) = describe_stages(others["volo_net7"])
    assert (volo.stage, volo.map_size, volo.size, volo.is_global) == (1, (14, 14), (7, 7), False)
    (deit,) = describe_stages(others["deit_net7"])
    assert (deit.stage, deit.map_size, deit.size, deit.is_global) == (1, (7, 7), (7, 7), True)


def test_no_two_parameters_start_alike(plan: Plan) -> None:
    weights = _weights(plan.rows[0].cell, replicate=0)
    assert not torch.equal(weights["layers.0.blocks.0.attn.v.weight"], weights["layers.0.blocks.1.attn.v.weight"])
    assert not torch.equal(weights["layers.0.blocks.0.attn.v.weight"], weights["layers.0.blocks.0.attn.proj.weight"])


def test_building_leaves_the_global_generator_alone(plan: Plan) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    build_model(plan.rows[0].cell, replicate=0)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(("weight_init", "std"), [("", 0.02), ("jax", (2 / (8 + 32)) ** 0.5)], ids=["timm", "xavier"])
def test_linear_layers_follow_the_rule_of_timm_that_the_recipe_names(plan: Plan, weight_init: str, std: float) -> None:
    cell = plan.rows[0].cell
    cell = replace(cell, sizes=cell.sizes.model_copy(update={"weight_init": weight_init}))
    weights = _weights(cell, replicate=0)
    assert weights["layers.0.blocks.0.mlp.fc1.weight"].std().item() == pytest.approx(std, rel=0.2)
    assert weights["layers.0.blocks.0.attn.parameterization.rb.weight"].std().item() == pytest.approx(0.02, rel=0.2)
    assert torch.equal(weights["norm.weight"], torch.ones(16))


@pytest.mark.parametrize("rule", ["", "jax"])
def test_elsa_starts_as_in_the_released_code(plan: Plan, rule: str) -> None:
    cell = plan.rows[0].cell
    elsa = replace(PRESETS["elsa"].config, initialization="released")
    sizes = cell.sizes.model_copy(update={"weight_init": rule, "embed_dim": 48})
    attn = "layers.0.blocks.0.attn."
    weights = _weights(replace(cell, sizes=sizes, attention=(elsa, cell.attention[1])), replicate=0)
    for name, inputs in {
        "parameterization.q": 48,
        "parameterization.k": 48,
        "v": 48,
        "parameterization.to_logits": 32,
    }.items():
        bound = inputs**-0.5  # torch's own rule for a convolution, which timm's leaves alone: uniform, and biases too
        for kind in ("weight", "bias"):
            drawn = weights[f"{attn}{name}.{kind}"]
            assert 0.7 * bound < drawn.abs().max() <= bound, name
            assert drawn.std().item() == pytest.approx(bound / 3**0.5, rel=0.2), name
    linear = weights[f"{attn}proj.weight"]
    assert not weights[f"{attn}proj.bias"].any()
    assert linear.std().item() == pytest.approx(0.02 if rule == "" else 48**-0.5, rel=0.1)


@pytest.mark.parametrize("recipe", ["imagenet", "finetune"])
def test_the_papers_recipes_start_elsa_as_released_and_nothing_else(recipe: str) -> None:
    sized = [sizes for _, sizes in load_spec(TABLE1, recipe=recipe).recipe.backbones if sizes.family != "deit"]
    assert {sizes.initialization for sizes in sized} == {"released"}
    changed = [f"backbones.swin.initialization={start}" for start in ("released", "backbone")]
    nets, again = (
        [row.cell.id for row in make_plan(load_spec(TABLE1, recipe="imagenet", overrides=[pair])).rows]
        for pair in changed
    )
    assert nets == again  # without a convolution there is nothing to draw otherwise


def test_the_initialization_of_a_backbone_holds_for_every_preset_and_a_row_has_the_last_word() -> None:
    spec = load_spec(TABLE1, recipe="smoke", overrides=["backbones.swin.initialization=released"])
    rows = {"own": {}, "stated": {"initialization": "backbone"}}
    rows = {name: RowSpec.model_validate({"preset": "elsa", **row}) for name, row in rows.items()}
    own, stated = make_plan(spec.model_copy(update={"rows": rows, "baseline": "own"})).rows[:2]
    assert (own.cell.attention[0].initialization, stated.cell.attention[0].initialization) == ("released", "backbone")
    assert own.cell.id != stated.cell.id


def test_the_laptop_backbone_is_local_in_stage_1_and_global_in_stage_2() -> None:
    cell = make_plan(load_spec(TABLE1, recipe="laptop")).rows[0].cell
    first, second = describe_stages(cell)
    assert (first.map_size, first.shifts, first.is_global) == ((14, 14), ((0, 0), (3, 3)), False)
    assert first.inside == (1.0, pytest.approx(((7 * 7 + 4 * 4 + 3 * 3) / 98) ** 2))
    assert (second.map_size, second.shifts, second.is_global) == ((7, 7), ((0, 0),), True)


def test_a_sliding_kernel_counts_taps_that_lie_inside() -> None:
    cell = make_plan(load_spec(TABLE1, recipe="laptop")).rows[0].cell
    sliding = replace(cell, attention=(AttentionConfig(neighborhood="sliding_window", kernel_size=3),) * 2)
    first, second = describe_stages(sliding)
    assert first.inside == (pytest.approx((40 / 42) ** 2),)
    assert not second.is_global


def test_a_floor_has_no_stages(plan: Plan) -> None:
    assert describe_stages(plan.rows[-1].cell) == []
