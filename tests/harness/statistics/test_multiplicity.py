import math

import numpy as np
import pytest
from scipy import stats

from harness.statistics import Dunnett, holm
from harness.statistics.multiplicity import find_critical


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


# Dunnett (1964), Table II: two-sided 5 % points for comparisons with a control, correlation 1/2.
@pytest.mark.parametrize(
    ("m", "df", "printed"), [(2, 5, 3.03), (4, 10, 2.89), (9, 20, 2.95), (7, 60, 2.69), (3, 12, 2.68), (1, 7, 2.36)]
)
def test_critical_values_are_the_printed_ones(m, df, printed):
    assert find_critical(0.05, m, 0.5, np.array([df]))[0] == pytest.approx(printed, abs=0.006)


@pytest.mark.parametrize(("m", "correlation", "df"), [(3, 0.5, 4.0), (7, 0.3, 14.0), (2, 0.8, 2.0)])
def test_p_values_are_those_of_the_multivariate_t_distribution(m, correlation, df):
    shape = np.full((m, m), correlation) + (1 - correlation) * np.eye(m)
    (t,) = find_critical(0.05, m, correlation, np.array([df]))
    inside = stats.multivariate_t(shape=shape, df=df, seed=0).cdf(np.full(m, t), lower_limit=np.full(m, -t))
    assert 1 - inside == pytest.approx(0.05, abs=0.001)


def test_many_against_one_are_adjusted_as_by_scipy():
    """The smallest p-value of the step-down test is that of the single-step test."""
    groups = np.random.default_rng(1).normal(0, 1, (5, 6)) + np.array([[0], [0.1], [1.9], [0.4], [-0.9]])
    theirs = stats.dunnett(*groups[1:], control=groups[0], random_state=np.random.default_rng(0))
    ours = Dunnett(tuple(theirs.statistic), (25.0,) * 4, 0.5).adjust()
    assert min(ours) == pytest.approx(min(theirs.pvalue), abs=0.001)
    assert all(p <= other + 0.001 for p, other in zip(ours, theirs.pvalue, strict=True))


def test_adjusted_p_values_keep_the_order_of_the_statistics():
    adjusted = Dunnett((3.0, -3.2, 0.4, 1.0), (14.0,) * 4, 0.5).adjust()
    assert adjusted[1] < adjusted[0] < adjusted[3] <= adjusted[2] <= 1
    assert math.isclose(adjusted[2], 2 * stats.t.sf(0.4, 14), abs_tol=0.001)


@pytest.mark.parametrize("df", [1.0, 2.0, 14.0, 1000.0])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("m", [1, 2, 30, 100])
def test_critical_values_have_the_level_that_they_state(m, correlation, df):
    (t,) = find_critical(0.05, m, correlation, np.array([df]))
    z, z_weights = np.polynomial.hermite_e.hermegauss(80)
    x, s_weights = np.polynomial.legendre.leggauss(400)
    s = np.sqrt(stats.chi2.ppf(((1 + x) / 2) ** 6, df) / df)[:, None]
    shared, rest = math.sqrt(correlation) * z, math.sqrt(1 - correlation)
    inside = (stats.norm.cdf((t * s + shared) / rest) - stats.norm.cdf((shared - t * s) / rest)) ** m
    level = 1 - (3 * ((1 + x) / 2) ** 5 * s_weights) @ inside @ z_weights / math.sqrt(2 * math.pi)
    assert level == pytest.approx(0.05, abs=0.001)


def test_further_tests_of_the_family_count_as_if_they_proved_nothing():
    assert holm([0.01, 0.02], others=2) == holm([0.01, 0.02, 1.0, 1.0])[:2]
    open_ones = Dunnett((3.0, 2.4), (20.0, 20.0), 0.5, others=2)
    everything = Dunnett((3.0, 2.4, 0.0, 0.0), (20.0,) * 4, 0.5)
    assert open_ones.adjust() == pytest.approx(everything.adjust()[:2])
    assert open_ones.find_critical(0.03) == pytest.approx(everything.find_critical(0.03)[:2])
