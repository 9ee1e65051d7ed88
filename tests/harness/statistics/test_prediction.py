"""Intervals of one more run."""

import numpy as np
import pytest
from scipy import stats

from harness.statistics import predict_runs
from tests.harness.statistics.simulation import ROWS, SETTINGS, to_scores


@pytest.mark.parametrize("seeds", [3, 7])
def test_one_more_run_of_every_row_lies_within_its_interval_in_95_percent_of_tables(seeds):
    rng = np.random.default_rng(seeds)
    held = []
    for _ in range(1_000):
        table = SETTINGS["normal"](rng, seeds + 1)
        intervals = predict_runs(to_scores(table[:, :seeds]))
        held.append(all(low <= new <= high for (low, high), new in zip(intervals.values(), table[:, -1], strict=True)))
    assert 0.93 <= np.mean(held) <= 0.97
    assert len(intervals) == ROWS


def test_a_row_alone_has_the_textbook_interval():
    row = [80.0, 80.5, 81.5]
    (interval,) = predict_runs({"row": dict(enumerate(row))}).values()
    half_width = stats.t.ppf(0.975, 2) * np.std(row, ddof=1) * np.sqrt(1 + 1 / 3)
    assert interval == pytest.approx((np.mean(row) - half_width, np.mean(row) + half_width))


def test_a_row_with_one_score_has_no_interval():
    assert predict_runs({"row": {0: 80.0}}) == {}
