import pytest

from harness.statistics import ClaimVerdict, Verdict, decide, judge_claim


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


@pytest.mark.parametrize(
    ("gain", "p", "verdict"),
    [
        (0.5, 0.01, ClaimVerdict.REPRODUCED),
        (-0.5, 0.01, ClaimVerdict.CONTRADICTED),
        (0.5, 0.06, ClaimVerdict.UNRESOLVED),
        (0.5, None, ClaimVerdict.UNRESOLVED),
    ],
)
def test_a_claim_is_reproduced_by_a_proven_gain(gain, p, verdict):
    assert judge_claim(gain, p) == verdict
