import json
import pickle
import re
from pathlib import Path

import pytest

from harness.errors import SpecError
from harness.reading import find_experiment, get_shipped_dir, load_spec
from harness.tracking.translation import read_overrides

EXPERIMENT = """\
title: Two rows
recipe: tiny
cell: {parameterization: [query_key]}
baseline: A
rows:
  A: {}
  B: {normalization: identity}
published:
  A: {top1: 81.3}
"""
RECIPE = """\
title: Tiny
data: {name: fashion_mnist, num_classes: 10, channels: 1, image_size: 28, val_images: 200}
backbones:
  swin: {patch_size: 2, embed_dim: 8, depths: [2, 1], num_heads: [1, 2]}
training: {lr: 1e-3, batch_size: 16, epochs: 1}
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "tiny.yaml").write_text(RECIPE)
    path = tmp_path / "mine.yaml"
    path.write_text(EXPERIMENT)
    return path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def message_of(path: Path, **options: object) -> str:
    with pytest.raises(SpecError) as caught:
        load_spec(path, **options)  # type: ignore[arg-type]
    return str(caught.value).replace(f"{path.parent}/", "")


def test_an_experiment_is_read_with_its_recipe(experiment: Path) -> None:
    spec = load_spec(experiment)
    assert (spec.name, spec.recipe.name, spec.baseline, list(spec.rows)) == ("mine", "tiny", "A", ["A", "B"])
    assert spec.recipe.training.lr == 1e-3
    assert spec.overrides == ()


def test_a_baseline_may_be_a_row_of_factors(experiment: Path) -> None:
    change(
        experiment, "rows:\n  A: {}\n  B: {normalization: identity}", "factors: {normalization: [softmax, identity]}"
    )
    change(experiment, "baseline: A", "baseline: softmax")
    change(experiment, "A: {top1: 81.3}", "softmax: {top1: 81.3}")
    assert load_spec(experiment).baseline == "softmax"


def test_a_quoted_number_needs_no_row(experiment: Path) -> None:
    change(experiment, "A: {top1: 81.3}", "CoAtNet-0: {top1: 81.6, params: 25, macs: 4.2, quoted: true}")
    assert load_spec(experiment).published["CoAtNet-0"].params == 25


@pytest.mark.parametrize(
    ("added", "message"),
    [
        pytest.param(
            "claims: [{better: [A, C]}]", "mine.yaml:10: claims.0.better.1: unknown row 'C'", id="claimed row"
        ),
        pytest.param(
            "claims:\n  - {better: [A, B]}\n  - {order: [A, B, Bb]}",
            "mine.yaml:12: claims.1.order.2: unknown row 'Bb'; did you mean 'B'?",
            id="row of an order",
        ),
        pytest.param(
            "claims: [{outcome: C, status: diverged}]",
            "mine.yaml:10: claims.0.outcome.0: unknown row 'C'",
            id="row of an outcome",
        ),
        pytest.param(
            "claims: [{equal: [A, B], matched: {A: C}}]",
            "mine.yaml:10: claims.0.matched.A: unknown row 'C'",
            id="control",
        ),
        pytest.param(
            "claims: [{equal: [A, B], matched: {C: A}}]",
            "mine.yaml:10: claims.0: matched: unknown row of this claim 'C'",
            id="row without part in the claim",
        ),
        pytest.param(
            "claims: [{equal: [A, B], matched: {A: B}}]",
            "mine.yaml:10: claims.0: B would be compared with itself",
            id="control against itself",
        ),
        pytest.param(
            "claims: [{better: [A, A]}]", "mine.yaml:10: claims.0: A would be compared with itself", id="itself"
        ),
        pytest.param(
            "claims: [{beter: [A, B]}]",
            "mine.yaml:10: claims.0: unknown claim 'beter'; did you mean 'better'?",
            id="kind",
        ),
        pytest.param(
            "claims: [{source: Table 1}]",
            "mine.yaml:10: claims.0: must name its kind: better, order, equal, outcome, faster, earlier",
            id="no kind",
        ),
        pytest.param(
            "claims: [{better: [A, B], equal: [A, B]}]",
            "mine.yaml:10: claims.0: must be of one kind, got better and equal",
            id="two kinds",
        ),
        pytest.param(
            "claims: [A better than B]",
            "mine.yaml:10: claims.0: must be a mapping, got 'A better than B'",
            id="no mapping",
        ),
        pytest.param(
            "claims: [{equal: [A, B], witin: 1}]",
            "mine.yaml:10: claims.0.witin: unknown key 'witin'; did you mean 'within'?",
            id="key",
        ),
        pytest.param("claims: [{better: [A]}]", "mine.yaml:10: claims.0.better.1: this key is missing", id="one row"),
        pytest.param(
            "claims: [{faster: [A, B], by: mac}]",
            "mine.yaml:10: claims.0.by: unknown value 'mac'; did you mean 'macs'?",
            id="cost",
        ),
        pytest.param(
            "claims: [{earlier: [A, B]}]", "mine.yaml:10: claims.0: must state either epoch or share", id="no time"
        ),
        pytest.param(
            "claims: [{earlier: [A, B], share: 1.0}]",
            "mine.yaml:10: claims.0.share: must be less than 1, got 1.0",
            id="share",
        ),
        pytest.param(
            "factors: {normalization: [softmax, softmax]}",
            "mine.yaml:10: factors: a level occurs twice in normalization",
            id="level twice",
        ),
        pytest.param(
            "factors: {parameterization: all}",
            "mine.yaml:10: factors.parameterization: must be subsets, or a list of lists of terms, got 'all'",
            id="subsets",
        ),
        pytest.param(
            "factors: {normalization: [softmx]}",
            "mine.yaml:10: factors.normalization.0: unknown normalization 'softmx'; did you mean 'softmax'?",
            id="level",
        ),
    ],
)
def test_a_mistake_in_claims_or_factors_is_told_with_its_line(experiment: Path, added: str, message: str) -> None:
    experiment.write_text(f"{EXPERIMENT}{added}\n")
    assert message_of(experiment).startswith(message)


def test_a_recipe_knows_the_one_that_it_starts_from(experiment: Path) -> None:
    (experiment.parent / "recipes" / "larger.yaml").write_text(f"{RECIPE}init_recipe: tiny\n")
    larger = load_spec(experiment, recipe="larger").recipe
    assert larger.init_recipe == load_spec(experiment).recipe
    assert load_spec(experiment, overrides=["init_recipe=smoke", "floor_width=null"]).recipe.init_recipe is not None


@pytest.mark.parametrize(
    ("added", "message"),
    [
        pytest.param(
            "init_recipe: tinny", "larger.yaml:6: init_recipe: unknown recipe 'tinny'; did you mean", id="unknown"
        ),
        pytest.param("init_recipe: larger", "larger.yaml:6: init_recipe: larger starts from another", id="itself"),
        pytest.param("init_recipe: finetune", "larger.yaml:6: init_recipe: finetune starts from another", id="chain"),
        pytest.param("init_recipe: {lr: 1}", "larger.yaml:6: init_recipe: unknown recipe", id="no name"),
        pytest.param("init_recipe: tiny\nfloor_width: 8", "floors are trained from scratch", id="floors"),
    ],
)
def test_a_recipe_that_cannot_start_from_another_is_told(experiment: Path, added: str, message: str) -> None:
    (experiment.parent / "recipes" / "larger.yaml").write_text(f"{RECIPE}{added}\n")
    assert message in message_of(experiment, recipe="larger")


@pytest.mark.parametrize(("key", "changes"), [("sizes", "mlp_ratio: 3"), ("under", "window_size: 3")])
def test_what_is_stated_for_a_recipe_that_does_not_exist_is_told(experiment: Path, key: str, changes: str) -> None:
    change(experiment, "A: {}", f"A: {{{key}: {{lapto: {{{changes}}}}}}}")
    assert message_of(experiment).startswith(
        f"mine.yaml:6: rows.A.{key}.lapto: unknown recipe 'lapto'; did you mean 'laptop'?"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(
            "cell: {parameterization",
            "cell: {parametrization",
            "mine.yaml:3: cell.parametrization: unknown key 'parametrization'; did you mean 'parameterization'?",
            id="unknown key",
        ),
        pytest.param("title: Two", "titel: Two", "did you mean 'title'?", id="unknown top-level key"),
        pytest.param(
            "identity",
            "softmx",
            "mine.yaml:7: rows.B.normalization: unknown normalization 'softmx'; did you mean 'softmax'?",
            id="unknown level",
        ),
        pytest.param(
            "[query_key]",
            "[query_key, query_postion]",
            "cell.parameterization.1: unknown term 'query_postion'; did you mean 'query_position'?",
            id="unknown term",
        ),
        pytest.param(
            "A: {}",
            "A: {preset: net9}",
            "mine.yaml:6: rows.A.preset: unknown preset 'net9'; did you mean",
            id="unknown preset",
        ),
        pytest.param(
            "recipe: tiny",
            "recipe: tinny",
            "mine.yaml:2: recipe: unknown recipe 'tinny'; did you mean 'tiny'?",
            id="unknown recipe",
        ),
        pytest.param("recipe: tiny\n", "", "mine.yaml: recipe: this key is missing", id="no recipe"),
        pytest.param(
            "baseline: A", "baseline: a", "mine.yaml:4: baseline: unknown row 'a' (known: A, B)", id="unknown baseline"
        ),
        pytest.param(
            "  A: {top1",
            "  Ab: {top1",
            "mine.yaml:9: published.Ab: unknown row 'Ab'; did you mean 'A'?",
            id="unknown published row",
        ),
        pytest.param(
            "baseline: A",
            "columns: [params, delat]\nbaseline: A",
            "mine.yaml:4: columns.1: unknown column 'delat'; did you mean 'delta'?",
            id="unknown column",
        ),
        pytest.param("title: Two rows\n", "", "mine.yaml: title: this key is missing", id="missing key"),
        pytest.param("B: {", "A: {", 'mine.yaml:7: duplicate key "A"', id="duplicate row"),
        pytest.param("A: {}", "A:", "mine.yaml:6: rows.A: must be a mapping, got null", id="row without mapping"),
        pytest.param(
            "A: {}",
            "A: {heads: many}",
            "mine.yaml:6: rows.A.heads: must be a number from 1 to 65536, a list with one per stage, 1x, 2x or C, got",
            id="heads",
        ),
        pytest.param("A: {}", "A: {heads: 0}", "rows.A.heads: must be a number from 1 to 65536", id="no heads"),
        pytest.param(
            "A: {}",
            "A: {kernel_size: [3]}",
            "rows.A.kernel_size: must be a number of pixels or [rows, columns], at most 256, got [3]",
            id="size",
        ),
        pytest.param(
            "A: {}",
            "A: {stages: {first: {heads: 1}}}",
            "mine.yaml:6: rows.A.stages.first: must be a stage's number (from 1), all, last or not_last, got 'first'",
            id="stage",
        ),
        pytest.param(
            "A: {}",
            "A: {stages: {1: {heds: 1}}}",
            "mine.yaml:6: rows.A.stages.1.heds: unknown key 'heds'; did you mean 'heads'?",
            id="unknown key of a stage",
        ),
        pytest.param(
            "A: {}",
            "A: {expect: diverged}",
            "rows.A.expect: this key is now a claim of the experiment",
            id="former key",
        ),
        pytest.param("title: Two", "name: it\ntitle: Two", "mine.yaml:1: name: unknown key 'name'", id="derived key"),
    ],
)
def test_a_mistake_in_an_experiment_is_told_with_its_place(experiment: Path, old: str, new: str, message: str) -> None:
    change(experiment, old, new)
    assert message in message_of(experiment)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(
            "lr: 1e-3",
            "learning_rate: 1e-3",
            "recipes/tiny.yaml:5: training.learning_rate: unknown key",
            id="unknown key",
        ),
        pytest.param("lr: 1e-3", "lr: fast", 'training.lr: must be a number, got "fast"', id="wrong type"),
        pytest.param("lr: 1e-3", "lr: -1", "training.lr: must be greater than 0, got -1", id="negative"),
        pytest.param("lr: 1e-3", "lr: .inf", "training.lr: must be a finite number", id="infinite"),
        pytest.param(
            "num_heads: [1, 2]",
            "num_heads: [1]",
            "recipes/tiny.yaml:4: backbones.swin: depths and num_heads need one entry per stage, got [2, 1] and [1]",
            id="stages",
        ),
    ],
)
def test_a_mistake_in_a_recipe_is_told_with_its_place(experiment: Path, old: str, new: str, message: str) -> None:
    change(experiment.parent / "recipes" / "tiny.yaml", old, new)
    assert message in message_of(experiment)


TRAINING_OF = "training_of: {swin: {lr: 2e-3, clip_grad: null, augmentation: {hflip: 0.5}}}\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(
            "swin: {lr", "swim: {lr", "recipes/tiny.yaml:6: training_of.swim: unknown backbone 'swim'", id="name"
        ),
        pytest.param(
            "lr: 2e-3",
            "lrr: 2e-3",
            "recipes/tiny.yaml:6: training_of.swin.lrr: unknown key 'lrr'; did you mean 'lr'",
            id="key",
        ),
        pytest.param(
            "swin: {lr", "volo: {lr", "training_of: the recipe has no backbone volo; it has swin", id="backbone"
        ),
        pytest.param(
            "lr: 2e-3", "lr: 0", "recipes/tiny.yaml:6: training_of.swin.lr: must be greater than 0", id="value"
        ),
        pytest.param(
            "clip_grad: null",
            "warmup_epochs: 2",
            "6: training_of.swin: warmup_epochs must not exceed epochs",
            id="together",
        ),
        pytest.param(
            "hflip: 0.5",
            "mixup: 0.8}, token_labels: {grid: 7",
            "6: training_of.swin: token_labels have MixToken",
            id="mixup",
        ),
    ],
)
def test_a_mistake_in_the_training_of_a_backbone_is_told_with_its_place(
    experiment: Path, old: str, new: str, message: str
) -> None:
    (experiment.parent / "recipes" / "tiny.yaml").write_text(RECIPE + TRAINING_OF.replace(old, new))
    assert message in message_of(experiment)


def test_a_mistake_in_the_training_of_all_is_told_once(experiment: Path) -> None:
    recipe = RECIPE.replace("epochs: 1", "epochs: 0") + TRAINING_OF
    (experiment.parent / "recipes" / "tiny.yaml").write_text(recipe)
    assert message_of(experiment) == "recipes/tiny.yaml:5: training.epochs: must be greater than 0, got 0"


def test_the_training_of_a_backbone_states_its_difference_only(experiment: Path) -> None:
    recipe = RECIPE.replace("epochs: 1", "epochs: 1, clip_grad: 5, augmentation: {shift: 2, hflip: 0.1}") + TRAINING_OF
    (experiment.parent / "recipes" / "tiny.yaml").write_text(recipe)
    spec = load_spec(experiment, overrides=["training.epochs=7"]).recipe
    assert spec.training_of["swin"].model_dump(exclude_defaults=True) == {
        **{"lr": 2e-3, "batch_size": 16, "epochs": 7},
        "augmentation": {"shift": 2, "hflip": 0.5},
    }


def test_a_process_has_at_least_two_images_of_a_batch(experiment: Path) -> None:
    message = message_of(experiment, overrides=["training.batch_size=6", "processes=4"])
    assert "processes must not exceed half of batch_size, got 4 and 6" in message
    assert load_spec(experiment, overrides=["training.batch_size=6", "processes=3"]).recipe.processes == 3


def test_floors_cannot_learn_token_labels(experiment: Path) -> None:
    message = message_of(experiment, overrides=["floor_width=8", "training.token_labels={grid: 7}"])
    assert "floors have no tokens: state token_labels under training_of" in message


def test_overrides_reach_the_experiment_and_its_recipe(experiment: Path) -> None:
    pairs = (
        "seeds=5",
        "cell.normalization=filter_norm",
        "rows.A.heads=2x",
        "rows.B.stages.2.heads=1",
        "training.lr=2e-3",
        "data.train_images=64",
        "limits.memory_limit_gb=4",
        "backbones.swin.depths=[1, 1]",
    )
    spec = load_spec(experiment, overrides=pairs)
    assert spec.overrides == pairs
    assert (spec.seeds, spec.cell.normalization, spec.rows["A"].heads) == (5, "filter_norm", "2x")
    assert spec.rows["B"].stages[2].heads == 1
    assert (spec.recipe.training.lr, spec.recipe.data.train_images) == (2e-3, 64)
    assert spec.recipe.limits.memory_limit_gb == 4
    assert spec.recipe.backbones.swin is not None
    assert spec.recipe.backbones.swin.depths == (1, 1)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        pytest.param("sedes=5", "--set sedes=5: unknown key 'sedes'; did you mean 'seeds'?", id="top level"),
        pytest.param("name=x", "--set name=x: unknown key 'name'", id="derived"),
        pytest.param(
            "training.lrr=1",
            "--set training.lrr=1: training.lrr: unknown key 'lrr'; did you mean 'lr'?",
            id="of a recipe",
        ),
        pytest.param("rows.C.heads=1", "--set rows.C.heads=1: unknown row 'C' (known: A, B)", id="row"),
        pytest.param("rows.A.heeds=1", "rows.A.heeds: unknown key 'heeds'; did you mean 'heads'?", id="of a row"),
        pytest.param(
            "cell.normalization=softmx", "cell.normalization: unknown normalization 'softmx'; did you mean", id="level"
        ),
        pytest.param("baseline=C", "--set baseline=C: baseline: unknown row 'C'", id="baseline"),
        pytest.param("seeds.x=1", "--set seeds.x=1: seeds: must be a whole number", id="below a number"),
        pytest.param("seeds", "--set seeds: must look like key=value", id="no value"),
        pytest.param("seeds=[", "--set seeds=[: the value is not YAML", id="not YAML"),
        pytest.param("seeds=0", "--set seeds=0: seeds: must be greater than 0, got 0", id="out of range"),
    ],
)
def test_a_mistake_in_an_override_is_told_as_the_options(experiment: Path, pair: str, message: str) -> None:
    assert message in message_of(experiment, overrides=[pair])


def test_fewer_seeds_than_the_file_says_keep_their_results_apart(experiment: Path) -> None:
    assert load_spec(experiment, seeds=1).overrides == ("seeds=1",)


def test_options_replace_recipe_and_seeds(experiment: Path) -> None:
    spec = load_spec(experiment, recipe="smoke", seeds=7)
    assert (spec.recipe.name, spec.seeds, spec.overrides) == ("smoke", 7, ())


def test_a_recipe_may_have_its_own_number_of_seeds(experiment: Path) -> None:
    experiment.write_text(f"{experiment.read_text()}\nseeds_under: {{smoke: 7, tiny: 5}}\n")
    assert load_spec(experiment).seeds == 5
    assert load_spec(experiment, recipe="smoke").seeds == 7
    assert load_spec(experiment, recipe="smoke", seeds=9).overrides == ()
    assert load_spec(experiment, recipe="smoke", seeds=4).overrides == ("seeds=4",)
    assert load_spec(experiment, overrides=["seeds=2"]).seeds == 2


def test_seeds_under_an_unknown_recipe_are_refused(experiment: Path) -> None:
    experiment.write_text(f"{experiment.read_text()}\nseeds_under: {{smok: 7}}\n")
    assert "unknown recipe 'smok'; did you mean 'smoke'?" in message_of(experiment)


def test_a_recipe_given_as_an_option_may_be_missing_in_the_file(experiment: Path) -> None:
    change(experiment, "recipe: tiny\n", "")
    assert load_spec(experiment, recipe="tiny").recipe.name == "tiny"


def test_a_wrong_option_is_told_as_the_option(experiment: Path) -> None:
    assert message_of(experiment, recipe="tinny").startswith(
        "--recipe: recipe: unknown recipe 'tinny'; did you mean 'tiny'?"
    )
    assert message_of(experiment, seeds=0) == "--seeds: seeds: must be greater than 0, got 0"


def test_a_recipe_beside_the_experiment_wins_over_a_shipped_one(experiment: Path) -> None:
    (experiment.parent / "recipes" / "smoke.yaml").write_text(RECIPE)
    assert load_spec(experiment, recipe="smoke").recipe.title == "Tiny"


@pytest.mark.parametrize("name", ["table1", "table1.yaml", "experiments/table1.yaml"])
def test_a_shipped_experiment_is_found_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_experiment(Path(name)) == get_shipped_dir() / "table1.yaml"


def test_a_file_of_that_name_wins_over_the_shipped_one(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(experiment.parent)
    experiment.rename("table1.yaml")
    assert find_experiment(Path("table1.yaml")) == Path("table1.yaml")


@pytest.mark.parametrize("name", ["tabel1.yaml", "somewhere/table1.yaml"])
def test_an_experiment_that_does_not_exist_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=rf"{name}: no such file.*table1"):
        load_spec(Path(name))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("a" * 5000, "cannot be read: File name too long", id="long"),
        pytest.param("a\udcff.yaml", "the file's name is not UTF-8", id="not UTF-8"),
        pytest.param("a\0.yaml", "no such file", id="NUL"),
    ],
)
def test_a_name_that_no_file_can_have_is_one_message(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_spec(Path(name))


def test_a_row_with_a_dot_in_its_name_can_be_set(experiment: Path) -> None:
    change(experiment, "  B: {", "  B, rate 0.2: {")
    pairs = ["rows.B, rate 0.2.heads=2", 'rows."A".heads=1']
    spec = load_spec(experiment, overrides=pairs)
    assert (spec.rows["B, rate 0.2"].heads, spec.rows["A"].heads) == (2, 1)
    assert "--set rows.B, rate 0.2.heads=no: rows.B, rate 0.2.heads: must be" in message_of(
        experiment, overrides=["rows.B, rate 0.2.heads=no"]
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("recipe: tiny", "recipe: {}", "mine.yaml:2: recipe: must be the name of a recipe", id="recipe"),
        pytest.param("A: {}", "A: {window_size: 100000000000}", "rows.A.window_size: must be a number", id="window"),
        pytest.param("A: {}", "A: {heads: 100000000000}", "rows.A.heads: must be a number from 1 to 65536", id="heads"),
        pytest.param(
            "title:", "seeds: 100000000\ntitle:", "mine.yaml:1: seeds: must be less than or equal to 1000", id="seeds"
        ),
    ],
)
def test_a_number_beyond_its_limit_is_refused(experiment: Path, old: str, new: str, message: str) -> None:
    change(experiment, old, new)
    assert message in message_of(experiment)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("embed_dim: 8", "embed_dim: 1e11", "embed_dim: must be a whole number", id="float"),
        pytest.param("embed_dim: 8", "embed_dim: 100000000000", "less than or equal to 65536", id="width"),
        pytest.param("depths: [2, 1]", "depths: []", "depths: must have at least 1 entries, got 0", id="no stage"),
        pytest.param("depths: [2, 1]", "depths: [2, 100000]", "depths.1: must be less than or", id="blocks"),
        pytest.param("image_size: 28", "image_size: 99999", "must be less than or equal to 4096", id="image"),
        pytest.param("epochs: 1", "epochs: 999999999", "must be less than or equal to 100000", id="epochs"),
        pytest.param("batch_size: 16", "batch_size: 99999999999", "must be less than or equal to", id="batch"),
    ],
)
def test_a_size_of_a_recipe_beyond_its_limit_is_refused(experiment: Path, old: str, new: str, message: str) -> None:
    change(experiment.parent / "recipes" / "tiny.yaml", old, new)
    assert message in message_of(experiment)


def test_overrides_with_blanks_survive_the_text_that_is_stored_and_shown(experiment: Path) -> None:
    pairs = ("backbones.swin.depths=[1, 1]", "title=it's a test", "training.lr=2e-3")
    spec = load_spec(experiment, overrides=pairs)
    assert spec.shown_overrides == "'backbones.swin.depths=[1, 1]' 'title=it'\"'\"'s a test' training.lr=2e-3"
    assert read_overrides(json.dumps(pairs)) == read_overrides(spec.shown_overrides) == pairs
    assert read_overrides("title=it's old") == ("title=it's old",)
    assert read_overrides("") == ()


def test_one_name_stands_for_a_list_of_one(experiment: Path) -> None:
    change(experiment, "[query_key]", "query_key")
    change(experiment, "title:", "columns: top1\nplots: delta\ntitle:")
    spec = load_spec(experiment)
    assert (spec.cell.parameterization, spec.columns, spec.plots) == (("query_key",), ("top1",), ("delta",))
    assert "unknown term 'cosine'" in message_of(experiment, overrides=["cell.parameterization=cosine"])


@pytest.mark.parametrize(
    ("pair", "hint"),
    [("lr=0.1", "did you mean 'training.lr'?"), ("kernel_size=3", "'cell.kernel_size'"), ("hflip=0.5", "augmentation")],
)
def test_a_key_that_stands_elsewhere_is_named_by_its_path(experiment: Path, pair: str, hint: str) -> None:
    assert hint in message_of(experiment, overrides=[pair])


def test_the_nearest_name_may_be_a_search() -> None:
    with pytest.raises(SpecError, match="did you mean 'ghost_head_search'"):
        find_experiment(Path("ghost_head_serch"))


def test_a_directory_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is a directory"):
        load_spec(tmp_path)


def test_a_later_mistake_finds_its_place_without_the_file(experiment: Path) -> None:
    spec = pickle.loads(pickle.dumps(load_spec(experiment, overrides=["rows.A.heads=3"])))
    experiment.unlink()
    assert str(spec.error("no", "rows", "B")) == f"{experiment}:7: rows.B: no"
    assert str(spec.error("no", "rows", "A", "heads")) == "--set rows.A.heads=3: rows.A.heads: no"


def test_a_spec_that_was_not_read_from_a_file_tells_the_key(experiment: Path) -> None:
    spec = load_spec(experiment).with_positions(None)
    assert str(spec.error("no", "rows", "B")) == "rows.B: no"


def test_a_key_of_an_earlier_version_names_the_one_of_today(experiment: Path) -> None:
    change(experiment.parent / "recipes" / "tiny.yaml", "batch_size: 16", "batch_size: 16, amp: true")
    assert re.fullmatch(
        r".*tiny.yaml:\d+: training.amp: this key is now precision; `amp: true` was .*", message_of(experiment)
    )


def test_effects_of_factors_have_no_levels_for_seeds_until_resolved() -> None:
    with pytest.raises(SpecError, match="until they are resolved in an experiment with factors"):
        load_spec("eq4_factorial", overrides=["until_resolved=12"])
    assert load_spec("table1", overrides=["until_resolved=12"]).until_resolved == 12
