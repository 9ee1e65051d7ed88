"""Weights from files into models: what a run has kept, or a checkpoint that others released."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from harness.errors import WeightsError
from paradigms.backbones.resize import resize_weights
from paradigms.backbones.stages import OperatorStages
from paradigms.released import find_family, read_weights


def load_weights(model: nn.Module, path: Path) -> str:
    """Fill a model from a file; returns what of the file it has no place for, in words.

    Raises:
        WeightsError: the file cannot be read, is of no known family, or has other tensors than the model.
    """
    return _load(model, path, lambda weights: weights)


def start_from(model: nn.Module, path: Path) -> None:
    """Fill a backbone from a file that may be of another image size: what depends on it is interpolated.

    Raises:
        WeightsError: the file cannot be read, is of no known family, or has other tensors than the model.
    """
    _load(model, path, lambda weights: resize_weights(weights, cast("OperatorStages", model)))


def _load(model: nn.Module, path: Path, fit: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> str:
    left_out = ""
    try:
        weights = read_weights(path)
        if weights.keys() != model.state_dict().keys():
            family = find_family(weights)
            weights, left_out = family.convert(weights), family.left_out
        model.load_state_dict(fit(weights))
    except ValueError as error:
        raise WeightsError(str(error)) from error
    except RuntimeError as error:  # torch tells what is missing, left over or of another shape
        raise WeightsError(f"{path} does not fit: {error}") from error
    return left_out
