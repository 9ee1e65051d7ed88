"""Looks, levels and reasons to stop; error, power and saved runs by simulation."""

from typing import get_args

import numpy as np
import pytest

from harness.spec.experiment import MaxSeeds
from harness.statistics import (
    LOOKS,
    Comparison,
    Decision,
    Family,
    Reason,
    Rule,
    Verdict,
    compare,
    decide_look,
    plan_looks,
)
from harness.statistics.sequential import LAST_ALPHA
from tests.harness.statistics.sequential_simulation import CONTRASTS, NAMES, follow, simulate_sequential
from tests.harness.statistics.simulation import SETTINGS, to_scores

TABLES = 2_000
RULE = Rule(Family.DUNNETT)


def make_table(seeds=12, *, seed=0, **differences):
    """Noise with a standard deviation of 1; `row_1=3.0` moves a row."""
    table = np.random.default_rng(seed).standard_normal((len(NAMES), seeds))
    for name, difference in differences.items():
        table[NAMES.index(name.replace("_", " "))] += difference
    return table


@pytest.mark.parametrize("max_seeds", LAST_ALPHA)
def test_looks_are_fixed_in_advance_and_leave_most_of_the_error_to_the_last(max_seeds):
    looks = plan_looks(max_seeds)
    assert [look.seeds for look in looks] == [seeds for seeds in LOOKS if seeds <= max_seeds]
    alphas = [look.alpha for look in looks]
    assert alphas == sorted(alphas)
    assert alphas[-1] < 0.05 < sum(alphas) < 0.08
    assert [look.is_last for look in looks] == [False] * (len(looks) - 1) + [True]
    assert looks[-1].futile_t == 0


def test_an_experiment_may_end_at_every_look_but_the_first():
    assert get_args(MaxSeeds) == tuple(LAST_ALPHA) == LOOKS[1:]
    with pytest.raises(ValueError, match="end at one of 5, 7, 9, 12, got 3"):
        plan_looks(3)


def test_the_first_look_is_a_table_of_three_seeds_at_a_stricter_level():
    look, scores = plan_looks(12)[0], to_scores(make_table(3))
    decided = decide_look(look, scores, CONTRASTS, {}, RULE)
    assert {name: item.comparison for name, item in decided.items()} == compare(scores, NAMES[0], look.alpha)


@pytest.mark.parametrize(
    ("difference", "sign", "reason"),
    [(9.0, 1, Reason.BETTER), (-9.0, 1, Reason.WORSE), (9.0, -1, Reason.WORSE)],
    ids=["larger", "smaller", "larger where less is better"],
)
def test_a_proven_row_stops(difference, sign, reason):
    decided = decide_look(
        plan_looks(12)[0], to_scores(make_table(3, row_1=difference)), CONTRASTS, {}, Rule(Family.DUNNETT, sign)
    )
    assert decided["row 1"].reason == reason


def make_comparison(delta, *, p=0.5, half_width=1.0):
    return Comparison(3, delta, delta - half_width, delta + half_width, p, error=1.0, df=20.0)


@pytest.mark.parametrize(
    ("comparison", "margin", "reason"),
    [
        pytest.param(make_comparison(0.1), 1.2, Reason.EQUIVALENT, id="interval within the margin"),
        pytest.param(make_comparison(0.1), 1.0, Reason.FUTILE, id="small t"),
        pytest.param(make_comparison(0.6), 1.0, Reason.OPEN, id="neither"),
        pytest.param(make_comparison(0.6, p=0.04), 1.0, Reason.OPEN, id="proven at 5 %, not at this look"),
        pytest.param(Comparison(1, 0.1), 1.0, Reason.OPEN, id="no test"),
    ],
)
def test_a_row_stops_early_where_it_is_equivalent_or_futile(comparison, margin, reason):
    assert Rule(Family.DUNNETT, margin=margin).find_reason(plan_looks(12)[0], comparison) == reason


def test_at_the_last_look_every_row_stops():
    look = plan_looks(12)[-1]
    assert RULE.find_reason(look, make_comparison(2.0)) == Reason.EXHAUSTED
    assert RULE.find_reason(look, None) == Reason.EXHAUSTED


def test_a_futile_row_stays_in_the_family_and_a_proven_one_leaves_it():
    look, scores = plan_looks(12)[1], to_scores(make_table(5))
    full = decide_look(look, scores, CONTRASTS, {}, RULE)

    def find_smallest_p(reason):
        past = {name: Decision(reason, look, None) for name in NAMES[1:4]}
        decided = decide_look(look, scores, CONTRASTS, past, RULE)
        assert list(decided) == [*NAMES[4:]]
        return min(item.comparison.p for item in decided.values())

    smallest = min(full[name].comparison.p for name in NAMES[4:])
    assert find_smallest_p(Reason.BETTER) < find_smallest_p(Reason.FUTILE)
    assert find_smallest_p(Reason.FUTILE) >= smallest - 0.02


def test_comparisons_of_other_scores_count_until_they_are_proven():
    look, scores = plan_looks(12)[0], to_scores(make_table(3, row_1=2.0))
    contrasts = {"row 1": CONTRASTS["row 1"]}

    def find_p(reason):
        past = {} if reason is None else {"elsewhere": Decision(reason, look, None)}
        return decide_look(look, scores, contrasts, past, Rule(Family.HOLM))["row 1"].comparison.p

    assert find_p(Reason.BETTER) == find_p(None)
    assert find_p(Reason.OPEN) == find_p(Reason.FUTILE) == pytest.approx(2 * find_p(None), rel=1e-6)


def test_a_row_that_is_kept_for_a_claim_is_not_futile():
    look, scores = plan_looks(12)[0], to_scores(make_table(3))
    futile = [name for name, item in decide_look(look, scores, CONTRASTS, {}, RULE).items() if item.reason == "futile"]
    kept = decide_look(look, scores, CONTRASTS, {}, RULE, kept=futile)
    assert futile
    assert all(kept[name].is_open for name in futile)


def test_a_thinned_row_stops_without_a_verdict():
    scores = to_scores(make_table(3, row_1=9.0))
    decided = decide_look(plan_looks(12)[0], scores, CONTRASTS, {}, RULE, thinned=["row 1"])
    assert decided["row 1"].reason == Reason.THINNED
    assert decided["row 1"].reason.verdict == Verdict.UNRESOLVED


def test_decisions_are_final():
    table = make_table(row_1=9.0)
    decided, runs = follow(table, 12)
    assert (decided["row 1"].reason, decided["row 1"].look.seeds) == (Reason.BETTER, 3)
    table[1, 3:] -= 100.0  # nobody has trained these
    assert follow(table, 12)[0]["row 1"] == decided["row 1"]
    assert runs < table.size
    assert not any(item.is_open for item in decided.values())


@pytest.mark.slow
def test_looks_keep_the_error_rate_and_save_runs_where_no_row_differs():
    figures = simulate_sequential(SETTINGS["normal"], different=0, tables=TABLES)
    assert figures.error <= 0.055
    assert figures.saved >= 0.25


@pytest.mark.slow
@pytest.mark.parametrize(("different", "saved"), [(1, 0.28), (2, 0.25), (4, 0.18)])
def test_rows_that_differ_are_found_as_often_as_with_ten_seeds_in_fewer_runs(different, saved):
    figures = simulate_sequential(SETTINGS["normal"], different=different, tables=TABLES)
    assert figures.error <= 0.055
    assert figures.power >= figures.fixed_power
    assert figures.saved >= saved
