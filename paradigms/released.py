"""Weights that others released, under the names of our models.

A row of `FAMILIES` is a family of checkpoints; its rules must take every tensor exactly once.

Read: `cls/models/elsa/elsa.py` and `cls/models/elsa_swin.py` of github.com/damo-cv/ELSA (arXiv:2112.12786), and timm's
`models/swin_transformer.py`, before 0.9 (as in Microsoft's code) and after it. No released file was at hand: names and
shapes are those of the code.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

from safetensors import SafetensorError
from timm.models import load_state_dict
from torch import Tensor

Weights = Mapping[str, Tensor]
Convert = Callable[[re.Match[str], Weights], dict[str, Tensor]]


@dataclass(frozen=True)
class Family:
    """Checkpoints of one naming.

    Attributes:
        source: whose names they are.
        signature: names that only this family has together.
        rules: from the pattern of a whole name to what a tensor becomes.
    """

    source: str
    signature: frozenset[str]
    rules: Mapping[str, Convert]


def load_released(path: Path | str) -> dict[str, Tensor]:
    """Read a released checkpoint (torch's format without code in it, or safetensors) for `load_state_dict` of ours.

    Raises:
        ValueError: the file has no weights, or those of no family in `FAMILIES`, or tensors that no rule takes.
    """
    return convert_released(read_weights(path))


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a file as they are named there, without what timm's training wraps around them.

    Where a checkpoint has averaged weights beside the last ones, it is they, since those are evaluated.

    Raises:
        ValueError: the file is missing or holds something else; files that would execute code are refused.
    """
    if not Path(path).is_file():
        raise ValueError(f"no such file: {path}")
    try:
        found = load_state_dict(str(path), use_ema=True, weights_only=True)
    except (OSError, EOFError, RuntimeError, UnpicklingError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read as weights: {error}") from error
    except AttributeError:  # timm takes it for a dictionary
        found = {}
    if not found or not all(isinstance(x, Tensor) for x in found.values()):
        raise ValueError(f"{path} holds no weights: tensors by name, bare or where timm's training puts them")
    return found


def convert_released(weights: Weights) -> dict[str, Tensor]:
    """Rename, split and turn released tensors into those of our models.

    Raises:
        ValueError: no family has these names, or a tensor is left over, or two become one.
    """
    family = _recognize(weights)
    converted: dict[str, Tensor] = {}
    left_over = []
    for name in weights:
        matches = [(convert, match) for rule, convert in family.rules.items() if (match := re.fullmatch(rule, name))]
        if not matches:
            left_over.append(name)
            continue
        ((convert, match),) = matches  # the rules of a family exclude each other
        made = convert(match, weights)
        if twice := made.keys() & converted.keys():
            raise ValueError(f"{name} of {family.source} becomes {min(twice)}, which another tensor is already")
        converted |= made
    if left_over:
        raise ValueError(f"no rule of {family.source} takes {', '.join(sorted(left_over))}")
    return converted


def _recognize(weights: Weights) -> Family:
    for family in FAMILIES.values():
        if family.signature <= weights.keys():
            return family
    known = ", ".join(f"{name} ({family.source})" for name, family in FAMILIES.items())
    raise ValueError(f"weights of no known family, their first name is {next(iter(weights), None)!r} (known: {known})")


def _keep(match: re.Match[str], weights: Weights) -> dict[str, Tensor]:
    return {match[0]: weights[match[0]]}


def _drop(match: re.Match[str], weights: Weights) -> dict[str, Tensor]:  # noqa: ARG001 - what every rule takes
    """Indices and masks, which follow from sizes."""
    return {}


def _rename(template: str) -> Convert:
    r"""Another name; `\1` stands for a group of the pattern."""
    return lambda match, weights: {match.expand(template): weights[match[0]]}


def _to_next_stage(match: re.Match[str], weights: Weights) -> dict[str, Tensor]:
    """Merging at the end of a stage is merging at the start of the next."""
    return {f"layers.{int(match[1]) + 1}.downsample.{match[2]}": weights[match[0]]}


def _split_thirds(match: re.Match[str], weights: Weights) -> dict[str, Tensor]:
    """Rows q, k, v of one linear layer."""
    return _name_projections(match, dict(zip("qkv", weights[match[0]].chunk(3), strict=True)))


def _split_elsa(match: re.Match[str], weights: Weights) -> dict[str, Tensor]:
    """Rows q, k, v of one 1x1 convolution, queries and keys narrower than values; v, q, k in blocks of windows."""
    joined = weights[match[0]].flatten(1) if weights[match[0]].ndim > 1 else weights[match[0]]
    width = len(weights[f"{match[1]}.post_proj.weight"])
    narrow = (len(joined) - width) // 2
    order = "vqk" if f"{match[1]}.rb" in weights else "qkv"
    parts = joined.split([width if name == "v" else narrow for name in order])
    return _name_projections(match, dict(zip(order, parts, strict=True)))


def _name_projections(match: re.Match[str], parts: Weights) -> dict[str, Tensor]:
    """The groups of the pattern are the attention and `weight` or `bias`."""
    q, k, v = parts["q"], parts["k"], parts["v"]
    attention, kind = match[1], match[2]
    inner = f"{attention}.parameterization"
    return {f"{inner}.q.{kind}": q, f"{inner}.k.{kind}": k, f"{attention}.v.{kind}": v}


def _turn_table(match: re.Match[str], weights: Weights) -> dict[str, Tensor]:
    """Timm's table has rows by query minus key, and heads last; ours heads first, then key minus query."""
    return {f"{match[1]}.parameterization.rb.weight": weights[match[0]].flip(0).T}


def _split_ghost_head(match: re.Match[str], weights: Weights) -> dict[str, Tensor]:
    """The added filter, (1, channels, k, k); or O, which multiplies, and it, (2, 1, channels, k, k).

    γ = 0 with λ above 0 has one filter too, which multiplies: no released model is like that, and none is read here.
    """
    filters = weights[match[0]]
    names = ("add",) if filters.ndim == 4 else ("mul", "add")
    tables = filters.reshape(len(names), filters.shape[-3], -1)
    return {f"{match[1]}.aggregation.{name}.weight": table for name, table in zip(names, tables, strict=True)}


def _flatten(template: str) -> Convert:
    """A 1x1 convolution as a linear layer."""
    return lambda match, weights: {match.expand(template): weights[match[0]].flatten(1)}


_ATTENTION = r"(layers\.\d+\.blocks\.\d+\.attn)"
_KIND = r"(weight|bias)"
_SHELL: dict[str, Convert] = {
    rf"patch_embed\.(?:proj|norm)\.{_KIND}": _keep,
    rf"layers\.\d+\.blocks\.\d+\.(?:norm1|norm2|mlp\.fc1|mlp\.fc2)\.{_KIND}": _keep,
    rf"norm\.{_KIND}": _keep,
}
_MERGED_AT_THE_END: dict[str, Convert] = {
    r"layers\.(\d+)\.downsample\.(reduction\.weight|norm\.weight|norm\.bias)": _to_next_stage,
    rf"head\.{_KIND}": _rename(r"head.fc.\1"),
}
_MERGED_AT_THE_START: dict[str, Convert] = {
    r"layers\.\d+\.downsample\.(?:reduction\.weight|norm\.weight|norm\.bias)": _keep,
    rf"head\.fc\.{_KIND}": _keep,
}
_SWIN: dict[str, Convert] = {
    rf"{_ATTENTION}\.qkv\.{_KIND}": _split_thirds,
    rf"{_ATTENTION}\.proj\.{_KIND}": _keep,
    rf"{_ATTENTION}\.relative_position_bias_table": _turn_table,
    rf"{_ATTENTION}\.relative_position_index": _drop,
    r"layers\.\d+\.blocks\.\d+\.attn_mask": _drop,
}
_ELSA: dict[str, Convert] = {
    rf"{_ATTENTION}\.pre_proj\.{_KIND}": _split_elsa,
    rf"{_ATTENTION}\.attn\.0\.{_KIND}": _rename(r"\1.parameterization.mix.\2"),
    rf"{_ATTENTION}\.attn\.2\.weight": _flatten(r"\1.parameterization.to_logits.weight"),
    rf"{_ATTENTION}\.attn\.2\.bias": _rename(r"\1.parameterization.to_logits.bias"),
    rf"{_ATTENTION}\.ghost_head": _split_ghost_head,
    rf"{_ATTENTION}\.post_proj\.{_KIND}": _rename(r"\1.proj.\2"),
    rf"{_ATTENTION}\.rb": _rename(r"\1.parameterization.rb.weight"),
    rf"{_ATTENTION}\.relative_id": _drop,
    r"layers\.\d+\.blocks\.\d+\.attn_mask": _drop,
}

_FIRST = "layers.0.blocks.0.attn"
FAMILIES = {
    "elsa_swin": Family(
        "ELSA-Swin of github.com/damo-cv/ELSA",
        frozenset({f"{_FIRST}.pre_proj.weight", "head.weight"}),
        {**_SHELL, **_MERGED_AT_THE_END, **_ELSA},
    ),
    "swin": Family(
        "timm's Swin since 0.9",
        frozenset({f"{_FIRST}.qkv.weight", f"{_FIRST}.relative_position_bias_table", "head.fc.weight"}),
        {**_SHELL, **_MERGED_AT_THE_START, **_SWIN},
    ),
    "swin_microsoft": Family(
        "Swin of arXiv:2103.14030's code and of timm before 0.9",
        frozenset({f"{_FIRST}.qkv.weight", f"{_FIRST}.relative_position_bias_table", "head.weight"}),
        {**_SHELL, **_MERGED_AT_THE_END, **_SWIN},
    ),
}
"""By name; no two signatures fit one file."""
