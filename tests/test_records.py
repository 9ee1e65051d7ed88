"""The committed record files have the numbers of the committed tables."""

from pathlib import Path
from statistics import fmean

import pandas as pd
import pytest

from harness.cell import Cell
from harness.commands.verify import verify
from harness.record import RunStatus
from harness.tracking.record_files import read_runs

RESULTS = Path(__file__).parents[1] / "results"
FILES = sorted(RESULTS.glob("*/runs/*.jsonl"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_table_has_the_means_of_its_committed_runs(path: Path) -> None:
    table = pd.read_csv(path.parents[1] / f"{path.stem}.csv").set_index("row")
    scores: dict[str, list[float]] = {}
    for run in read_runs(path):
        assert run.record.status == RunStatus.OK
        scores.setdefault(run.record.row, []).append(run.record.metrics["test/top1"])
    assert set(scores) == set(table.index[table["seeds"] > 0])
    for row, values in scores.items():
        assert (len(values), fmean(values)) == (table.loc[row, "n"], pytest.approx(table.loc[row, "top1_mean"]))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_committed_runs_have_cells_predictions_and_a_trace(path: Path) -> None:
    for run in read_runs(path):
        assert Cell.from_dict(run.config).id == run.record.cell_id
        assert run.record.provenance["trace"]
        right = (run.per_image["predictions"] == run.per_image["labels"]).mean()
        assert 100 * right == pytest.approx(run.record.metrics["test/top1"])
    assert sum(file.stat().st_size for file in (path, path.with_suffix(".npz"))) < 1_000_000


@pytest.mark.slow
def test_every_number_of_committed_tables_follows_from_their_runs() -> None:
    """Tables without runs are named too; they have nothing that their numbers could follow from."""
    found = [each for each in verify([RESULTS], RESULTS) if each.has_runs]
    assert len(found) == len(FILES)
    assert [line for each in found for line in each.differences] == []
