"""Error rates, coverage and power of a table's verdicts, by simulation; `docs/statistics.md` shows the figures."""

import pytest

from tests.harness.statistics.simulation import SETTINGS, simulate

TABLES = 4_000

POWER = {3: 0.30, 5: 0.65, 7: 0.85, 10: 0.95}
"""Of a true difference of two standard deviations of a row, under normal noise."""

LESS_POWER = {"normal": 0.0, "5 % diverged": 0.06}
"""How much less other noise may leave: with diverged runs there are fewer scores."""


@pytest.mark.slow
@pytest.mark.parametrize("seeds", POWER)
@pytest.mark.parametrize("setting", SETTINGS)
def test_verdicts_are_wrong_in_five_percent_of_tables_and_find_what_is_there(setting, seeds):
    figures = simulate(SETTINGS[setting], seeds, TABLES)
    assert figures.error <= (0.065 if setting == "uneven variances" else 0.055)
    assert 0.93 <= figures.coverage <= 0.97
    assert figures.power >= POWER[seeds] - LESS_POWER.get(setting, 0.01)
    assert figures.power > figures.paired
