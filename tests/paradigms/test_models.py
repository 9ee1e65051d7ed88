import subprocess
import sys
from typing import Any

import pytest
import timm
import torch

import paradigms.models as zoo
from paradigms.models import MODELS, SIZES, build_size

from .backbones.conftest import size_on_meta

pytestmark = pytest.mark.usefixtures("quick_meta")

SWIN = {"swin_tiny": (28.288, 4.491), "swin_small": (49.606, 8.741), "swin_base": (87.768, 15.431)}
ELSA = {
    "elsa_swin_tiny_no_ghost": (29.000, 4.704),
    "elsa_swin_tiny": (29.141, 4.771),
    "elsa_swin_small": (52.875, 9.558),
    "elsa_swin_base": (92.682, 16.666),
}
PRINTED = {"dwconv_swin_tiny": (24.2, 3.7)}
DIGITS = {"ddf_swin_tiny": (46, 3.9), "d_dwconv_swin_tiny": (51, 3.8)}
IN_VOLO = {"d1": (27, 7.1, 8.0), "d3": (87, 20.9, 22.3), "d5": (298, 72.7, 78.5)}
"""Table 6: millions of parameters with ELSA, 10⁹ multiply-adds of the VOLO and with ELSA."""

MILLIONS = {"deit_tiny_gap": 6, "deit_tiny_gap_ghost": 6}
SHALLOW: dict[str, dict[str, Any]] = {
    "swin": {"depths": (1, 2, 1, 1)},
    "volo": {"layers": (2, 1, 1, 1)},
    "deit": {"depth": 3},
}
"""Of a backbone, instead of its depth, where that does not matter."""

every_kind = pytest.mark.parametrize("name", ["elsa_volo_d1", *(name for name in MODELS if "tiny" in name)])
"""The larger ones differ in sizes alone."""


def _with_larger_ones_slow(published: dict[str, tuple[float, float]]) -> list[Any]:
    return [
        pytest.param(*size, id=size[0], marks=() if "tiny" in size[0] else pytest.mark.slow)
        for size in published.items()
    ]


def _create(name: str, **arguments: Any) -> Any:
    """A shallow one."""
    return timm.create_model(name, **SHALLOW[SIZES[MODELS[name].size].backbone], **arguments)


@pytest.mark.parametrize(("size", "published"), _with_larger_ones_slow(SWIN))
def test_the_swins_have_their_published_sizes(size: str, published: tuple[float, float]) -> None:
    with torch.device("meta"):
        model = build_size(SIZES[size], ("swin",) * 4)
    assert size_on_meta(model, 224) == tuple(pytest.approx(number, abs=5e-4) for number in published)


@pytest.mark.parametrize(("name", "published"), _with_larger_ones_slow(ELSA))
def test_elsa_has_its_exact_size(name: str, published: tuple[float, float]) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert size_on_meta(model, 224) == tuple(pytest.approx(number, abs=5e-4) for number in published)


@pytest.mark.parametrize(("name", "published"), PRINTED.items(), ids=PRINTED)
def test_models_have_their_printed_sizes(name: str, published: tuple[float, float]) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert size_on_meta(model, 224) == tuple(pytest.approx(number, abs=5e-2) for number in published)


@pytest.mark.parametrize(("name", "millions"), MILLIONS.items(), ids=MILLIONS)
def test_parameters_round_to_the_printed_millions(name: str, millions: int) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == millions


@pytest.mark.parametrize(("name", "printed"), DIGITS.items(), ids=DIGITS)
def test_sizes_round_to_the_printed_digits(name: str, printed: tuple[int, float]) -> None:
    with torch.device("meta"):
        params, macs = size_on_meta(timm.create_model(name), 224)
    assert (round(params), round(macs, 1)) == printed


