"""Sliding windows in Triton, for GPUs: fused softmax attention and `dot`, `mix`, `reverse`.

Checked against the reference in Triton's interpreter, and compiled for one GPU target; a test compares them on a GPU
where there is one. Nobody has measured their speed. Importing this package does not import triton.
"""

import os
from importlib.util import find_spec

import torch


def is_available(device: torch.device) -> bool:
    """Whether these kernels run here: on CUDA where triton is installed, on a CPU in its interpreter alone."""
    if find_spec("triton") is None:
        return False
    return device.type == "cuda" or (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1")
