"""Loads weights from files into models: of a run, or of a released checkpoint."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from harness.errors import WeightsError
from paradigms.backbones.resize import resize_weights
from paradigms.backbones.stages import OperatorStages
from paradigms.released import describe_layouts, find_layout, read_weights

SHOWN = 3
"""How many of the tensors that do not fit a message names."""


def load_weights(model: nn.Module, path: Path) -> str:
    """Fill a model from a file; returns what of the file it has no place for, in words.

    Raises:
        WeightsError: the file cannot be read, is of no known layout, or has other tensors than the model, or numbers
            that are not finite.
    """
    return _load(model, path, resize=False)


def start_from(model: nn.Module, path: Path) -> None:
    """Fill a backbone from a file that may be of another image size: what depends on it is interpolated.

    Raises:
        WeightsError: as `load_weights` does.
    """
    _load(model, path, resize=True)


def find_misfit(weights: Mapping[str, Tensor], model: nn.Module, *, resize: bool) -> str | None:
    """Why tensors do not fit a model, in words; None where they do. Both may be on the meta device.

    `resize` says that images may be of another size.
    """
    try:
        _fit(weights, model, resize=resize)
    except ValueError as error:
        return str(error)
    return None


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by the names that they have there.

    Raises:
        WeightsError: it is missing, damaged, or no file of weights.
    """
    try:
        return read_weights(path)
    except ValueError as error:
        raise WeightsError(str(error)) from error


def _load(model: nn.Module, path: Path, *, resize: bool) -> str:
    weights = read(path)
    try:
        fitting, left_out = _fit(weights, model, resize=resize)
    except ValueError as error:
        raise WeightsError(f"{path} does not fit: {error}") from error
    model.load_state_dict(fitting)
    return left_out


def _fit(weights: Mapping[str, Tensor], model: nn.Module, *, resize: bool) -> tuple[dict[str, Tensor], str]:
    """The tensors as the model has them, and what is left out of them; ValueError: they differ, or are not finite."""
    expected, fitting, left_out = model.state_dict(), dict(weights), ""
    if fitting.keys() != expected.keys():
        layout = find_layout(fitting)
        if layout is not None:
            fitting, left_out = layout.convert(fitting), layout.left_out
        elif fitting.keys().isdisjoint(expected):
            raise ValueError(describe_layouts(fitting))
    if resize:
        fitting = resize_weights(fitting, cast("OperatorStages", model))
    differences = [
        *_list_names("it lacks", expected.keys() - fitting.keys()),
        *_list_names("the model has no", fitting.keys() - expected.keys()),
        *_list_shapes(fitting, expected),
    ]
    if differences:
        raise ValueError("; ".join(differences))
    fitting = {name: tensor.to(expected[name].dtype) for name, tensor in fitting.items()}
    broken = [name for name, tensor in fitting.items() if not tensor.is_meta and not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(f"it has numbers that are not finite, in {_name_some(broken)}")
    return fitting, left_out


def _list_names(what: str, names: Collection[str]) -> list[str]:
    return [f"{what} {_name_some(sorted(names))}"] if names else []


def _list_shapes(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Tensors of another shape than the model's, or of another kind: no number may be cast to whole ones, or back."""
    differing = [
        f"{name} is {_describe(weights[name])}, the model's {_describe(tensor)}"
        for name, tensor in expected.items()
        if name in weights and _describe(weights[name]) != _describe(tensor)
    ]
    return [_name_some(differing)] if differing else []


def _describe(tensor: Tensor) -> str:
    """Shape, and kind where it is not the usual one."""
    kind = "" if tensor.is_floating_point() else f" of {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{kind}"


def _name_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
