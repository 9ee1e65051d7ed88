"""Adapts weights trained at one image size to a model for another."""

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt
from typing import cast

import torch
from timm.layers import resample_abs_pos_embed, resample_abs_pos_embed_nhwc
from torch import Tensor, nn

from paradigms.backbones.stages import OperatorStages, resize_table
from paradigms.functional import Geometry


def resize_weights(weights: Mapping[str, Tensor], model: OperatorStages) -> dict[str, Tensor]:
    """Interpolate position embeddings and position tables to the shapes of `model`, as its `set_input_size` would.

    Maps and windows of the weights must be square. Tensors that have the right shape, or do not depend on the map, are
    not changed.

    Raises:
        ValueError: a parameter of an operator depends on the window but is not a table over offsets, or its shape
            cannot be resized.
    """
    module = cast("nn.Module", model)
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    differing = [name for name, tensor in weights.items() if name in shapes and tensor.shape != shapes[name]]
    geometries = _list_geometries(model)
    resized = dict(weights)
    for name in differing:
        operator = next((path for path in geometries if name.startswith(f"{path}.")), None)
        try:
            if operator is not None:
                resized[name] = _resize_table(name, weights[name], geometries[operator])
            elif name == "pos_embed":
                resized[name] = _resize_embedding(weights[name], shapes[name])
        except (AssertionError, LookupError, RuntimeError, TypeError) as error:
            before, after = tuple(weights[name].shape), tuple(shapes[name])
            raise ValueError(f"{name} of shape {before} cannot be resized to {after}: {error}") from error
    return resized


def _list_geometries(model: OperatorStages) -> dict[str, Geometry]:
    """The geometry of every operator, by its path in the model."""
    paths = {module: path for path, module in cast("nn.Module", model).named_modules()}
    return {paths[operator]: operator.neighborhood.geometry for _, _, operator in model.operators()}


def _resize_table(name: str, table: Tensor, after: Geometry) -> Tensor:
    """Resize a table over the (2w-1)² offsets of a window of side w."""
    side = (isqrt(table.shape[1]) + 1) // 2 if table.ndim > 1 else 0
    return resize_table(name, table, replace(after, kernel_size=(side, side)), after)


@torch.no_grad()
def _resize_embedding(embedding: Tensor, shape: torch.Size) -> Tensor:
    """Resize the position embedding of a VOLO, (1, rows, columns, width), or of a DeiT, (1, rows·columns, width)."""
    if len(shape) == 4:
        nhwc: Tensor = resample_abs_pos_embed_nhwc(embedding, list(shape[1:3]))
        return nhwc
    side = isqrt(shape[1])
    tokens: Tensor = resample_abs_pos_embed(embedding, [side, side], num_prefix_tokens=0)
    return tokens
