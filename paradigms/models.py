"""Names for timm: after `import paradigms.models`, `timm.create_model("net7_swin_tiny")` works.

Importing this module registers the names. No other module of this package has effects when it is imported. A model is
one row of `MODELS`: its sizes, and an operator for each stage. `attention_swin`, `attention_volo` and `attention_deit`
are for custom operators. Every model takes the argument `attention`, one operator for each stage. The name of a
backbone from a plug-in is `attention_<name>`.

    timm.create_model("attention_swin", attention=["net7_n", {"normalization": "identity"}, "net7", None])

The paper does not state λ and γ of the ghost head with global attention (arXiv:2112.12786, Table 11). Our choice:
λ = 0, γ = 1, as released for ELSA in Swin. It does not state the settings of ELSA in VOLO either: see `ELSA_IN_VOLO`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from paradigms.backbones import BACKBONES
from paradigms.config import AttentionConfig, make_config
from paradigms.presets import get_preset, to_config


@dataclass(frozen=True)
class Size:
    """A published size of a backbone: its class by name, and timm's arguments."""

    backbone: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Model:
    """A size with an operator for each stage: a preset's name, a config, or None for timm's own attention.

    `num_heads` replaces the size's.
    """

    size: str
    attention: tuple[str | AttentionConfig | None, ...]
    num_heads: tuple[int, ...] | None = None


def _swin(embed_dim: int, third: int, heads: int) -> Size:
    """arXiv:2103.14030, section 3.3; drop path is timm's 0.1 unless it is given."""
    depths, num_heads = (2, 2, third, 2), tuple(heads * 2**stage for stage in range(4))
    return Size("swin", {"embed_dim": embed_dim, "depths": depths, "num_heads": num_heads})


def _volo(layers: tuple[int, ...], width: int, num_heads: tuple[int, ...], **other: int) -> Size:
    """arXiv:2106.13112, as timm has it, with the head over all tokens that token labeling trains."""
    widths = (width, *[2 * width] * 3)
    return Size("volo", {"layers": layers, "embed_dims": widths, "num_heads": num_heads, **other})


SIZES: dict[str, Size] = {
    "swin_tiny": _swin(96, 6, 3),
    "swin_small": _swin(96, 18, 3),
    "swin_base": _swin(128, 18, 4),
    "volo_d1": _volo((4, 4, 8, 2), 192, (6, 12, 12, 12)),
    "volo_d2": _volo((6, 4, 10, 4), 256, (8, 16, 16, 16)),
    "volo_d3": _volo((8, 8, 16, 4), 256, (8, 16, 16, 16)),
    "volo_d4": _volo((8, 8, 16, 4), 384, (12, 16, 16, 16)),
    "volo_d5": _volo((12, 12, 20, 4), 384, (12, 16, 16, 16), mlp_ratio=4, stem_hidden_dim=128),
    "deit_tiny": Size("deit", {"embed_dim": 192, "depth": 12, "num_heads": (3,)}),
}

_GLOBAL = AttentionConfig(parameterization=("query_key",), window_size=1 << 16)
"""DeiT's own attention: a window larger than any map, which is limited to the map."""


_RELEASED_ELSA = get_preset("elsa").config.replace(initialization="released")


def _elsa(group_width: int, aggregation: str = "ghost_head") -> tuple[AttentionConfig | str, ...]:
    """ELSA in three stages, as released with arXiv:2112.12786; the last stage keeps Swin's attention."""
    operator = _RELEASED_ELSA.replace(group_width=group_width, aggregation=aggregation)
    return (*[operator] * 3, "swin")


ELSA_IN_VOLO: dict[str, dict[str, int]] = {
    "volo_d1": {"group_width": 32},
    "volo_d2": {"kernel_size": 9, "hadamard_size": 7, "group_width": 4},
    "volo_d3": {"kernel_size": 9, "hadamard_size": 7, "group_width": 4},
    "volo_d4": {"kernel_size": 9, "hadamard_size": 5, "group_width": 32},
    "volo_d5": {"kernel_size": 9, "hadamard_size": 5, "group_width": 32},
}
"""Fields that differ from the preset `elsa`: our choice, since arXiv:2112.12786 prints no setting of ELSA in VOLO.

D1, D3 and D5 match Table 6 in parameters, without the head over all tokens, and in the multiply-adds that ELSA adds to
VOLO. Other settings match too: `docs/unknowns.md` lists them. D2 and D4 are printed nowhere; they have the settings of
the model of the same width."""


def _elsa_volo(size: str) -> tuple[AttentionConfig | None, ...]:
    """ELSA in place of every Outlooker."""
    return (make_config(ELSA_IN_VOLO[size], base=_RELEASED_ELSA), None, None, None)


