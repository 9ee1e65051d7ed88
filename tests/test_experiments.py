"""Every shipped experiment can be run under every shipped recipe."""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.cell import Cell
from harness.data import check_data
from harness.errors import DataError
from harness.initial import FromRun
from harness.plan import Plan, make_plan
from harness.reading import get_shipped_dir, list_recipes, load_recipe, load_spec
from harness.search import load_search
from harness.search.space import make_space
from harness.spec import CellSpec, RowSpec, TokenLabelsSpec
from paradigms.config import AttentionConfig

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet
    from torch import nn

SEARCHES = sorted(get_shipped_dir().glob("*_search.yaml"))
EXPERIMENTS = sorted(set(get_shipped_dir().glob("*.yaml")) - set(SEARCHES))
RECIPES = sorted((get_shipped_dir() / "recipes").glob("*.yaml"))

pytestmark = pytest.mark.usefixtures("quick_meta")

every_experiment = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda path: path.stem)
every_search = pytest.mark.parametrize("search", SEARCHES, ids=lambda path: path.stem)
every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
every_recipe_from_scratch = pytest.mark.parametrize(
    "recipe", [path for path in RECIPES if path.stem != "finetune"], ids=lambda path: path.stem
)


def list_built(*left_out: str) -> "list[ParameterSet]":
    """Recipes whose models are built; those of `overnight` are those of `laptop`, as a test below says."""
    return [
        pytest.param(path, id=path.stem, marks=() if path.stem == "laptop" else pytest.mark.slow)
        for path in RECIPES
        if path.stem not in ("overnight", *left_out)
    ]


every_built_recipe = pytest.mark.parametrize("recipe", list_built())


def plan(experiment: Path, recipe: Path) -> Plan:
    return make_plan(load_spec(experiment, recipe=recipe.stem))


def test_experiments_and_recipes_are_shipped() -> None:
    assert {f"table{number}" for number in (1, 2, 3, 4, 5, 6, 9, 11)} <= {path.stem for path in EXPERIMENTS}
    assert {"smoke", "laptop", "overnight", "gpu", "imagenet", "finetune"} <= {path.stem for path in RECIPES}


@every_experiment
@every_recipe
def test_every_experiment_plans_under_every_recipe_and_cells_survive_as_json(experiment: Path, recipe: Path) -> None:
    planned = plan(experiment, recipe)
    assert planned.spec.recipe.name == recipe.stem
    assert len(planned.runs) == planned.spec.seeds * len(planned.rows)
    for row in planned.rows:
        assert Cell.from_dict(json.loads(json.dumps(row.cell.to_dict()))) == row.cell


@cache
def build_on_meta(cell: Cell) -> "nn.Module":
    """Of each cell once: many stand in several experiments."""
    from harness.build import build_model

    return build_model(cell, replicate=None, device="meta")


@pytest.mark.slow
@every_experiment
@every_built_recipe
def test_every_row_builds(experiment: Path, recipe: Path) -> None:
    for row in plan(experiment, recipe).rows:
        assert all(parameter.is_meta for parameter in build_on_meta(row.cell).parameters()), row.name


def find_cells(name: str, recipe: str) -> dict[str, str]:
    return {row.name: row.cell.id for row in make_plan(load_spec(Path(name), recipe=recipe)).rows if not row.is_floor}


@pytest.mark.parametrize("recipe", ["laptop", "imagenet"])
def test_what_stands_in_several_experiments_is_trained_once(recipe: str) -> None:
    table2, table3, table5 = (find_cells(name, recipe) for name in ("table2", "table3", "table5"))
    assert find_cells("table9", recipe).items() <= table2.items()
    assert set(find_cells("figure1", recipe).values()) <= set(table5.values())
    order = find_cells("ijcv_table5", recipe)
    assert (order["Net6-N"], order["Net7-N"]) == (table3["Net6-N"], table3["Net7-N by unfolding"])
    assert set(find_cells("table1", recipe).values()) <= set(find_cells("eq4_factorial", recipe).values())
    assert find_cells("table4", recipe)["ELSA"] == table5["Swin-T, ELSA"]


@pytest.mark.parametrize(("name", "plot"), [("table9", "curve"), ("figure1", "size"), ("figure2", "heads")])
def test_what_the_paper_shows_as_a_figure_is_drawn(name: str, plot: str) -> None:
    assert load_spec(Path(name)).plots == (plot,)


