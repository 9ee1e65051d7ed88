import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from mlflow.entities import Metric

from harness.errors import Cause
from harness.record import EpochMetrics, Record, RunStatus
from harness.tracking.process import ProcessIdentity
from harness.tracking.translation import (
    STEPS,
    read_json_tag,
    to_config,
    to_curve,
    to_final_metrics,
    to_outcome_tags,
    to_params,
    to_process,
    to_record,
    to_start_tags,
)


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


PROVENANCE = {"code_digest": "c0de", "torch": "2.14.1", "device": "a processor"}
PROCESS = ProcessIdentity("box", 7, 12.5)


def make_run(tags):
    data = SimpleNamespace(tags=tags, params={"row": "Net7", "seed": "0"}, metrics={})
    return SimpleNamespace(data=data, info=SimpleNamespace(run_id="1", end_time=0, status="FINISHED"))


def test_what_is_not_searched_for_is_in_one_tag_each(small_spec, small_plan):
    tags = to_start_tags(small_plan.runs[0], small_spec, {**PROVENANCE, "commit": "abc"}, PROCESS)
    assert not [name for name in tags if name.startswith(("provenance.", "process.", "limit."))]
    assert {"provenance", "process", "cell_id"} <= set(tags)
    assert len(tags) < 10


@pytest.mark.parametrize("written", ["today", "earlier"])
def test_provenance_limits_and_process_are_read_whoever_wrote_them(written):
    record = Record("cell", "Net7", 0, RunStatus.OK, {}, (), PROVENANCE, limits={"memory_limit_gb": 4.0}, run_id="1")
    earlier = {
        "status": "ok",
        **{f"provenance.{name}": value for name, value in PROVENANCE.items()},
        "limit.memory_limit_gb": "4.0",
    }
    outcome = to_outcome_tags(record) if written == "today" else earlier
    owner = {"process.host": "box", "process.pid": "7", "process.started": "12.5"}
    tags = {"cell_id": "cell", "process": '{"host": "box", "pid": "7", "started": "12.5"}', **outcome}
    run = make_run(tags if written == "today" else {"cell_id": "cell", **owner, **outcome})
    assert to_record(run) == record
    assert to_process(run) == PROCESS


def test_a_tag_of_json_that_is_damaged_has_no_values():
    assert read_json_tag("provenance", {"provenance": '{"torch": "2.1'}) == {}


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


def test_the_cause_of_a_divergence_is_kept_and_older_stores_have_none():
    record = Record(
        "cell", "Net7", 0, RunStatus.DIVERGED, {}, (), {}, "the norm of the gradients is nan", 412,
        Cause.GRADIENT, "layers.0.blocks.1.attn", run_id="1",
    )  # fmt: skip
    tags = {"cell_id": "cell", **to_outcome_tags(record)}
    assert to_record(make_run(tags)) == record
    older = {name: tag for name, tag in tags.items() if name not in ("status_cause", "status_module")}
    assert to_record(make_run(older)) == replace(record, cause=None, module="")
