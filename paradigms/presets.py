"""Named, published points of Eq. 4 (arXiv:2112.12786). Imports no torch and no timm."""

from dataclasses import dataclass
from typing import Any

from paradigms.config import AttentionConfig
from paradigms.facts import unknown_name


@dataclass(frozen=True)
class Preset:
    """A published operator: its config, its source and its equation."""

    config: AttentionConfig
    source: str
    equation: str


_SYMBOLS = {
    "query_key": "q_i·k_j",
    "query_position": "q_i·r^k_{j-i}",
    "position_key": "r^q_{j-i}·k_j",
    "position_bias": "r^b_{j-i}",
}
_PAPER = "arXiv:2112.12786"


def write_equation(config: AttentionConfig) -> str:
    """Eq. 4 with the parts of a config; levels that are not terms are written by their names."""
    logits = " + ".join(_SYMBOLS.get(name, name) for name in config.parameterization)
    weights = f"{config.normalization}_j({logits})"
    filtered = weights if config.aggregation == "weighted_sum" else f"{config.aggregation}({weights})"
    return f"f_i = Σ_{{j∈{config.neighborhood_facts.symbol}}} {filtered} v_j"


def _preset(source: str, *terms: str, normalization: str = "softmax", neighborhood: str = "local_window") -> Preset:
    config = AttentionConfig(parameterization=terms, normalization=normalization, neighborhood=neighborhood)
    return Preset(config, source, write_equation(config))


def _sliding(preset: Preset) -> Preset:
    """The same logits over the neighbouring area Θ, 7x7 (Table 3)."""
    config = preset.config
    return _preset(
        f"{_PAPER}, Table 3",
        *config.parameterization,
        normalization=config.normalization,
        neighborhood="sliding_window",
    )


_WINDOWED = {
    "swin": _preset("arXiv:2103.14030, Eq. 4", "query_key", "position_bias"),
    "net1": _preset(f"{_PAPER}, Table 1", "query_key"),
    "net2": _preset(f"{_PAPER}, Table 1", "query_position"),
    "net3": _preset(f"{_PAPER}, Table 1", "position_key"),
    "net4": _preset(f"{_PAPER}, Table 1", "position_bias"),
    "net5": _preset(f"{_PAPER}, Table 1", "query_position", "position_key"),
    "net6": _preset(f"{_PAPER}, Table 1", "query_position", "position_key", "position_bias"),
    "net7": _preset(f"{_PAPER}, Table 1", "query_key", "query_position", "position_key", "position_bias"),
}

_GENERATED = {
    "involution": Preset(
        AttentionConfig(
            parameterization=("involution",),
            normalization="identity",
            neighborhood="sliding_window",
            projections="none",
        ),
        "arXiv:2103.06255, as released",
        "f_i = Σ_{j∈Θ} (W ReLU(BN(U x_i)))_{j-i} x_j",
    ),
    "ddf": Preset(
        AttentionConfig(
            parameterization=("ddf",),
            normalization="filter_norm",
            neighborhood="sliding_window",
            aggregation="channel_filter",
        ),
        "arXiv:2104.14107, as released",
        "f_i = Σ_{j∈Θ} s_{j-i} filter_norm(V ReLU(U x̄))_{j-i} filter_norm(W x_i)_{j-i} v_j, x̄ the mean over the map",
    ),
    "d_dwconv": Preset(
        AttentionConfig(
            parameterization=("dynamic_conv",),
            normalization="identity",
            neighborhood="sliding_window",
            projections="batch_norm",
        ),
        "arXiv:2106.04263, homogeneous, as released",
        "f_i = Σ_{j∈Θ} (W ReLU(BN(U x̄)))_{j-i} v_j, x̄ the mean over the map",
    ),
    "outlooker": Preset(
        AttentionConfig(
            parameterization=("outlook",),
            normalization="identity",
            neighborhood="sliding_window",
            kernel_size=5,
        ),
        "arXiv:2106.13112, at stride 1",
        "f_i = Σ_{j∈Θ} Σ_n softmax_j(W x_n)_{i-n, j-n} v_j",
    ),
}


def _eq4(normalization: str, *, values: str = "v_j", **fields: Any) -> Preset:
    """A dynamic filter in the form of Eq. 4: generated from the query's pixel by one 1x1 convolution with bias."""
    config = AttentionConfig(
        parameterization=("query_position", "position_bias"),
        normalization=normalization,
        neighborhood="sliding_window",
        **fields,
    )
    equation = f"f_i = Σ_{{j∈Θ}} {normalization}_j(q_i·r^k_{{j-i}} + r^b_{{j-i}}) {values}"
    return Preset(config, f"{_PAPER}, Eq. 4", equation)


_AS_EQ4 = {
    "involution_eq4": _eq4("identity", values="x_j", projections="none"),
    "ddf_spatial_eq4": _eq4("filter_norm"),
    "outlooker_eq4": _eq4("softmax", kernel_size=3),
}
"""Published filters reduced to Eq. 4: involution without bottleneck, batch norm and ReLU; DDF without channel filters;
the Outlooker with only the weights that a pixel generates for itself, not those for its neighbors."""

PRESETS: dict[str, Preset] = {
    **_WINDOWED,
    **{f"{name}_n": _sliding(preset) for name, preset in _WINDOWED.items()},
    "elsa": Preset(
        AttentionConfig(
            parameterization=("hadamard_conv",),
            neighborhood="sliding_window",
            aggregation="ghost_head",
        ),
        f"{_PAPER}, Eq. 5 to 8 as released",
        "f_i = Σ_{j∈Θ} (softmax_j(W GELU(conv(q⊙k))_i) + γ·s_{j-i}) v_j",
    ),
    **_GENERATED,
    **_AS_EQ4,
    "dwconv": _preset(f"{_PAPER}, Figure 2", "position_bias", normalization="identity", neighborhood="sliding_window"),
}


def to_config(operator: AttentionConfig | str) -> AttentionConfig:
    """The config of an operator that is given as a config or as the name of a preset.

    Raises:
        ValueError: no preset has this name; the message lists those that exist.
    """
    return get_preset(operator).config if isinstance(operator, str) else operator


def get_preset(name: str) -> Preset:
    """Look a preset up by name.

    Raises:
        ValueError: no preset has this name; the message lists those that exist.
    """
    if name not in PRESETS:
        raise ValueError(unknown_name("preset", name, tuple(PRESETS)))
    return PRESETS[name]
