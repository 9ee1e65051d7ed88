from pathlib import Path

import pytest
from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform
from timm.data.transforms import _str_to_torch_interpolation
from timm.optim import list_optimizers

from harness.data import DATASETS
from harness.errors import SpecError
from harness.reading import load_spec
from harness.spec.data import DATASETS as DATASET_NAMES
from harness.spec.timm_names import COMMON_OPTIMIZERS, INTERPOLATIONS, check_optimizer, check_policy

TABLE1 = Path("experiments/table1.yaml")


def test_the_names_are_those_of_timm_and_of_the_families() -> None:
    assert set(COMMON_OPTIMIZERS) <= set(list_optimizers())
    assert set(INTERPOLATIONS) == set(_str_to_torch_interpolation)
    assert list(DATASETS) == DATASET_NAMES


@pytest.mark.parametrize("name", ["adamp", "lookahead_adamw", "lookahead_radam"])
def test_rare_optimizers_of_timm_are_accepted(name: str) -> None:
    assert check_optimizer(name) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adamww", "unknown optimizer 'adamww'; did you mean 'adamw'"),
        ("AdamW", "unknown optimizer 'AdamW'"),
        ("lookahead_adamww", "unknown optimizer 'lookahead_adamww'; did you mean 'lookahead_adamw'"),
        ("fusedadam", "cannot be used here"),
        ("adahessian", "cannot be used here"),
    ],
)
def test_an_optimizer_that_cannot_train_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_optimizer(name)


@pytest.mark.parametrize(
    "policy",
    ["rand", "rand-m9-mstd0.5-inc1", "rand-n3-p0.5-mmax20-t3aw", "augmix-m5-w4-d2", "original-mstd0.5", "v0r", "3a"],
)
def test_policies_of_timm_are_accepted(policy: str) -> None:
    assert check_policy(policy) == policy
    builders = {"rand": rand_augment_transform, "augmix": augment_and_mix_transform}
    build = builders.get(policy.partition("-")[0], auto_augment_transform)
    build(policy, {"translate_const": 10, "img_mean": (0, 0, 0)})


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("ran-m9", "unknown policy 'ran'; did you mean 'rand'"),
        ("randm9", "unknown policy"),
        ("rand-x9", "unknown part of policy rand 'x'"),
        ("rand-m9-incr", "unknown part of policy rand 'incr'; did you mean 'inc'"),
        ("rand-m9-inc", "'inc' needs a value"),
        ("rand-m9-n0", "'n' needs a value"),
        ("rand-m9-p2", "'p' needs a value"),
        ("rand-twieghts", "'t' needs a value"),
        ("rand-m9-m5", "occurs twice"),
        ("original-m9", "unknown part of policy original"),
        ("", "unknown policy"),
    ],
)
def test_a_policy_of_which_timm_would_ignore_a_part_is_refused(policy: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_policy(policy)


BAD = {
    "training.opt": ("nmoun", "unknown optimizer 'nmoun'; did you mean 'nmuon'"),
    "data.name": ("fashion_minst", "unknown dataset 'fashion_minst'; did you mean 'fashion_mnist'"),
    "data.interpolation": ("bicubical", "unknown interpolation 'bicubical'; did you mean 'bicubic'"),
    "data.crop_pct": ("0", "must be greater than 0, got 0"),
    "training.augmentation.auto_augment": ("rnad-m9", "unknown policy 'rnad'; did you mean 'rand'"),
    "training.augmentation.interpolation": ("randon", "unknown interpolation 'randon'; did you mean 'random'"),
    "training.augmentation.scale": ("[0, 1]", "must be two parts of the image's area above 0"),
    "training.ema_decay": ("1", "must be less than 1: with decay 1 the average never changes"),
    "backbones.swin.weight_init": ("rest", "unknown value 'rest'; did you mean 'reset'"),
    "backbones.swin.initialization": ("realeased", "unknown initialization 'realeased'; did you mean 'released'"),
}


@pytest.mark.parametrize("key", BAD)
def test_a_name_that_timm_would_look_up_late_is_told_with_its_place(key: str) -> None:
    value, message = BAD[key]
    with pytest.raises(SpecError) as caught:
        load_spec(TABLE1, overrides=[f"{key}={value}"])
    assert str(caught.value).startswith(f"--set {key}={value}: {key}: {message}")


def test_a_misspelt_name_in_a_recipe_is_told_with_its_line(tmp_path: Path) -> None:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    text = Path("experiments/recipes/smoke.yaml").read_text(encoding="utf-8").replace("opt: nmuon", "opt: nmoun")
    (recipes / "mine.yaml").write_text(text.replace("name: fashion_mnist", "name: fashion"), encoding="utf-8")
    (tmp_path / "mine.yaml").write_text("title: Mine\nrecipe: mine\nbaseline: A\nrows: {A: {}}\n", encoding="utf-8")
    with pytest.raises(
        SpecError, match=r"recipes/mine\.yaml:\d+: training\.opt: unknown optimizer 'nmoun'; did you mean"
    ):
        load_spec(tmp_path / "mine.yaml")
    (recipes / "mine.yaml").write_text(text.replace("nmoun", "nmuon").replace("name: fashion_mnist", "name: fashion"))
    with pytest.raises(SpecError, match=r"recipes/mine\.yaml:\d+: data\.name: unknown dataset 'fashion'; did you mean"):
        load_spec(tmp_path / "mine.yaml")
