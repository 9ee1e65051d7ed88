"""Sliding windows in Triton, for GPUs: fused softmax attention and `dot`, `mix`, `reverse`.

They are compared with the reference in Triton's interpreter, on a GPU if there is one, and compiled for one GPU target.
Their speed has not been measured. Importing this package does not import triton.
"""

import os
from importlib.util import find_spec

import torch


def is_available(device: torch.device) -> bool:
    """Whether these kernels run on a device: CUDA if triton is installed, a CPU only in triton's interpreter."""
    if find_spec("triton") is None:
        return False
    return device.type == "cuda" or (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1")
