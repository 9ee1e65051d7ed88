import math

import pytest
from mlflow.entities import Metric

from harness.record import EpochMetrics, Record, RunStatus
from harness.tracking.translation import STEPS, to_config, to_curve, to_final_metrics, to_params


def test_params_are_row_seed_recipe_and_levels(small_spec, small_plan):
    assert to_params(small_plan.runs[2], small_spec) == {
        "row": "Net7-N",
        "seed": "0",
        "recipe": "tiny",
        "backbone": "swin",
        "parameterization": "query_key + query_position + position_key + position_bias",
        "normalization": "softmax",
        "neighborhood": "sliding_window (1), local_window (2)",
        "aggregation": "weighted_sum",
        "heads": "2, 4",
    }


def test_a_floor_has_no_levels_of_attention(small_spec, small_plan):
    floor = next(run for run in small_plan.runs if run.row.is_floor)
    assert set(to_params(floor, small_spec)) == {"row", "seed", "recipe", "backbone"}


def test_the_config_writes_defaults_out(small_spec, small_plan):
    config = to_config(small_plan.runs[1], small_spec)
    assert config["attention"][0]["window_size"] == 7
    assert config["training"]["opt"] == "adamw"
    assert config["cell_id"] == small_plan.runs[1].row.cell.id


@pytest.mark.parametrize(
    ("curve", "written"),
    [
        pytest.param((), {"val/top1": 70.0, "params": 5.0}, id="no epoch"),
        pytest.param((EpochMetrics(1, 9, {"val/top1": 70.0}),), {"params": 5.0}, id="written by the last epoch"),
        pytest.param((EpochMetrics(1, 9, {"val/top1": 60.0}),), {"val/top1": 70.0, "params": 5.0}, id="differs"),
    ],
)
def test_a_final_metric_that_the_last_epoch_has_written_is_not_written_twice(curve, written):
    record = Record("cell", "row", 0, RunStatus.OK, {"val/top1": 70.0, "params": 5.0}, curve)
    assert to_final_metrics(record) == written


def test_of_two_values_at_one_epoch_the_curve_has_the_epochs_own():
    histories = {
        STEPS: [Metric(STEPS, 10, 100, 1), Metric(STEPS, 20, 200, 2)],
        "val/top1": [
            Metric("val/top1", 65.0, 300, 2),
            Metric("val/top1", 50.0, 100, 1),
            Metric("val/top1", 60.0, 200, 2),
        ],
        "test/top1": [Metric("test/top1", 64.0, 300, 0)],
    }
    assert to_curve(histories) == (EpochMetrics(1, 10, {"val/top1": 50.0}), EpochMetrics(2, 20, {"val/top1": 60.0}))


def test_an_infinite_loss_comes_back_infinite():
    stored = 1.7976931348623157e308
    curve = to_curve({STEPS: [Metric(STEPS, 10, 100, 1)], "train/loss": [Metric("train/loss", stored, 100, 1)]})
    assert curve[0].metrics["train/loss"] == math.inf
