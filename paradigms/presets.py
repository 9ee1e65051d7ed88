"""Named, published points of Eq. 4 (arXiv:2112.12786). Imports no torch, no timm."""

from dataclasses import dataclass

from paradigms.config import NEIGHBORHOOD_FACTS, AttentionConfig, unknown_name


@dataclass(frozen=True)
class Preset:
    """A published operator: what it is, where it is printed, its logits as an equation."""

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


def _preset(source: str, *terms: str, normalization: str = "softmax", neighborhood: str = "local_window") -> Preset:
    config = AttentionConfig(parameterization=terms, normalization=normalization, neighborhood=neighborhood)
    logits = " + ".join(_SYMBOLS[term] for term in config.parameterization)
    reach = NEIGHBORHOOD_FACTS[neighborhood].symbol
    return Preset(config, source, f"f_i = Σ_{{j∈{reach}}} {normalization}_j({logits}) v_j")


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
    "dwconv": _preset(f"{_PAPER}, Figure 2", "position_bias", normalization="identity", neighborhood="sliding_window"),
}


def get_preset(name: str) -> Preset:
    """Look a preset up by name.

    Raises:
        ValueError: no preset has this name; the message lists those that exist.
    """
    if name not in PRESETS:
        raise ValueError(unknown_name("preset", name, tuple(PRESETS)))
    return PRESETS[name]
