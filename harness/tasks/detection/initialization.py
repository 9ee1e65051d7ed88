"""Initial values of a detector's layers, as in mmdetection 2.x."""

from torch import nn
from torch.nn import init


def initialize_head(module: nn.Module, path: str) -> None:
    """Draw the parameters of one module of a detector outside of its backbone, not those of its children.

    Convolutions of the pyramid and fully connected layers have Xavier's uniform values, and convolutions of the heads
    Kaiming's normal ones. The proposal network and the layer of classes have a deviation of 0.01, and the layer of
    boxes one of 0.001. Biases are zero.

    Args:
        module: any module of a detector; one without parameters of its own is left as it is.
        path: its name in the detector, such as `box_heads.0.classes`.

    Raises:
        ValueError: the detector has no such layer.
    """
    if not list(module.parameters(recurse=False)):
        return
    if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
        module.reset_parameters()
        return
    if not isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        raise ValueError(f"no rule for the parameters of {type(module).__name__} at {path!r}")
    names = path.split(".")
    if "proposals" in names or names[-1] == "classes":
        init.normal_(module.weight, std=0.01)
    elif names[-1] == "boxes":
        init.normal_(module.weight, std=0.001)
    elif "fpn" in names or isinstance(module, nn.Linear):
        init.xavier_uniform_(module.weight)
    else:
        init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if module.bias is not None:
        init.zeros_(module.bias)
