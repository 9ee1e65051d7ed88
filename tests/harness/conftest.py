"""A small experiment that needs no file, and a tracking store that needs no migration."""

import shutil
from pathlib import Path

import pytest

from harness.plan import Plan, make_plan
from harness.spec import (
    BackbonesSpec,
    DataSpec,
    ExperimentSpec,
    LimitsSpec,
    PublishedSpec,
    RecipeSpec,
    RowSpec,
    SourceSpec,
    SwinSpec,
    TrainingSpec,
)
from harness.tracking import MlflowTracker


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
