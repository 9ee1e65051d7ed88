import pytest

from harness.statistics import (
    ClaimVerdict,
    Verdict,
    decide,
    decide_equality,
    judge_equality,
    judge_order,
    judge_outcome,
)


@pytest.mark.parametrize(
    ("gain", "p", "interval", "verdict"),
    [
        pytest.param(0.5, 0.01, (0.1, 0.9), Verdict.BETTER, id="proven gain"),
        pytest.param(-0.5, 0.01, (-0.9, -0.1), Verdict.WORSE, id="proven loss"),
        pytest.param(0.5, 0.05, (0.0, 1.0), Verdict.UNRESOLVED, id="not proven"),
        pytest.param(5.0, None, None, Verdict.UNRESOLVED, id="no test"),
        pytest.param(0.05, 0.4, (-0.1, 0.19), Verdict.EQUIVALENT, id="within the margin"),
        pytest.param(0.05, 0.4, (-0.1, 0.2), Verdict.UNRESOLVED, id="reaches the margin"),
        pytest.param(0.1, 0.01, (0.05, 0.15), Verdict.BETTER, id="proven within the margin"),
    ],
)
def test_only_what_is_proven_is_decided(gain, p, interval, verdict):
    assert decide(gain, p, interval, margin=0.2) == verdict


def test_without_a_margin_no_row_is_equivalent():
    assert decide(0.0, 0.9, (-0.001, 0.001)) == Verdict.UNRESOLVED


BETTER, WORSE, EQUIVALENT, UNRESOLVED = Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT, Verdict.UNRESOLVED
SUPPORTED, REFUTED, UNDECIDED = ClaimVerdict.SUPPORTED, ClaimVerdict.REFUTED, ClaimVerdict.UNDECIDED


@pytest.mark.parametrize(
    ("gain", "interval", "verdict"),
    [
        pytest.param(0.1, (-0.19, 0.19), EQUIVALENT, id="inside"),
        pytest.param(0.15, (0.12, 0.18), EQUIVALENT, id="inside without zero"),
        pytest.param(0.1, (-0.1, 0.2), UNRESOLVED, id="reaches the margin"),
        pytest.param(0.4, (0.1, 0.7), UNRESOLVED, id="over the margin and inside"),
        pytest.param(0.5, (0.21, 0.8), BETTER, id="beyond"),
        pytest.param(-0.5, (-0.8, -0.21), WORSE, id="beyond on the other side"),
        pytest.param(-0.5, (0.21, 0.8), WORSE, id="beyond where less is better"),
        pytest.param(0.0, None, UNRESOLVED, id="no interval"),
    ],
)
def test_rows_are_equal_where_the_whole_interval_is_within_the_margin(gain, interval, verdict):
    assert decide_equality(gain, interval, 0.2) == verdict


@pytest.mark.parametrize(
    ("verdicts", "claim"),
    [
        ([BETTER], SUPPORTED),
        ([BETTER, BETTER], SUPPORTED),
        ([BETTER, UNRESOLVED], UNDECIDED),
        ([BETTER, EQUIVALENT], UNDECIDED),
        ([UNRESOLVED, WORSE], REFUTED),
        ([BETTER, WORSE], REFUTED),
    ],
)
def test_an_order_needs_a_proof_for_every_pair_and_one_proof_refutes_it(verdicts, claim):
    assert judge_order(verdicts) == claim


@pytest.mark.parametrize(
    ("verdict", "claim"), [(EQUIVALENT, SUPPORTED), (UNRESOLVED, UNDECIDED), (BETTER, REFUTED), (WORSE, REFUTED)]
)
def test_a_proven_difference_in_either_direction_refutes_equality(verdict, claim):
    assert judge_equality(verdict) == claim


@pytest.mark.parametrize(("num_expected", "claim"), [(3, SUPPORTED), (2, UNDECIDED), (1, UNDECIDED), (0, REFUTED)])
def test_an_outcome_needs_every_run(num_expected, claim):
    assert judge_outcome(num_expected, 3) == claim
