import math

import pytest

from harness.statistics import average_curves, is_under_trained


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
