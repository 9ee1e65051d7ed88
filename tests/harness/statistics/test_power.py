import math

import numpy as np
import pytest
from scipy import stats

from harness.statistics import Comparison, Verdict, find_outlook
from harness.statistics.multiplicity import find_critical
from harness.statistics.power import MAX_SEEDS

SCORES = {"base": {0: 1.0, 1: 2.0, 2: 3.0}, "row": {0: 1.5, 1: 2.4, 2: 3.6}}


def make_outlook(delta, *, margin=0.2, verdict=Verdict.UNRESOLVED, n=3, error=0.3, df=14.0):
    compared = {"row": Comparison(n, delta, delta - 1, delta + 1, 0.5, error, df)}
    return find_outlook(SCORES, "base", compared, {"row": verdict}, margin)


def test_the_detectable_difference_is_found_four_times_out_of_five():
    outlook = make_outlook(0.5)
    (critical,) = find_critical(0.05, 1, 0.5, np.array([14.0]))
    found = stats.nct.sf(critical, 14.0, outlook.detectable / 0.3) + stats.nct.cdf(
        -critical, 14.0, outlook.detectable / 0.3
    )
    assert found == pytest.approx(0.8, abs=1e-3)


def test_more_seeds_are_needed_for_smaller_differences():
    counts = [make_outlook(delta, margin=0.0).seeds["row"] for delta in (1.0, 0.5, 0.25)]
    assert counts == sorted(counts)
    assert counts[0] > 3
    assert counts[2] / counts[1] == pytest.approx(4, rel=0.2)


def test_a_small_difference_is_settled_as_equivalent():
    assert make_outlook(0.0, margin=0.5).seeds["row"] == make_outlook(0.5, margin=0.5).seeds["row"]


def test_a_difference_near_zero_without_a_margin_cannot_be_settled():
    assert make_outlook(0.001, margin=0.0).seeds == {"row": None}
    assert MAX_SEEDS >= 1000


def test_settled_rows_need_no_seeds():
    assert make_outlook(2.0, verdict=Verdict.BETTER).seeds == {}


def test_without_a_test_there_is_no_outlook():
    assert find_outlook(SCORES, "base", {"row": Comparison(1, 0.5)}, {}, 0.2) is None


def test_the_ratio_of_variances_shows_whether_pairing_helps():
    rows = {name: list(own.values()) for name, own in SCORES.items()}
    paired = np.var(np.subtract(rows["row"], rows["base"]), ddof=1)
    expected = paired / (np.var(rows["row"], ddof=1) + np.var(rows["base"], ddof=1))
    assert math.isclose(make_outlook(0.5).variance_ratio, expected)
