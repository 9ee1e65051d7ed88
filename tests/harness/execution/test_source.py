"""Before anything is trained it is known that every run has the weights that it starts from."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import StoreError, WeightsError
from harness.execution.ledger import Digester
from harness.execution.source import check_sources, find_initial_weights, list_stale
from harness.initial import FromFile, FromRun, digest_file
from harness.plan import Plan, PlannedRun, make_plan
from harness.record import Record, RunStatus
from harness.spec import ExperimentSpec, RowSpec
from harness.tracking import MlflowTracker

MISSING = "train row 'Swin-T' under recipe 'tiny' first: larger starts from its weights"


@pytest.fixture
def source(plan: Plan) -> PlannedRun:
    return plan.runs[0]


@pytest.fixture
def run(source: PlannedRun) -> PlannedRun:
    initial = FromRun(source.row.cell.id, source.row.name, "tiny")
    return replace(source, row=replace(source.row, name="larger", cell=replace(source.row.cell, init_from=initial)))


def store(
    plan: Plan,
    tracker: MlflowTracker,
    run: PlannedRun,
    status: RunStatus,
    weights: Path | None,
    digests: tuple[str, str] = ("c0de", "da7a"),
) -> str:
    """A run that ended so; returns its id."""
    provenance = dict(zip(("code_digest", "data_digest"), digests, strict=True))
    tracker.prepare(plan.spec.name)
    parent_id = tracker.start_invocation(plan.spec, command="harness run", provenance={})
    run_id = tracker.start_run(run, spec=plan.spec, parent_id=parent_id, provenance=provenance)
    if weights is not None:
        tracker.log_file(run_id, weights)
    tracker.finish_run(run_id, Record(run.row.cell.id, run.row.name, run.seed, status, metrics={}, run_id=run_id))
    return run_id


def test_the_kept_weights_of_the_same_seed_are_found(
    plan: Plan, tracker: MlflowTracker, source: PlannedRun, run: PlannedRun, tmp_path: Path
) -> None:
    weights, folder = tmp_path / "weights.pt", tmp_path / "fetched"
    weights.write_bytes(b"trained")
    folder.mkdir()
    with pytest.raises(StoreError, match=MISSING):
        check_sources([run], tracker)
    run_id = store(plan, tracker, source, RunStatus.OK, weights)
    check_sources([run], tracker)
    found = find_initial_weights(run, tracker)
    assert found is not None
    assert found.fetch(tracker, folder).read_bytes() == b"trained"
    assert found.description.startswith(f"run {run_id} of row Swin-T under recipe tiny")
    with pytest.raises(StoreError, match=rf"{MISSING}, and the store has none of cell {source.row.cell.id}, seed 1"):
        check_sources([run, replace(run, seed=1)], tracker)


def test_a_run_without_result_or_without_weights_is_no_source(
    plan: Plan, tracker: MlflowTracker, source: PlannedRun, run: PlannedRun, tmp_path: Path
) -> None:
    (tmp_path / "weights.pt").write_bytes(b"half trained")
    store(plan, tracker, source, RunStatus.DIVERGED, tmp_path / "weights.pt")
    store(plan, tracker, source, RunStatus.OK, None)
    with pytest.raises(StoreError, match=MISSING):
        check_sources([run], tracker)


def test_a_file_that_changes_after_the_plan_is_refused(tracker: MlflowTracker, run: PlannedRun, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"planned")
    cell = replace(run.row.cell, init_from=FromFile(str(path), digest_file(path)))
    found = find_initial_weights(replace(run, row=replace(run.row, cell=cell)), tracker)
    assert found is not None
    assert found.fetch(tracker, tmp_path) == path
    path.write_bytes(b"changed")
    with pytest.raises(WeightsError, match="has changed since the plan was made"):
        found.fetch(tracker, tmp_path)


def test_from_scratch_there_is_no_source(tracker: MlflowTracker, source: PlannedRun) -> None:
    check_sources([source], tracker)
    assert find_initial_weights(source, tracker) is None


def test_a_source_that_older_code_has_trained_is_told(
    small_spec: ExperimentSpec, tracker: MlflowTracker, tmp_path: Path
) -> None:
    scratch = small_spec.recipe.model_copy(update={"floor_width": None})
    recipe = scratch.model_copy(update={"name": "finetune", "init_recipe": scratch})
    rows = {"Swin-T": RowSpec(), "larger": RowSpec(init_from="Swin-T", image_size=56)}
    spec = small_spec.model_copy(update={"recipe": recipe, "rows": rows, "published": {}, "seeds": 1})
    finetuned, trained = make_plan(spec), make_plan(spec.model_copy(update={"recipe": scratch}))
    weights, (source,) = tmp_path / "weights.pt", trained.runs
    weights.write_bytes(b"trained")
    run_id = store(trained, tracker, source, RunStatus.OK, weights)
    (told,) = list_stale(finetuned, tracker, data_dir=None)
    assert told.startswith(f"run {run_id}, row 'Swin-T' under recipe 'tiny', is stale")
    assert told.endswith("larger seed 0 starts from its weights")
    store(trained, tracker, source, RunStatus.OK, weights, digests=Digester(None).digest(source.row.cell))
    assert not list_stale(finetuned, tracker, data_dir=None)
