"""Released weights of others under the names of our models, one file per model family.

A row of `LAYOUTS` is a naming of checkpoints; its rules take every tensor exactly once. What was read for each, and
what is left out, stands in its file. No released file was at hand: names and shapes are those of the code.
"""

from pathlib import Path

from torch import Tensor

from paradigms.released import deit, swin, volo
from paradigms.released.checkpoint import read_weights
from paradigms.released.layout import CheckpointLayout, Weights

__all__ = ["LAYOUTS", "convert_released", "describe_layouts", "find_layout", "load_released", "read_weights"]

LAYOUTS: dict[str, CheckpointLayout] = {**swin.LAYOUTS, **volo.LAYOUTS, **deit.LAYOUTS}
"""By name; no two signatures fit one file."""


def load_released(path: Path | str) -> dict[str, Tensor]:
    """Read a released checkpoint (torch's format without code in it, or safetensors) for `load_state_dict` of ours.

    Raises:
        ValueError: the file has no weights, or those of no layout in `LAYOUTS`, or tensors that no rule takes.
    """
    return convert_released(read_weights(path))


def convert_released(weights: Weights) -> dict[str, Tensor]:
    """Rename, split and turn released tensors into those of our models.

    Raises:
        ValueError: no layout has these names, or a tensor is left over, has an impossible shape, is of whole numbers,
            or two become one.
    """
    layout = find_layout(weights)
    if layout is None:
        raise ValueError(describe_layouts(weights))
    return layout.convert(weights)


def find_layout(weights: Weights) -> CheckpointLayout | None:
    """The layout that has these names; None: no known one."""
    return next((layout for layout in LAYOUTS.values() if layout.signature <= weights.keys()), None)


def describe_layouts(weights: Weights) -> str:
    """That weights are of none, and which there are."""
    known = ", ".join(f"{name} ({layout.source})" for name, layout in LAYOUTS.items())
    return f"weights of no known layout, their first name is {next(iter(weights), None)!r} (known: {known})"
