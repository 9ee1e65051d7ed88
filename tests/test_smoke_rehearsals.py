"""Rehearsals of every shipped experiment: what CI compares, and confounds."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.confounds import check_confounds
from harness.plan import Plan
from harness.record import RunStatus
from harness.trace import Rehearsal
from tests.smoke_rehearsals import (
    COMMAND,
    EXPERIMENTS,
    Rehearsals,
    get_environment,
    load_plan,
    read_committed,
    write_committed,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That all processes of one call of pytest share: a cell of several experiments is rehearsed once."""
    base: Path = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smoke_rehearsals"
    shared.mkdir(exist_ok=True)
    return shared


@pytest.fixture(scope="session")
def rehearsals(folder: Path) -> Rehearsals:
    return Rehearsals(folder, workers=1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(scope="module", params=EXPERIMENTS)
def rehearsed(request: pytest.FixtureRequest, rehearsals: Rehearsals) -> Iterator[tuple[Plan, dict[str, Rehearsal]]]:
    plan = load_plan(request.param)
    yield plan, rehearsals.rehearse(plan)


def name_rows(plan: Plan, cells: set[str]) -> list[str]:
    return [f"{row.name} ({row.cell.id})" for row in plan.rows if row.cell.id in cells]


def test_no_shipped_experiment_has_a_confound(rehearsed: tuple[Plan, dict[str, Rehearsal]]) -> None:
    plan, made = rehearsed
    assert not name_rows(plan, {cell_id for cell_id, one in made.items() if one.status == RunStatus.FAILED})
    assert all(one.trace for one in made.values())
    check_confounds(plan, made)


def test_every_shipped_cell_computes_what_is_committed(rehearsed: tuple[Plan, dict[str, Rehearsal]]) -> None:
    plan, made = rehearsed
    environment = get_environment(made.values())
    known = next((traces for place, traces in read_committed() if place == environment), None)
    if known is None:
        pytest.skip(f"no rehearsals of this environment are committed; `{COMMAND}` writes them: {environment}")
    differing = {cell_id for cell_id, one in made.items() if known.get(cell_id, one.digest) != one.digest}
    assert not name_rows(plan, differing), f"other numbers than committed; where that is meant, `{COMMAND}`"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_shipped_cell_is_committed_in_some_environment(experiment: str) -> None:
    plan = load_plan(experiment)
    committed = {cell_id for _, traces in read_committed() for cell_id in traces}
    assert not name_rows(plan, {row.cell.id for row in plan.rows} - committed), f"`{COMMAND}` rehearses them"


@pytest.mark.parametrize("experiment", ["table1", "table2", "table9"])
def test_no_row_has_a_confound_under_laptop(rehearsals: Rehearsals, experiment: str) -> None:
    plan = load_plan(experiment, recipe="laptop")
    made = rehearsals.rehearse(plan)
    assert all(one.trace for one in made.values())
    check_confounds(plan, made)


def test_what_is_written_is_read_and_other_environments_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.smoke_rehearsals.COMMITTED", tmp_path / "smoke" / "rehearsals.json")
    here, there = {"torch": "2", "device": "a CPU"}, {"torch": "3", "device": "a CPU"}

    def make(cell_id: str, digest: str, environment: dict[str, str]) -> Rehearsal:
        return Rehearsal(cell_id, 0, "c0de", "da7a", environment, digest=digest)

    write_committed([make("b", "1:0", there)])
    write_committed([make("b", "1:1", here), make("a", "1:2", here)])
    write_committed([make("a", "1:3", here)])
    assert read_committed() == [(here, {"a": "1:3"}), (there, {"b": "1:0"})]
