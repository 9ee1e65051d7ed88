import pytest

from harness.record import RunStatus
from harness.table.entry import Agreement, compare_expectation


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