@pytest.mark.parametrize(
    ("size", "printed"),
    [
        pytest.param(*case, marks=pytest.mark.slow if number else (), id=case[0])
        for number, case in enumerate(IN_VOLO.items())
    ],
)
def test_elsa_in_volo_has_the_printed_parameters_and_adds_the_printed_multiply_adds(
    size: str, printed: tuple[int, float, float]
) -> None:
    params, volo, macs = printed
    with torch.device("meta"):
        with_elsa = size_on_meta(timm.create_model(f"elsa_volo_{size}", use_aux_head=False), 224)
        without = size_on_meta(build_size(SIZES[f"volo_{size}"], (None,) * 4, use_aux_head=False), 224)
    assert round(with_elsa[0]) == params
    assert round(volo + with_elsa[1] - without[1], 1) == macs


def test_elsa_in_volo_stands_for_every_outlooker() -> None:
    with torch.device("meta"):
        models: dict[str, Any] = {f"d{size}": timm.create_model(f"elsa_volo_d{size}") for size in range(1, 6)}
    outlookers = {"d1": 4, "d2": 6, "d3": 8, "d4": 8, "d5": 12}
    assert {size: len(list(model.operators())) for size, model in models.items()} == outlookers


def test_the_ghost_head_doubles_the_heads_of_global_attention() -> None:
    with torch.device("meta"):
        model: Any = timm.create_model("deit_tiny_gap_ghost")
        model.set_input_size((448, 448))
    for _, map_size, operator in model.operators():
        assert operator.neighborhood.geometry.kernel_size == map_size == (28, 28)
        assert {name: table.weight.shape for name, table in operator.aggregation.position_tables().items()} == {
            "add": (6, 55 * 55)
        }


@every_kind
def test_timm_builds_it_by_name_with_its_own_arguments(name: str) -> None:
    with torch.device("meta"):
        model = _create(name, num_classes=10, in_chans=1, drop_path_rate=0.2)
    assert model(torch.empty(2, 1, 224, 224, device="meta")).shape == (2, 10)
    assert model.default_cfg["input_size"] == (3, 224, 224)
    assert model.get_submodule(model.default_cfg["first_conv"]) is not None


@every_kind
def test_features_only_gives_maps(name: str) -> None:
    with torch.device("meta"):
        model = _create(name, features_only=True)
    maps = model(torch.empty(2, 3, 224, 224, device="meta"))
    assert [info["num_chs"] for info in model.feature_info.get_dicts()] == [
        features.shape[-1 if "swin" in name else 1] for features in maps
    ]
    assert len(maps) == (4 if "swin" in name else 3)


@every_kind
def test_images_may_have_another_size(name: str) -> None:
    with torch.device("meta"):
        model = _create(name)
        model.set_input_size((448, 224))
        assert model(torch.empty(2, 3, 448, 224)).shape == (2, 1000)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_an_attribute_of_the_module(name: str) -> None:
    assert name in zoo.__all__
    assert getattr(zoo, name).__name__ == name
    assert name in timm.list_models(module="models")


@pytest.mark.parametrize(
    ("name", "attention"),
    [
        ("attention_swin", [{"normalization": "identity"}, "net7", None]),
        ("attention_volo", [{"parameterization": ["hadamard"]}, None, None]),
        ("attention_deit", [{"window_size": [3, 3], "shift_size": None}]),
    ],
)
def test_a_model_takes_operators_of_ones_own(name: str, attention: list[Any]) -> None:
    sizes = {
        "attention_swin": {"depths": [2, 2, 2], "num_heads": [3, 6, 12]},
        "attention_volo": {"layers": [1, 1, 1], "embed_dims": [16, 32, 32], "num_heads": [1, 2, 2]},
        "attention_deit": {},
    }[name]
    with torch.device("meta"):
        model: Any = timm.create_model(name, attention=attention, img_size=56, num_classes=5, **sizes)
        assert model(torch.empty(1, 3, 56, 56)).shape == (1, 5)
    found = {stage: operator.normalization.kind for stage, _, operator in model.operators()}
    assert found == {1: "identity", 2: "softmax"} if name == "attention_swin" else {1: "softmax"}


@pytest.mark.slow
def test_nothing_is_registered_unless_the_module_is_imported() -> None:
    code = "import timm, paradigms, paradigms.backbones, paradigms.replace; assert not timm.is_model('net7_swin_tiny')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