@every_experiment
def test_every_row_of_an_experiment_is_another_cell(experiment: Path) -> None:
    """But for a placebo, which is the baseline's."""
    for recipe in ("laptop", "imagenet"):
        rows = [row for row in make_plan(load_spec(experiment, recipe=recipe)).rows if not row.is_placebo]
        assert len({row.cell.id for row in rows}) == len(rows)


@every_recipe_from_scratch
def test_where_table_3_switches_maps_are_two_windows_wide(recipe: Path) -> None:
    from harness.build import describe_stages

    rows = {row.name: row.cell for row in plan(get_shipped_dir() / "table3.yaml", recipe).rows}
    *switched, last = describe_stages(rows["Net7"])
    assert all(min(stage.map_size) >= 2 * max(stage.size) for stage in switched)
    assert [stage.neighborhood for stage in describe_stages(rows["Net7-N by unfolding"])] == [
        *["sliding_window"] * len(switched),
        "local_window",
    ]
    assert last.is_global


SOLVED_BY_HAND = {
    "smoke": (18.9, 12.63, 12.63, 19.1, 5.32, 4.5, 4.5, 18.0, 18.5, 18.5, 21.6, 15.5, 15.5, 12.94),
    "laptop": (11.44, 8.5, 8.5, 12.04, 4.54, 4.1, 4.1, 11.0, 11.5, 11.5, 13.3, 9.72, 9.72, 8.47),
    "gpu": (4.0, 4.37, 4.37, 5.0, 3.73, 3.73, 3.73, 4.0, 4.5, 4.5, 5.07, 3.93, 3.93, 3.86),
    "imagenet": (4.01, 4.33, 4.33, 5.0, 3.66, 3.66, 3.66, 4.0, 4.5, 4.5, 5.1, 3.9, 3.9, 3.8),
}
"""The MLP ratios of Net1 to Net7 by parameters, then by multiply-adds, before the plan solved them."""


@pytest.mark.parametrize("recipe", list_built("finetune"))
def test_matched_rows_are_as_near_to_the_baseline_as_those_solved_by_hand(recipe: Path) -> None:
    from harness.costs import count_cost

    matched = [row for row in plan(get_shipped_dir() / "table1_matched.yaml", recipe).rows if row.solution is not None]
    by_hand = SOLVED_BY_HAND[recipe.stem]
    assert len(matched) == len(by_hand)
    for row, ratio in zip(matched, by_hand, strict=True):
        solution = row.solution
        assert solution is not None
        assert abs(solution.difference) <= 0.005
        stated = replace(row.cell, sizes=row.cell.sizes.model_copy(update={"mlp_ratio": ratio}))
        cost = count_cost(stated, solution.measure)
        assert abs(solution.cost - solution.target) <= abs(cost - solution.target), row.name


def test_net7_is_judged_with_controls_of_the_size_of_the_baseline() -> None:
    spec = load_spec(Path("table1_matched"))
    assert [claim.text for claim in spec.claims] == ["Net7 better than Swin-T"] * 2
    controls = [spec.rows[claim.matched["Net7"]].match for claim in spec.claims]
    assert [control.measure for control in controls if control is not None] == ["params", "macs"]
    assert spec.rows["Net7"].match is None


def test_the_factorial_has_all_subsets_of_terms() -> None:
    cells = [row.cell for row in make_plan(load_spec(Path("eq4_factorial"))).rows if not row.is_floor]
    assert len(cells) == 90
    assert len({cell.attention[0].parameterization for cell in cells if cell.attention[0]}) == 15


@every_search
@every_recipe_from_scratch
def test_every_search_has_its_space_under_every_recipe(search: Path, recipe: Path) -> None:
    space = make_space(load_search(search, recipe=recipe.stem))
    points = [{parameter.name: parameter.probes()[end] for parameter in space.parameters} for end in (0, -1)]
    cells = [space.find_cell("trial", point).cell for point in points]
    assert len({cell.id for cell in cells}) == 2
    assert all(build_on_meta(cell) for cell in cells)


