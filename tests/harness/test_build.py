from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.build import build_model, describe_stages
from harness.plan import Cell, Plan, make_plan
from harness.reading import load_spec
from paradigms.config import AttentionConfig

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
    rows = [_weights(row.cell, replicate=1) for row in plan_of_each_rule.rows if not row.is_floor]
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