MODELS: dict[str, Model] = {
    "elsa_swin_tiny": Model("swin_tiny", _elsa(4)),
    "elsa_swin_small": Model("swin_small", _elsa(8)),
    "elsa_swin_base": Model("swin_base", _elsa(8)),
    "elsa_swin_tiny_no_ghost": Model("swin_tiny", _elsa(4, "weighted_sum")),
    "elsa_swin_small_no_ghost": Model("swin_small", _elsa(8, "weighted_sum")),
    "elsa_swin_base_no_ghost": Model("swin_base", _elsa(8, "weighted_sum")),
    **{f"elsa_{size}": Model(size, _elsa_volo(size)) for size in ELSA_IN_VOLO},
    "net7_swin_tiny": Model("swin_tiny", ("net7",) * 4),
    "net7_n_swin_tiny": Model("swin_tiny", (*["net7_n"] * 3, "net7")),
    "dwconv_swin_tiny": Model("swin_tiny", ("dwconv",) * 4, num_heads=(96, 192, 384, 768)),
    "d_dwconv_swin_tiny": Model("swin_tiny", ("d_dwconv",) * 4, num_heads=(96, 192, 384, 768)),
    "ddf_swin_tiny": Model("swin_tiny", ("ddf",) * 4, num_heads=(1, 1, 1, 1)),
    "attention_swin": Model("swin_tiny", ("swin",) * 4),
    "attention_volo": Model("volo_d1", (None,) * 4),
    "attention_deit": Model("deit_tiny", (None,)),
    "deit_tiny_gap": Model("deit_tiny", (None,)),
    "deit_tiny_gap_ghost": Model("deit_tiny", (_GLOBAL.replace(aggregation="ghost_head", ghost_heads="2x"),)),
}

_INPUT: dict[str, dict[str, Any]] = {
    "swin": {"first_conv": "patch_embed.proj", "classifier": "head.fc", "crop_pct": 0.9, "pool_size": (7, 7)},
    "volo": {"first_conv": "patch_embed.conv.0", "classifier": ("head", "aux_head"), "crop_pct": 0.96},
    "deit": {"first_conv": "patch_embed.proj", "classifier": "head", "crop_pct": 0.9},
}
"""timm's pretrained config of each backbone, for images of 224x224 as in the paper's evaluation."""


def _describe(backbone: str) -> dict[str, Any]:
    shared = {"num_classes": 1000, "input_size": (3, 224, 224), "interpolation": "bicubic", "fixed_input_size": True}
    return {**shared, "mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD, **_INPUT.get(backbone, {})}


Operator = str | Mapping[str, Any] | AttentionConfig | None
"""The name of a preset, the fields of a config, or a config; None for timm's own attention."""


def build_size(size: Size, attention: Sequence[Operator], **changes: Any) -> nn.Module:
    """Build a backbone of a published size; `changes` replace its arguments.

    Raises:
        ValueError: the number of operators is not that of the stages, or an operator is impossible.
    """
    configs = [None if operator is None else _to_config(operator) for operator in attention]
    return BACKBONES[size.backbone](attention=configs, **{**size.arguments, **changes})


def _to_config(operator: str | Mapping[str, Any] | AttentionConfig) -> AttentionConfig:
    return make_config(operator) if isinstance(operator, Mapping) else to_config(operator)


def _register(name: str, model: Model) -> None:
    size = SIZES[model.size]
    stages = {"flatten_sequential": True, "out_indices": tuple(range(len(model.attention)))}
    features = stages if size.backbone == "swin" else {"feature_cls": "getter", "out_indices": 3}

    def build(attention: Sequence[Operator] = model.attention, **arguments: Any) -> nn.Module:
        heads = {} if model.num_heads is None else {"num_heads": model.num_heads}
        return build_size(size, attention, **{**heads, **arguments})

    def create(pretrained: bool = False, **arguments: Any) -> nn.Module:
        return build_model_with_cfg(build, name, pretrained, feature_cfg=dict(features), **arguments)

    create.__name__ = name
    globals()[name] = register_model(create)


default_cfgs = generate_default_cfgs({name: _describe(SIZES[model.size].backbone) for name, model in MODELS.items()})

for _name, _model in MODELS.items():
    _register(_name, _model)


def add_backbone(name: str) -> None:
    """Register a custom backbone as `attention_<name>`; its arguments are all of its sizes and `attention`."""
    model = f"attention_{name}"
    SIZES[name], MODELS[model] = Size(name, {}), Model(name, ())
    default_cfgs.update(generate_default_cfgs({model: _describe(name)}))
    _register(model, MODELS[model])