def test_the_ghost_head_is_searched_around_the_papers_own_setting() -> None:
    spec = load_search(Path("experiments/ghost_head_search.yaml"))
    space = make_space(spec)
    paper = space.find_cell("trial", {"ghost_lambda": 0.0, "ghost_gamma": 1.0}).cell
    stated = {row.name: row.cell.id for row in make_plan(spec.to_experiment()).rows}
    assert paper.id == stated[spec.baseline] == find_cells("table4", "laptop")["ELSA"]
    assert stated["No ghost head"] == find_cells("table4", "laptop")["Hadamard"]
    assert spec.seeds >= 5
    assert spec.study.seed not in range(spec.seeds)


@pytest.mark.parametrize("path", [*EXPERIMENTS, *SEARCHES, *RECIPES], ids=lambda path: path.stem)
def test_every_file_opens_with_what_it_is_and_its_command(path: Path) -> None:
    opening = path.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in opening)
    verb = "search" if path in SEARCHES else "run"
    assert any(f"harness {verb} experiments/" in line for line in opening)


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
    assert (training.smoothing, training.ema_decay, training.precision) == (0.1, None, "float16")
    assert (training.position_decay, training.schedule_unit) == (True, "epoch")
    assert training.augmentation.model_dump(exclude_defaults=True) == {
        "hflip": 0.5,
        "reprob": 0.25,
        "erasing": "after_mixing",
        "interpolation": "random",
        "scale": (0.08, 1.0),
        "auto_augment": "rand-m9-mstd0.5-inc1",
        "color_jitter": 0.4,
        "mixup": 0.8,
        "cutmix": 1.0,
    }
    assert (spec.data.image_size, spec.data.crop_pct, spec.data.interpolation) == (224, 0.9, "bicubic")
    assert swin is not None
    assert (swin.embed_dim, swin.depths, swin.num_heads, swin.drop_path_rate) == (96, (2, 2, 6, 2), (3, 6, 12, 24), 0.1)


def test_imagenet_trains_deit_as_its_authors() -> None:
    deit = load_spec(Path("table11"), recipe="imagenet").recipe.training_of["deit"]
    assert (deit.lr, deit.batch_size, deit.weight_decay, deit.clip_grad) == (1e-3, 1024, 0.05, None)
    assert (deit.epochs, deit.schedule_unit) == (300, "epoch")
    assert (deit.augmentation.interpolation, deit.augmentation.erasing) == ("bicubic", "before_mixing")


def test_imagenet_trains_volo_by_token_labels_and_averages_the_largest() -> None:
    recipe = load_spec(Path("experiments/table6.yaml"), recipe="imagenet").recipe
    volo = {name: training for name, training in recipe.training_of.items() if name.startswith("volo")}
    assert {name: training.lr for name, training in volo.items()} == {
        **{"volo": 1.6e-3, "volo_d2": 1e-3, "volo_d3": 1e-3, "volo_d4": 1e-3, "volo_d5": 8e-4}
    }
    for training in volo.values():
        assert training.token_labels == TokenLabelsSpec(grid=14, weight=0.5, mix_token=1.0)
        assert (training.augmentation.mixup, training.augmentation.cutmix, training.clip_grad) == (0, 0, None)
        assert (training.epochs, training.augmentation.reprob) == (300, 0.25)
    averaged = {name: training.ema_decay for name, training in recipe.training_of.items() if training.ema_decay}
    assert averaged == {"swin_base": 0.99992, "volo_d5": 0.99992}


def test_swin_t_has_both_drop_paths() -> None:
    rows = make_plan(load_spec(Path("drop_path"), recipe="imagenet")).rows
    assert {row.name: row.cell.sizes.drop_path_rate for row in rows} == {  # type: ignore[attr-defined]
        **{"Swin-T": 0.1, "Swin-T, drop path 0.2": 0.2, "ELSA-Swin-T": 0.1}
    }
    assert rows[0].cell.id in find_cells("table1", "imagenet").values()


def test_imagenet_has_the_papers_backbones() -> None:
    from paradigms.models import SIZES

    backbones = load_spec(Path("experiments/table1.yaml"), recipe="imagenet").recipe.backbones
    names = {"swin_tiny": "swin", "volo_d1": "volo", "deit_tiny": "deit"}
    for name, size in SIZES.items():
        sizes = getattr(backbones, names.get(name, name)).model_dump()
        assert {key: sizes[key] for key in size.arguments} == size.arguments, name


def test_finetune_has_the_backbones_of_imagenet() -> None:
    finetune, imagenet = (load_spec(Path("table6"), recipe=name).recipe for name in ("finetune", "imagenet"))
    assert finetune.backbones == imagenet.backbones
    assert finetune.init_recipe == imagenet


