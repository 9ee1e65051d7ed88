"""A small plan and a store of its own."""

from pathlib import Path

import pytest

from harness.execution import RunOptions
from harness.plan import Plan, make_plan
from harness.spec import ExperimentSpec
from harness.tracking import MlflowTracker


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures have tests of their own, and take half a second a table."""
    monkeypatch.setattr("harness.report.write.ON_EVERY_PAGE", ())


@pytest.fixture
def plan(small_spec: ExperimentSpec) -> Plan:
    """Two rows, two seeds, no floors: every run costs the store a quarter of a second."""
    rows = {name: row for name, row in small_spec.rows.items() if name != "Net1"}
    recipe = small_spec.recipe.model_copy(update={"floor_width": None})
    return make_plan(small_spec.model_copy(update={"rows": rows, "recipe": recipe, "seeds": 2}))


@pytest.fixture
def tracker(tracking_uri: str) -> MlflowTracker:
    return MlflowTracker(tracking_uri)


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    return RunOptions(tmp_path / "results")
