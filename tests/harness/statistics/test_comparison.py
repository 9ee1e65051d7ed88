import math

import numpy as np
import pytest
from scipy import stats

from harness.statistics import Comparison, ErrorModel, Family, compare, compare_contrasts
from harness.statistics.error_model import PRIOR_DF


def make_scores(rows, seeds, *, spread=None, seed=0):
    """Noise with an effect of each seed, scores by row and seed."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1, (rows, seeds)) * (np.ones(rows) if spread is None else np.array(spread))[:, None]
    scores = 80 + noise + rng.normal(0, 2, seeds)
    return {f"row {index}": dict(enumerate(own.tolist())) for index, own in enumerate(scores)}


def test_two_rows_are_compared_by_the_paired_t_test():
    scores = make_scores(2, 6)
    ours = compare(scores, "row 0")["row 1"]
    theirs = stats.ttest_rel(list(scores["row 1"].values()), list(scores["row 0"].values()))
    assert (ours.p, ours.t_p, ours.holm_p) == pytest.approx((theirs.pvalue,) * 3, abs=1e-4)
    assert ours.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)), abs=1e-4)
    assert ours.df == 5


def test_residuals_are_those_of_a_two_way_analysis_of_variance():
    scores = make_scores(5, 4)
    table = np.array([list(own.values()) for own in scores.values()])
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    model = ErrorModel(scores)
    assert model.df == 4 * 3
    weight = PRIOR_DF / (PRIOR_DF + 3)
    own = ((rest**2).sum(1) / 3 - (rest**2).sum() / 12 / 5) / (1 - 2 / 5)
    expected = weight * np.maximum(own, 0).mean() + (1 - weight) * np.maximum(own, 0)
    assert list(model.variances.values()) == pytest.approx(list(expected))


def test_seeds_that_two_rows_alone_have_tell_less_of_their_variance():
    scores = make_scores(8, 12)
    full = ErrorModel(scores).estimate({"row 1": 1, "row 0": -1}).df
    stopped = {row: own if row in ("row 0", "row 1") else {s: own[s] for s in range(3)} for row, own in scores.items()}
    model = ErrorModel(stopped)
    assert model.df == 7 * 2 + 9
    assert model.estimate({"row 1": 1, "row 0": -1}).df < min(full, model.df)


def test_a_row_that_shares_no_seed_hardly_changes_the_comparisons_of_others():
    scores = make_scores(4, 6)
    alone = {**scores, "row 3": {"other": 80.0, "another": 95.0}}
    del scores["row 3"]
    first, second = (compare(each, "row 0")["row 1"] for each in (scores, alone))
    assert second.delta == pytest.approx(first.delta)
    assert (second.error, second.df, *second.interval) == pytest.approx(
        (first.error, first.df, *first.interval), rel=0.2
    )


def test_effects_of_seeds_do_not_count_as_noise():
    scores = make_scores(4, 5)
    moved = {row: {seed: score + 100 * seed for seed, score in own.items()} for row, own in scores.items()}
    first, second = (compare(each, "row 0")["row 2"] for each in (scores, moved))
    assert (second.delta, second.error, second.p) == pytest.approx((first.delta, first.error, first.p), rel=1e-6)


def test_estimates_do_not_depend_on_the_order_of_rows_and_seeds():
    scores = make_scores(4, 5)
    turned = {row: dict(reversed(list(own.items()))) for row, own in reversed(list(scores.items()))}
    first, second = compare(scores, "row 0")["row 3"], compare(turned, "row 0")["row 3"]
    assert (second.delta, second.error, second.p) == pytest.approx((first.delta, first.error, first.p))


def test_a_seed_that_a_row_lacks_is_bridged_by_the_other_rows():
    scores = make_scores(5, 6)
    del scores["row 2"][5]
    item = compare(scores, "row 0")["row 2"]
    design = [(row, seed, score) for row, own in scores.items() for seed, score in own.items()]
    columns = [[float(row == name) for row, _, _ in design] for name in list(scores)[1:]]
    columns += [[float(seed == other) for _, seed, _ in design] for other in range(6)]
    solved = np.linalg.lstsq(np.array(columns).T, np.array([score for *_, score in design]))[0]
    assert (item.n, item.delta) == (5, pytest.approx(solved[1]))


def test_a_row_with_an_outlying_variance_is_judged_by_its_own():
    scores = make_scores(8, 7, spread=[1, 1, 1, 1, 1, 1, 1, 8])
    compared = compare(scores, "row 0")
    assert [name for name, item in compared.items() if item.has_own_variance] == ["row 7"]
    assert compared["row 7"].error > 3 * compared["row 1"].error
    assert compared["row 7"].df < 10 < compared["row 1"].df


def test_a_baseline_with_an_outlying_variance_marks_every_row():
    compared = compare(make_scores(8, 7, spread=[8, *[1] * 7]), "row 0")
    assert all(item.has_own_variance for item in compared.values())


def test_rows_of_one_seed_have_a_difference_alone():
    scores = make_scores(4, 5)
    scores["row 3"] = {0: 85.0}
    compared = compare(scores, "row 0")
    assert compared["row 3"] == Comparison(1, pytest.approx(85.0 - scores["row 0"][0]))
    assert compared["row 2"].p is not None


def test_rows_without_a_common_seed_are_not_compared():
    assert compare({"a": {0: 1.0}, "b": {1: 1.0}}, "a") == {"b": None}


def test_only_blocks_that_all_rows_have_are_pairs():
    compared = compare({"row": {0: 5.0, 2: 7.0, 3: 9.0}, "base": {0: 4.0, 1: 0.0, 2: 5.0}}, "base")["row"]
    assert compared.n == 2


@pytest.mark.parametrize("difference", [0.0, 0.3], ids=["none", "constant"])
def test_scores_without_noise_prove_nothing(difference):
    base = {0: 80.1, 1: 81.7, 2: 79.3}
    compared = compare({"base": base, "row": {seed: score + difference for seed, score in base.items()}}, "base")["row"]
    assert compared.delta == pytest.approx(difference)
    assert (compared.interval, compared.p, compared.t_p) == (None, None, None)


def test_an_interval_never_contradicts_its_p_value():
    for seed in range(60):
        scores = make_scores(6, 3, seed=seed)
        for name in list(scores)[1:4]:
            scores[name] = {block: score + 3.0 for block, score in scores[name].items()}
        for item in compare(scores, "row 0").values():
            assert (item.p < 0.05) == (item.low >= 0 or item.high <= 0)


def test_any_contrasts_are_corrected_by_holm_and_bonferroni():
    scores = make_scores(5, 6)
    contrasts = [{"row 1": 1.0, "row 2": -1.0}, {"row 3": 1.0, "row 0": -0.5, "row 4": -0.5}]
    compared = compare_contrasts(scores, contrasts, Family.HOLM)
    model = ErrorModel(scores)
    single = sorted(2 * stats.t.sf(abs(item.delta) / item.error, item.df) for item in compared)
    assert sorted(item.p for item in compared) == pytest.approx([2 * single[0], max(2 * single[0], single[1])])
    first = compared[0]
    assert first.high - first.low == pytest.approx(2 * stats.t.ppf(1 - 0.05 / 4, first.df) * first.error)
    assert first.error == pytest.approx(math.sqrt((model.variances["row 1"] + model.variances["row 2"]) / 6))


def test_a_contrast_of_means_is_estimated_exactly_without_missing_seeds():
    scores = make_scores(3, 4)
    means = {row: float(np.mean(list(own.values()))) for row, own in scores.items()}
    (item,) = compare_contrasts(scores, [{"row 0": 0.5, "row 1": 0.5, "row 2": -1.0}], Family.HOLM)
    assert item.delta == pytest.approx((means["row 0"] + means["row 1"]) / 2 - means["row 2"])


def test_the_rest_that_rounding_leaves_of_equal_means_is_zero():
    scores = {"A": dict(enumerate([88.44, 87.58, 84.21])), "B": dict(enumerate([87.58, 84.21, 88.44]))}
    comparison = compare(scores, "A")["B"]
    assert str(comparison.delta) == "0.0"
    assert comparison.low == -comparison.high
