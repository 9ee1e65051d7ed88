"""Which verdicts rest on the test images."""

from dataclasses import replace

import numpy as np
import pytest

from harness.table.results import make_results

IMAGES = 1_000


def predict(records, *, always_wrong):
    """Predictions with the top-1 of each record; `always_wrong` images are those that a row's runs never get right."""
    rng, labels, made = np.random.default_rng(0), np.zeros(IMAGES, dtype=int), {}
    for record in records:
        wrong = round(IMAGES * (1 - record.metrics["test/top1"] / 100))
        fixed = always_wrong.get(record.row, np.arange(0))[:wrong]
        others = rng.permutation(np.setdiff1d(np.arange(IMAGES), fixed))[: wrong - len(fixed)]
        predictions = labels.copy()
        predictions[[*fixed, *others]] = 1
        made[record.run_id] = {"predictions": predictions, "labels": labels}
    return lambda record: made[record.run_id]


def change_top1(record, score):
    return replace(record, metrics={**record.metrics, "test/top1": score})


@pytest.fixture
def runs(make_record):
    """Three seeds of two rows, eight points apart."""
    scores = {"Swin-T": (70.0, 70.2, 69.8), "Net7-N": (78.1, 77.9, 78.0)}
    return [
        change_top1(make_record(row, seed, run_id=f"{row} {seed}"), score)
        for row, own in scores.items()
        for seed, score in enumerate(own)
    ]


def read_row(plan, runs, read):
    frame = make_results(plan, runs, read_predictions=read).frame
    return frame[frame["row"] == "Net7-N"].iloc[0]


def test_a_verdict_holds_where_training_decides_which_images_are_wrong(small_plan, runs):
    row = read_row(small_plan, runs, predict(runs, always_wrong={}))
    assert row["verdict"] == "better"
    assert row["image_error"] < 0.5
    assert "these images" not in row["marks"]


def test_a_verdict_rests_on_images_of_which_one_row_never_gets_some_right(small_plan, runs):
    images = np.arange(IMAGES)
    read = predict(runs, always_wrong={"Swin-T": images[:300], "Net7-N": images[-220:]})
    row = read_row(small_plan, runs, read)
    assert row["verdict"] == "better"
    assert row["image_error"] == pytest.approx(100 * np.sqrt(0.52 / IMAGES), rel=0.03)
    assert "these images" not in row["marks"]  # eight points are more than three such errors
    closer = [change_top1(run, run.metrics["test/top1"] - 6.5) if run.row == "Net7-N" else run for run in runs]
    row = read_row(small_plan, closer, predict(closer, always_wrong={"Swin-T": images[:300], "Net7-N": images[-280:]}))
    assert row["verdict"] == "better"
    assert "these images" in row["marks"]


def test_runs_without_predictions_say_nothing_of_images(small_plan, runs):
    row = read_row(small_plan, runs, lambda _record: {})
    assert row["verdict"] == "better"
    assert np.isnan(row["image_error"])
