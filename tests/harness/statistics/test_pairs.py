"""Paired tests against scipy's."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from harness.statistics import MAX_EXACT_SEEDS, PairedTest, Summary, compare_pairs, summarize


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
def differences():
    return np.random.default_rng(0).normal(0.2, 0.3, size=6).tolist()


def test_the_p_value_is_that_of_the_paired_t_test(differences):
    ours, theirs = compare_pairs(differences), stats.ttest_1samp(differences, 0)
    assert ours.t_p == pytest.approx(theirs.pvalue)
    assert ours.mean == pytest.approx(np.mean(differences))


def test_the_sign_flip_p_value_is_that_of_the_exact_permutation_test(differences):
    theirs = stats.permutation_test((np.array(differences),), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert compare_pairs(differences).sign_flip_p == pytest.approx(theirs.pvalue)


def test_three_seeds_of_one_sign_have_the_smallest_sign_flip_p_value():
    assert compare_pairs([1.0, 2.0, 4.0]).sign_flip_p == 0.25


def test_one_pair_has_no_test():
    assert compare_pairs([1.0]) == PairedTest(n=1, mean=1.0)


def test_no_pair_is_refused():
    with pytest.raises(ValueError, match="at least one difference"):
        compare_pairs([])


@pytest.mark.parametrize("difference", [0.0, 0.3], ids=["none", "constant"])
def test_equal_differences_prove_nothing_and_warn_of_nothing(difference):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compare_pairs([difference] * 3).t_p is None


def test_many_seeds_have_no_exact_sign_flip_p_value():
    test = compare_pairs([float(seed % 3) for seed in range(MAX_EXACT_SEEDS + 1)])
    assert test.sign_flip_p is None
    assert test.t_p is not None
