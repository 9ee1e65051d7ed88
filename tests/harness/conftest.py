"""A small experiment that needs no file, records of it, and a tracking store that needs no migration."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from harness.cell import Cell
from harness.plan import Plan, make_plan
from harness.record import EpochMetrics, Record, RunStatus
from harness.spec import (
    BackbonesSpec,
    CellSpec,
    DataSpec,
    DeitSpec,
    ExperimentSpec,
    LimitsSpec,
    PublishedSpec,
    RecipeSpec,
    RowSpec,
    SourceSpec,
    SwinSpec,
    TrainingSpec,
    VoloSpec,
)
from harness.tracking import MlflowTracker
from harness.tracking.record_files import PortableRun
from harness.tracking.translation import to_config

PROVENANCE = {
    "code_digest": "c0de",
    "data_digest": "da7a",
    "commit": "8c1f0e2",
    "dirty": "false",
    "python": "3.11.7",
    "torch": "2.14.1",
    "device": "AMD EPYC",
    "threads": "1",
    "kernels": "cpu (avx512)",
    "instructions": "AVX512",
}

TOP1 = {
    "Swin-T": (84.0, 84.4, 84.1),
    "Net1": (83.0, 83.5, 83.1),
    "Net7-N": (84.3, 84.2, 84.6),
    "Linear classifier": (80.0, 80.0, 80.1),
    "One hidden layer": (81.0, 81.2, 81.1),
}

MakeRecord = Callable[..., Record]


@pytest.fixture(scope="session")
def small_spec() -> ExperimentSpec:
    """Three rows and two floors, three seeds; `Net1` lacks a term, `Net7-N` slides in stage 1."""
    return ExperimentSpec(
        name="small",
        title="A small experiment",
        source=SourceSpec(paper="arXiv:2112.12786v1", table=1),
        recipe=RecipeSpec(
            name="tiny",
            title="nobody trains this",
            floor_width=8,
            data=DataSpec(
                name="fashion_mnist", num_classes=10, channels=1, image_size=28, train_images=100, val_images=50
            ),
            backbones=BackbonesSpec(
                swin=SwinSpec(patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(2, 4), window_size=7)
            ),
            training=TrainingSpec(lr=1e-3, batch_size=10, epochs=2),
            limits=LimitsSpec(time_limit_minutes=5),
        ),
        baseline="Swin-T",
        rows={
            "Swin-T": RowSpec(),
            "Net1": RowSpec(parameterization=("query_key",)),
            "Net7-N": RowSpec(preset="net7", stages={"not_last": RowSpec(neighborhood="sliding_window")}),
        },
        published={"Swin-T": PublishedSpec(top1=81.3, quoted=True), "Net1": PublishedSpec(top1=80.1)},
    )


@pytest.fixture(scope="session")
def small_plan(small_spec: ExperimentSpec) -> Plan:
    """Five rows, fifteen runs."""
    return make_plan(small_spec)


@pytest.fixture
def spec() -> ExperimentSpec:
    """One row under a recipe that has sizes of three backbones."""
    recipe = RecipeSpec(
        name="tiny",
        title="Tiny",
        data=DataSpec(name="fashion_mnist", num_classes=10, channels=1, image_size=28, val_images=200),
        backbones=BackbonesSpec(
            swin=SwinSpec(patch_size=2, embed_dim=12, depths=(2, 1, 1), num_heads=(1, 2, 4), window_size=5),
            volo=VoloSpec(patch_size=2, layers=(2, 1, 1), embed_dims=(12, 24, 24), num_heads=(2, 4, 6)),
            volo_d2=VoloSpec(patch_size=2, layers=(4, 1, 1), embed_dims=(12, 24, 24), num_heads=(2, 4, 6)),
            deit=DeitSpec(patch_size=4, embed_dim=12, depth=2, num_heads=(3,)),
        ),
        training=TrainingSpec(lr=1e-3, batch_size=16, epochs=2),
    )
    return ExperimentSpec(name="mine", title="Mine", recipe=recipe, baseline="A", rows={"A": RowSpec()}, seeds=2)


@pytest.fixture(scope="session")
def plan_cell() -> Callable[..., Cell]:
    """The cell of one row, written as in a file."""

    def plan(spec: ExperimentSpec, row: dict[str, Any], *, cell: dict[str, Any] | None = None) -> Cell:
        base = CellSpec.model_validate(cell or {})
        changed = spec.model_copy(update={"cell": base, "rows": {"A": RowSpec.model_validate(row)}})
        return make_plan(changed, is_derived=True).rows[0].cell

    return plan


@pytest.fixture(scope="session")
def vary_recipe() -> Callable[..., ExperimentSpec]:
    """The spec with fields of one part of its recipe changed."""

    def vary(spec: ExperimentSpec, part: str, **changes: Any) -> ExperimentSpec:
        recipe = spec.recipe
        if part == "swin":
            assert recipe.backbones.swin is not None
            swin = recipe.backbones.swin.model_copy(update=changes)
            return spec.model_copy(
                update={"recipe": recipe.model_copy(update={"backbones": BackbonesSpec(swin=swin)})},
            )
        if part in ("volo", "deit"):
            sizes = getattr(recipe.backbones, part).model_copy(update=changes)
            backbones = recipe.backbones.model_copy(update={part: sizes})
            return spec.model_copy(update={"recipe": recipe.model_copy(update={"backbones": backbones})})
        if part == "augmentation":
            augmentation = recipe.training.augmentation.model_copy(update=changes)
            return vary(spec, "training", augmentation=augmentation)
        changed: BaseModel = getattr(recipe, part).model_copy(update=changes)
        return spec.model_copy(update={"recipe": recipe.model_copy(update={part: changed})})

    return vary


@pytest.fixture
def make_record(small_plan: Plan) -> MakeRecord:
    """A record of a row and a seed; `digests` are of code and data."""
    rows = {row.name: row for row in small_plan.rows}

    def make(
        name: str,
        seed: int = 0,
        status: RunStatus = RunStatus.OK,
        *,
        digests: tuple[str, str] = ("c0de", "da7a"),
        **changes: object,
    ) -> Record:
        top1 = TOP1[name][seed]
        record = Record(
            cell_id=rows[name].cell.id,
            row=name,
            seed=seed,
            status=status,
            metrics={
                "test/top1": top1,
                "test/top5": 99.0,
                "val/top1": top1 + 0.5,
                "train/images_per_second": 450.0,
                "params": 226_100.0 if name == "Net7-N" else 137_000.0,
                "macs": 3_900_000.0,
                "seconds": 60.0,
            },
            curve=tuple(EpochMetrics(epoch, 10 * epoch, {"val/top1": top1 - 9 * 0.1**epoch}) for epoch in range(1, 9)),
            provenance={**PROVENANCE, "code_digest": digests[0], "data_digest": digests[1]},
            end_time=1_795_000_000.0 + seed,
        )
        return replace(record, **changes)

    return make


@pytest.fixture
def records(make_record: MakeRecord) -> list[Record]:
    """All fifteen runs, all good."""
    return [make_record(name, seed) for seed in range(3) for name in TOP1]


@pytest.fixture
def portable_runs(small_plan: Plan, records: list[Record]) -> list[PortableRun]:
    """The same as they are in a record file, without predictions."""
    planned = {(run.row.name, run.seed): run for run in small_plan.runs}
    return [
        PortableRun(
            origin=f"{number:032x}",
            experiment=small_plan.spec.name,
            title=small_plan.spec.title,
            recipe=small_plan.spec.recipe.name,
            overrides=(),
            levels={},
            config=to_config(planned[record.row, record.seed], small_plan.spec),
            started=0.0,
            record=record,
        )
        for number, record in enumerate(records)
    ]


@pytest.fixture(scope="session")
def ready_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; its migrations take seconds, so that tests copy it."""
    path: Path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowTracker(f"sqlite:///{path}").store.create()
    return path


@pytest.fixture
def tracking_uri(ready_database: Path, tmp_path: Path) -> str:
    """A store of the test's own."""
    path = tmp_path / "store" / "mlflow.db"
    path.parent.mkdir()
    shutil.copyfile(ready_database, path)
    return f"sqlite:///{path}"
