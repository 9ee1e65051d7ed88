"""Backbones: timm's models with operators in their blocks."""

from paradigms.backbones.deit import DeiT
from paradigms.backbones.stages import ChannelsFirst, OperatorStages, Place
from paradigms.backbones.swin import SwinTransformer
from paradigms.backbones.volo import VOLO

BACKBONES: dict[str, type[SwinTransformer | VOLO | DeiT]] = {"swin": SwinTransformer, "volo": VOLO, "deit": DeiT}

__all__ = ["BACKBONES", "VOLO", "ChannelsFirst", "DeiT", "OperatorStages", "Place", "SwinTransformer"]
