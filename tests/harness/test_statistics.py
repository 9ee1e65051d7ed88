import math
import warnings

import numpy as np
import pytest
from scipy import stats

from harness.record import RunStatus
from harness.statistics import (
    Agreement,
    Comparison,
    Summary,
    Verdict,
    average_curves,
    compare,
    compare_expectation,
    decide,
    holm,
    is_under_trained,
    summarize,
)


@pytest.mark.parametrize(
    ("values", "summary"),
    [
        pytest.param([], Summary(0, None, None), id="none"),
        pytest.param([81.0], Summary(1, 81.0, None), id="one"),
        pytest.param([80.0, 82.0], Summary(2, 81.0, math.sqrt(2)), id="two"),
    ],
)
def test_a_summary_says_no_more_than_n_allows(values, summary):
    assert summarize(values) == summary


@pytest.fixture
def pair() -> tuple[dict[int, float], dict[int, float]]:
    values = np.random.default_rng(0).normal(80, 0.3, size=(2, 6))
    return dict(enumerate(values[0].tolist())), dict(enumerate(values[1].tolist()))


def test_the_interval_and_p_value_are_those_of_the_paired_t_test(pair):
    row, baseline = pair
    ours, theirs = compare(row, baseline), stats.ttest_rel(list(row.values()), list(baseline.values()))
    assert ours.t_p == pytest.approx(theirs.pvalue)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert ours.delta == pytest.approx((ours.low + ours.high) / 2)


def test_the_sign_flip_p_value_is_that_of_the_exact_permutation_test(pair):
    row, baseline = pair
    differences = np.array(list(row.values())) - np.array(list(baseline.values()))
    theirs = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert compare(row, baseline).sign_flip_p == pytest.approx(theirs.pvalue)


def test_three_seeds_of_one_sign_have_the_smallest_sign_flip_p_value():
    assert compare({0: 2.0, 1: 3.0, 2: 5.0}, {0: 1.0, 1: 1.0, 2: 1.0}).sign_flip_p == 0.25


def test_only_seeds_that_both_rows_have_are_compared():
    comparison = compare({0: 5.0, 2: 7.0, 3: 9.0}, {0: 4.0, 1: 0.0, 2: 5.0})
    assert (comparison.n, comparison.delta) == (2, 1.5)


def test_rows_without_a_common_seed_are_not_compared():
    assert compare({0: 1.0}, {1: 1.0}) is None


def test_one_seed_has_no_interval():
    assert compare({0: 82.0}, {0: 81.0}) == Comparison(n=1, delta=1.0)


@pytest.mark.parametrize("difference", [0.0, 0.3], ids=["none", "constant"])
def test_equal_differences_prove_nothing_and_warn_of_nothing(difference):
    baseline = {0: 80.1, 1: 81.7, 2: 79.3}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        comparison = compare({seed: value + difference for seed, value in baseline.items()}, baseline)
    assert comparison.delta == pytest.approx(difference)
    assert (comparison.low, comparison.high, comparison.t_p) == (None, None, None)


def test_many_seeds_have_no_exact_sign_flip_p_value():
    row = {seed: 80.0 + seed % 3 for seed in range(17)}
    comparison = compare(row, dict.fromkeys(row, 80.0))
    assert comparison.sign_flip_p is None
    assert comparison.t_p is not None


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        pytest.param([], [], id="none"),
        pytest.param([0.04], [0.04], id="one"),
        pytest.param([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02], id="monotone"),
        pytest.param([0.01, None, 0.6], [0.02, None, 0.6], id="untested rows count for nothing"),
        pytest.param([0.7, 0.8], [1.0, 1.0], id="at most one"),
    ],
)
def test_holm_corrects_over_all_tests(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted)


@pytest.mark.parametrize(
    ("delta", "holm_p", "verdict"),
    [
        (0.5, 0.01, Verdict.BETTER),
        (-0.5, 0.01, Verdict.WORSE),
        (0.5, 0.05, Verdict.UNRESOLVED),
        (5.0, None, Verdict.UNRESOLVED),
    ],
)
def test_only_what_is_proven_is_decided(delta, holm_p, verdict):
    assert decide(delta, holm_p) == verdict


@pytest.mark.parametrize(
    ("statuses", "agreement"),
    [
        pytest.param(["diverged", "diverged"], Agreement.AS_PUBLISHED, id="all"),
        pytest.param(["diverged", "ok"], Agreement.DIFFERS, id="some"),
        pytest.param(["diverged", "failed"], Agreement.AS_PUBLISHED, id="a bug is no result"),
        pytest.param(["interrupted"], None, id="no result"),
    ],
)
def test_an_expectation_is_met_by_every_replicate_or_not_at_all(statuses, agreement):
    assert compare_expectation(RunStatus.DIVERGED, [RunStatus(status) for status in statuses]) == agreement


def test_curves_are_averaged_as_far_as_all_go():
    assert average_curves([[1.0, 2.0, 9.0], [3.0, 4.0]]) == [2.0, 3.0]
    assert average_curves([]) == []


SATURATED = [90 - 40 * 0.6**epoch for epoch in range(30)]
NOISE = [0.2 * (-1) ** epoch for epoch in range(30)]


@pytest.mark.parametrize(
    ("curve", "climbs"),
    [
        pytest.param([], False, id="nothing"),
        pytest.param([10.0, 10.0], True, id="too short to tell"),
        pytest.param([50.0 + epoch for epoch in range(20)], True, id="a line"),
        pytest.param(SATURATED, False, id="saturated"),
        pytest.param([a + b for a, b in zip(SATURATED, NOISE, strict=True)], False, id="saturated with noise"),
        pytest.param([a + 0.5 * i for i, a in enumerate(NOISE)], True, id="a line with noise"),
        pytest.param([80 + 0.001 * epoch for epoch in range(20)], False, id="climbs by less than the noise"),
        pytest.param([80.0 - epoch for epoch in range(20)], False, id="falls"),
        pytest.param([math.nan] * 8, False, id="not finite"),
    ],
)
def test_a_curve_that_still_climbs_is_under_trained(curve, climbs):
    assert is_under_trained(curve, 0.2) is climbs
