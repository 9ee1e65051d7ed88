"""Every shipped experiment can be run under every shipped recipe."""

from pathlib import Path

import pytest

from harness.plan import Plan, make_plan
from harness.reading import get_shipped_dir, load_spec
from harness.spec import CellSpec, RowSpec

EXPERIMENTS = sorted(get_shipped_dir().glob("*.yaml"))
RECIPES = sorted((get_shipped_dir() / "recipes").glob("*.yaml"))

every_experiment = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda path: path.stem)
every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)


def plan(experiment: Path, recipe: Path) -> Plan:
    return make_plan(load_spec(experiment, recipe=recipe.stem))


def test_experiments_and_recipes_are_shipped() -> None:
    assert "table1" in {path.stem for path in EXPERIMENTS}
    assert {"smoke", "laptop", "overnight", "imagenet"} <= {path.stem for path in RECIPES}


@every_experiment
@every_recipe
def test_every_experiment_plans_under_every_recipe(experiment: Path, recipe: Path) -> None:
    planned = plan(experiment, recipe)
    assert planned.spec.recipe.name == recipe.stem
    assert len(planned.runs) == planned.spec.seeds * len(planned.rows)


@every_experiment
@every_recipe
def test_every_row_builds(experiment: Path, recipe: Path) -> None:
    from harness.build import build_model

    for row in plan(experiment, recipe).rows:
        model = build_model(row.cell, replicate=None, device="meta")
        assert all(parameter.is_meta for parameter in model.parameters()), row.name


@pytest.mark.parametrize("path", [*EXPERIMENTS, *RECIPES], ids=lambda path: path.stem)
def test_every_file_opens_with_what_it_is_and_its_command(path: Path) -> None:
    opening = path.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in opening)
    assert any("harness run experiments/" in line for line in opening)


def test_imagenet_is_the_papers_recipe() -> None:
    spec = load_spec(Path("experiments/table1.yaml"), recipe="imagenet").recipe
    training, swin = spec.training, spec.backbones.swin
    assert (training.opt, training.lr, training.lr_base_size, training.weight_decay) == ("adamw", 1e-3, 1024, 0.05)
    assert (training.epochs + training.cooldown_epochs, training.warmup_epochs, training.cooldown_epochs) == (
        310,
        20,
        10,
    )
    assert (training.warmup_lr, training.min_lr, training.clip_grad) == (1e-6, 1e-5, 5)
    assert (training.smoothing, training.ema_decay, training.amp) == (0.1, None, True)
    assert training.augmentation.model_dump(exclude_defaults=True) == {
        "hflip": 0.5,
        "reprob": 0.25,
        "scale": (0.08, 1.0),
        "auto_augment": "rand-m9-mstd0.5-inc1",
        "color_jitter": 0.4,
        "mixup": 0.8,
        "cutmix": 1.0,
    }
    assert (spec.data.image_size, spec.data.crop_pct, spec.data.interpolation) == (224, 0.9, "bicubic")
    assert swin is not None
    assert (swin.embed_dim, swin.depths, swin.num_heads, swin.drop_path_rate) == (96, (2, 2, 6, 2), (3, 6, 12, 24), 0.1)


def test_imagenet_has_the_papers_backbones() -> None:
    from paradigms.models import SIZES

    backbones = load_spec(Path("experiments/table1.yaml"), recipe="imagenet").recipe.backbones
    names = {"swin_tiny": "swin", "volo_d1": "volo", "deit_tiny": "deit"}
    for name, size in SIZES.items():
        sizes = getattr(backbones, names.get(name, name)).model_dump()
        assert {key: sizes[key] for key in size.arguments} == size.arguments, name


@every_recipe
def test_every_backbone_of_a_recipe_builds(recipe: Path) -> None:
    from harness.build import build_model

    spec = load_spec(Path("experiments/table1.yaml"), recipe=recipe.stem)
    sizes = spec.recipe.backbones.model_dump(exclude_none=True)
    assert {"swin", "volo", "deit"} <= set(sizes)
    rows = {name: RowSpec(backbone=name) for name in sizes}
    for row in make_plan(spec.model_copy(update={"cell": CellSpec(), "rows": rows})).rows:
        assert build_model(row.cell, replicate=None, device="meta") is not None, row.name


def test_overnight_trains_the_cells_of_laptop() -> None:
    laptop, overnight = (
        load_spec(Path("experiments/table1.yaml"), recipe=name).recipe for name in ("laptop", "overnight")
    )
    assert overnight.backbones == laptop.backbones
    assert overnight.floor_width == laptop.floor_width


def test_the_rows_of_table_1_are_the_published_presets() -> None:
    presets = {"Swin-T": "swin", **{f"Net{number}": f"net{number}" for number in range(1, 8)}}
    overrides = [f"rows.{row}={{preset: {preset}}}" for row, preset in presets.items()]
    stated, named = (
        {row.name: row.cell.id for row in make_plan(load_spec(Path("table1"), overrides=pairs)).rows}
        for pairs in ((), overrides)
    )
    assert named == stated
