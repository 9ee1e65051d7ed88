"""Released weights of Swin (arXiv:2103.14030) and ELSA-Swin (arXiv:2112.12786).

Source: `cls/models/elsa/elsa.py` and `cls/models/elsa_swin.py` of github.com/damo-cv/ELSA, and timm's
`models/swin_transformer.py`, before 0.9 (as in Microsoft's code) and after it. Indices and masks, which follow from
sizes, are dropped.
"""

import re

from torch import Tensor

from paradigms.released.layout import KIND, CheckpointLayout, Convert, Weights, drop, keep, rename


def _to_next_stage(match: re.Match[str], weights: Weights) -> dict[str, Tensor]:
    """Move patch merging from the end of a stage to the start of the next stage."""
    return {f"layers.{int(match[1]) + 1}.downsample.{match[2]}": weights[match[0]]}


def _split_thirds(match: re.Match[str], weights: Weights) -> dict[str, Tensor]:
    """Split the rows of one linear layer into q, k and v."""
    return _name_projections(match, dict(zip("qkv", weights[match[0]].chunk(3), strict=True)))


def _split_elsa(match: re.Match[str], weights: Weights) -> dict[str, Tensor]:
    """Split the rows of one 1x1 convolution; queries and keys are narrower than values.

    The order is q, k, v in ELSA's blocks and v, q, k in its blocks with windows.
    """
    joined = weights[match[0]].flatten(1) if weights[match[0]].ndim > 1 else weights[match[0]]
    width = len(weights[f"{match[1]}.post_proj.weight"])
    narrow = (len(joined) - width) // 2
    order = "vqk" if f"{match[1]}.rb" in weights else "qkv"
    parts = joined.split([width if name == "v" else narrow for name in order])
    return _name_projections(match, dict(zip(order, parts, strict=True)))


def _name_projections(match: re.Match[str], parts: Weights) -> dict[str, Tensor]:
    """Name the projections; the groups of the pattern are the attention and `weight` or `bias`."""
    q, k, v = parts["q"], parts["k"], parts["v"]
    attention, kind = match[1], match[2]
    inner = f"{attention}.parameterization"
    return {f"{inner}.q.{kind}": q, f"{inner}.k.{kind}": k, f"{attention}.v.{kind}": v}


def _turn_table(match: re.Match[str], weights: Weights) -> dict[str, Tensor]:
    """Reorder a table: timm's has rows by query minus key, then heads; ours has heads, then rows by key minus query."""
    return {f"{match[1]}.parameterization.rb.weight": weights[match[0]].flip(0).mT}


def _split_ghost_head(match: re.Match[str], weights: Weights) -> dict[str, Tensor]:
    """Split the filters: S of shape (1, channels, k, k), or O and S of shape (2, 1, channels, k, k).

    γ = 0 with λ > 0 has one filter too, which is O. No released model has it, and it is not supported here.
    """
    filters = weights[match[0]]
    names = ("add",) if filters.ndim == 4 else ("mul", "add")
    tables = filters.reshape(len(names), filters.shape[-3], -1)
    return {f"{match[1]}.aggregation.{name}.weight": table for name, table in zip(names, tables, strict=True)}


def _flatten(template: str) -> Convert:
    """Convert a 1x1 convolution to a linear layer."""
    return lambda match, weights: {match.expand(template): weights[match[0]].flatten(1)}


_ATTENTION = r"(layers\.\d+\.blocks\.\d+\.attn)"
_SHELL: dict[str, Convert] = {
    rf"patch_embed\.(?:proj|norm)\.{KIND}": keep,
    rf"layers\.\d+\.blocks\.\d+\.(?:norm1|norm2|mlp\.fc1|mlp\.fc2)\.{KIND}": keep,
    rf"norm\.{KIND}": keep,
}
_MERGED_AT_THE_END: dict[str, Convert] = {
    r"layers\.(\d+)\.downsample\.(reduction\.weight|norm\.weight|norm\.bias)": _to_next_stage,
    rf"head\.{KIND}": rename(r"head.fc.\1"),
}
_MERGED_AT_THE_START: dict[str, Convert] = {
    r"layers\.\d+\.downsample\.(?:reduction\.weight|norm\.weight|norm\.bias)": keep,
    rf"head\.fc\.{KIND}": keep,
}
_SWIN: dict[str, Convert] = {
    rf"{_ATTENTION}\.qkv\.{KIND}": _split_thirds,
    rf"{_ATTENTION}\.proj\.{KIND}": keep,
    rf"{_ATTENTION}\.relative_position_bias_table": _turn_table,
    rf"{_ATTENTION}\.relative_position_index": drop,
    r"layers\.\d+\.blocks\.\d+\.attn_mask": drop,
}
_ELSA: dict[str, Convert] = {
    rf"{_ATTENTION}\.pre_proj\.{KIND}": _split_elsa,
    rf"{_ATTENTION}\.attn\.0\.{KIND}": rename(r"\1.parameterization.mix.\2"),
    rf"{_ATTENTION}\.attn\.2\.weight": _flatten(r"\1.parameterization.to_logits.weight"),
    rf"{_ATTENTION}\.attn\.2\.bias": rename(r"\1.parameterization.to_logits.bias"),
    rf"{_ATTENTION}\.ghost_head": _split_ghost_head,
    rf"{_ATTENTION}\.post_proj\.{KIND}": rename(r"\1.proj.\2"),
    rf"{_ATTENTION}\.rb": rename(r"\1.parameterization.rb.weight"),
    rf"{_ATTENTION}\.relative_id": drop,
    r"layers\.\d+\.blocks\.\d+\.attn_mask": drop,
}

_FIRST = "layers.0.blocks.0.attn"
LAYOUTS = {
    "elsa_swin": CheckpointLayout(
        "ELSA-Swin of github.com/damo-cv/ELSA",
        frozenset({f"{_FIRST}.pre_proj.weight", "head.weight"}),
        {**_SHELL, **_MERGED_AT_THE_END, **_ELSA},
    ),
    "swin": CheckpointLayout(
        "timm's Swin since 0.9",
        frozenset({f"{_FIRST}.qkv.weight", f"{_FIRST}.relative_position_bias_table", "head.fc.weight"}),
        {**_SHELL, **_MERGED_AT_THE_START, **_SWIN},
    ),
    "swin_microsoft": CheckpointLayout(
        "Swin of arXiv:2103.14030's code and of timm before 0.9",
        frozenset({f"{_FIRST}.qkv.weight", f"{_FIRST}.relative_position_bias_table", "head.weight"}),
        {**_SHELL, **_MERGED_AT_THE_END, **_SWIN},
    ),
}
