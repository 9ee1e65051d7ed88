"""The room of backbones: timm's models with the operator in their blocks."""

from paradigms.backbones.swin import SwinTransformer

BACKBONES = {"swin": SwinTransformer}

__all__ = ["BACKBONES", "SwinTransformer"]
