"""Replaces the attention of a timm model by any operator."""

from collections.abc import Iterable
from typing import Any

from timm.models import swin_transformer, vision_transformer, volo
from torch import nn

from paradigms.backbones import VOLO, DeiT, OperatorStages, SwinTransformer
from paradigms.config import AttentionConfig
from paradigms.presets import to_config

REPLACEABLE: dict[type[nn.Module], type[OperatorStages]] = {
    swin_transformer.SwinTransformer: SwinTransformer,
    volo.VOLO: VOLO,
    vision_transformer.VisionTransformer: DeiT,
}
"""timm's classes, and our classes of models whose attention was replaced; these have `operators()`."""


def replace_attention(
    model: nn.Module, operator: AttentionConfig | str, *, stages: Iterable[int] | None = None
) -> nn.Module:
    """Put an operator into a timm Swin, VOLO (its Outlookers) or ViT without class token (DeiT), in place.

    The model keeps its number of heads, biases and drop rates. Windows are limited to the size of the map and shifted
    in every second block, unless the config states otherwise. The operators get new weights; all other weights are
    kept. `set_input_size` still works, and interpolates the position tables of windows.

    Args:
        model: an instance of a class in `REPLACEABLE`, or a model that this function has returned.
        operator: a point of Eq. 4's space (arXiv:2112.12786) or a name of `paradigms.PRESETS`.
        stages: numbers of the stages, from 1; None means all that can have an operator.

    Returns:
        The model itself.

    Raises:
        ValueError: the model or a stage has no attention that can be replaced, or the operator does not fit. The model
            is then unchanged.
    """
    config = to_config(operator)
    before = type(model)
    after = REPLACEABLE.get(before, before)
    if not issubclass(after, OperatorStages):
        known = ", ".join(f"{known.__module__}.{known.__name__}" for known in REPLACEABLE)
        raise ValueError(f"{before.__name__} has no attention that can be replaced; models that have: {known}")
    replaced: Any = model  # type checkers do not allow a change of class
    replaced.__class__ = after
    try:
        replaced.set_operators(_spread(replaced, config, stages))
    except ValueError:
        replaced.__class__ = before
        raise
    return model


def _spread(
    model: OperatorStages, config: AttentionConfig, stages: Iterable[int] | None
) -> list[AttentionConfig | None]:
    """The config for each of `stages`, None for the others."""
    chosen = set(model.operator_stages if stages is None else stages)
    unknown = sorted(chosen - set(range(1, model.num_stages + 1)))
    if unknown or not chosen:
        raise ValueError(f"stages must name some of 1 to {model.num_stages}, got {unknown or 'none'}")
    return [config if stage in chosen else None for stage in range(1, model.num_stages + 1)]
