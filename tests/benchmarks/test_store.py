"""The benchmark of the store adds runs that the tracker reads, and writes no result of a busy machine."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import load, store
from benchmarks.store import AROUND, MEMORY, SPEEDUP, Goal, add_runs
from harness.execution.adoption import adopt_runs
from harness.plan import make_plan
from harness.reading import load_spec
from harness.tracking import MlflowTracker

FOUND = {AROUND: 0.2, SPEEDUP: 1.5, MEMORY: 0.3}


@pytest.mark.slow
def test_the_added_runs_are_runs_of_other_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "EXPERIMENT", "table11")
    database, plan = tmp_path / "mlflow.db", make_plan(load_spec(Path("table11")))
    own = adopt_runs(plan, MlflowTracker(f"sqlite:///{database}"), Path("results"))
    add_runs(database, own + 1)
    tracker = MlflowTracker(f"sqlite:///{database}")
    assert set(tracker.list_experiments()) == {"table11", "other1000", "other1001"}
    assert len(tracker.find_runs()) == 3 * own
    assert len(tracker.find_runs_of(row.cell.id for row in plan.rows)) == own


@pytest.mark.parametrize(
    ("foreign", "verdicts"), [(0.0, ["met must", "unmet", "met must"]), (1.5, ["loaded: not a result"] * 3)]
)
def test_a_busy_machine_makes_no_result(
    foreign: float, verdicts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(_folder: Path, *, rounds: int) -> Iterator[tuple[Goal, float]]:
        assert rounds == 1
        yield from FOUND.items()

    monkeypatch.setattr(load, "measure_load", lambda _, **__: foreign)
    monkeypatch.setattr(store, "measure_all", measure)
    code = store.main(["--rounds", "1", "--allow-load", "--output", str(tmp_path)])
    assert code == (1 if foreign else 0)
    (csv,), (markdown,) = (list(tmp_path.glob(f"store-*.{suffix}")) for suffix in ("csv", "md"))
    frame = pd.read_csv(csv)
    assert frame["verdict"].tolist() == verdicts
    assert AROUND.what in markdown.read_text()
