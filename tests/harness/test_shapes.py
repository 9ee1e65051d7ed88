import subprocess
import sys
from pathlib import Path

import pytest

from harness.build import describe_stages
from harness.costs import measure_cost
from harness.files import find_cache
from harness.plan import Plan
from harness.shapes import Shape, find_shapes
from harness.stages import StageInfo


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return find_cache() / "shapes"


def find(plan: Plan, code: str = "code") -> dict[str, Shape]:
    cells = [row.cell for row in plan.rows]
    return find_shapes(cells, {cell.id: code for cell in cells})


def measure_nothing(*_: object) -> None:
    raise AssertionError("a shape that is known was measured")


def test_a_shape_is_measured_once(small_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = find(small_plan)
    for row in small_plan.rows:
        shape = measured[row.cell.id]
        assert {"params": shape.params, "macs": shape.macs} == measure_cost(row.cell)
        assert list(shape.stages) == describe_stages(row.cell)
    monkeypatch.setattr("harness.shapes.measure_shape", measure_nothing)
    assert find(small_plan) == measured
    assert all(isinstance(stage, StageInfo) for shape in measured.values() for stage in shape.stages)


def test_other_code_or_a_damaged_file_is_measured_again(
    small_plan: Plan, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = find(small_plan)
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert find(small_plan) == measured
    monkeypatch.setattr("harness.shapes.measure_shape", measure_nothing)
    with pytest.raises(AssertionError, match="measured"):
        find(small_plan, "other code")


def test_a_cache_that_cannot_be_written_costs_time_alone(small_plan: Plan, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    assert find(small_plan).keys() == {row.cell.id for row in small_plan.rows}


def test_a_plan_whose_cells_are_known_imports_no_torch(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    code = f"from harness.cli import main; main(['plan', 'table1', '--recipe', 'smoke', '--tracking-uri', {uri!r}])"
    told = [
        subprocess.run(
            [sys.executable, "-c", f"{code}; import sys; print('torch' in sys.modules)"],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        ).stdout.splitlines()
        for _ in range(2)
    ]
    assert [lines[-1] for lines in told] == ["True", "False"]
    assert told[0][:-1] == told[1][:-1]
