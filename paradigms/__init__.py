"""Depthwise convolution, dynamic filters and local self-attention as one operator: Eq. 4 of arXiv:2112.12786.

The names below are loaded on first use, so that `import paradigms` does not import torch.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "LocalAttention": "paradigms.attention",
    "build_attention": "paradigms.attention",
    "AttentionConfig": "paradigms.config",
    "PRESETS": "paradigms.presets",
    "load_released": "paradigms.released",
    "replace_attention": "paradigms.replace",
}

__all__ = [
    "PRESETS",
    "AttentionConfig",
    "LocalAttention",
    "build_attention",
    "load_released",
    "replace_attention",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
