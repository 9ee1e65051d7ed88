"""Converts released weights of others to the names of our models, one file per model family.

An entry of `LAYOUTS` describes the tensor names of a code base; its rules convert every tensor exactly once. Each file
lists its sources and the tensors that are left out. No released file was available: names and shapes are those of the
published code.
"""

from pathlib import Path

from torch import Tensor

from paradigms.released import deit, swin, volo
from paradigms.released.checkpoint import read_weights
from paradigms.released.layout import CheckpointLayout, Weights

__all__ = ["LAYOUTS", "convert_released", "describe_layouts", "find_layout", "load_released", "read_weights"]

LAYOUTS: dict[str, CheckpointLayout] = {**swin.LAYOUTS, **volo.LAYOUTS, **deit.LAYOUTS}
"""Layouts by name; at most one signature fits a file."""


def load_released(path: Path | str) -> dict[str, Tensor]:
    """Read a released checkpoint (torch's format without code, or safetensors) for `load_state_dict` of our models.

    Raises:
        ValueError: the file has no weights, fits no layout in `LAYOUTS`, or has tensors that no rule converts.
    """
    return convert_released(read_weights(path))


def convert_released(weights: Weights) -> dict[str, Tensor]:
    """Rename, split and reorder released tensors for our models.

    Raises:
        ValueError: no layout has these names; or a tensor is left over, has an impossible shape or an integer dtype, or
            two tensors get the same name.
    """
    layout = find_layout(weights)
    if layout is None:
        raise ValueError(describe_layouts(weights))
    return layout.convert(weights)


def find_layout(weights: Weights) -> CheckpointLayout | None:
    """The layout that has these names; None if there is none."""
    return next((layout for layout in LAYOUTS.values() if layout.signature <= weights.keys()), None)


def describe_layouts(weights: Weights) -> str:
    """The error message for weights that fit no layout, with all layouts."""
    known = ", ".join(f"{name} ({layout.source})" for name, layout in LAYOUTS.items())
    return f"weights of no known layout, their first name is {next(iter(weights), None)!r} (known: {known})"