def test_finetune_trains_the_larger_images_of_table_6_from_the_rows_of_imagenet() -> None:
    trained = {row.name: row.cell for row in make_plan(load_spec(Path("table6"), recipe="imagenet")).rows}
    rows = [row.cell for row in make_plan(load_spec(Path("table6"), recipe="finetune")).rows]
    assert [cell.data.image_size for cell in rows] == [384, 384, 448, 448, 448, 512, 512]
    sources = {name: FromRun(cell.id, name, "imagenet") for name, cell in trained.items() if "VOLO" in name}
    assert [cell.init_from for cell in rows] == list(sources.values())
    for cell, source in zip(rows, sources, strict=True):
        assert (cell.attention, cell.sizes) == (trained[source].attention, trained[source].sizes)


def test_elsa_in_volo_is_under_imagenet_what_timm_gets_by_name() -> None:
    from paradigms.models import MODELS

    cells = {row.name: row.cell for row in make_plan(load_spec(Path("table6"), recipe="imagenet")).rows}
    for size in ("d1", "d3", "d5"):
        stated, named = cells[f"ELSA-VOLO-{size.upper()}"].attention[0], MODELS[f"elsa_volo_{size}"].attention[0]
        assert isinstance(named, AttentionConfig)
        assert stated == replace(named, window_size=stated.window_size if stated else 7)
    assert find_cells("table5", "imagenet")["VOLO-D1, ELSA"] == cells["ELSA-VOLO-D1"].id


@every_built_recipe
def test_every_backbone_of_a_recipe_builds(recipe: Path) -> None:
    from harness.build import build_model

    spec = load_spec(Path("experiments/table1.yaml"), recipe=recipe.stem)
    sizes = spec.recipe.backbones.model_dump(exclude_none=True)
    assert {"swin", "volo", "deit"} <= set(sizes)
    rows = {name: RowSpec(backbone=name) for name in sizes}
    recipe_alone = spec.recipe.model_copy(update={"init_recipe": None})
    planned = make_plan(spec.model_copy(update={"cell": CellSpec(), "rows": rows, "recipe": recipe_alone})).rows
    assert [row.name for row in planned if not row.is_floor] == list(sizes)
    for row in planned:
        assert build_model(row.cell, replicate=None, device="meta") is not None, row.name


def test_recipe_gpu_asks_for_what_cifar10_has(tmp_path: Path) -> None:
    recipe = load_spec(Path("experiments/table1.yaml"), recipe="gpu").recipe
    with pytest.raises(DataError, match="CIFAR-10 is not in"):  # all else is checked before the files
        check_data(recipe.data, recipe.training, data_dir=tmp_path)


def test_overnight_trains_the_cells_of_laptop() -> None:
    laptop, overnight = (
        load_spec(Path("experiments/table1.yaml"), recipe=name).recipe for name in ("laptop", "overnight")
    )
    assert overnight.backbones == laptop.backbones
    assert overnight.floor_width == laptop.floor_width
    shapes = {"num_classes", "channels", "image_size"}
    assert overnight.data.model_dump(include=shapes) == laptop.data.model_dump(include=shapes)


def test_the_rows_of_table_1_are_the_published_presets() -> None:
    presets = {"Swin-T": "swin", **{f"Net{number}": f"net{number}" for number in range(1, 8)}}
    overrides = [f"rows.{row}={{preset: {preset}}}" for row, preset in presets.items()]
    stated, named = (
        {row.name: row.cell.id for row in make_plan(load_spec(Path("table1"), overrides=pairs)).rows}
        for pairs in ((), overrides)
    )
    assert named == stated


def test_the_summary_of_a_recipe_states_what_runs_under_set() -> None:
    shown = load_spec(
        "table1",
        recipe="imagenet",
        overrides=[f"training.{x}" for x in ("epochs=1", "warmup_epochs=0", "cooldown_epochs=0")],
    )
    assert shown.recipe.summary == "ImageNet-1K, all images, 1 epoch"


@pytest.mark.parametrize("name", list_recipes())
def test_no_title_of_a_recipe_states_what_a_field_states(name: str) -> None:
    recipe = load_recipe(name)
    assert not re.search(r"\d+ (epochs?|images?)", recipe.title)
