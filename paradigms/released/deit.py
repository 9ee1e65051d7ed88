"""Released weights of DeiT (arXiv:2012.12877), for our DeiT without class token.

Source: timm 1.0.31's `models/deit.py` and `models/vision_transformer.py` (`deit_tiny_patch16_224` and larger ones).
Patch embedding, blocks, last norm and head are not changed. `cls_token` and the first entry of the position embedding,
which belongs to the class token, are not loaded. The result is not a trained DeiT: its head was trained on the class
token, and here its input is the mean over the patches. It is a starting point for training. Distilled DeiTs
(`dist_token`, `head_dist`) are an error.
"""

import re

from torch import Tensor

from paradigms.released.layout import KIND, CheckpointLayout, Convert, Weights, drop, keep


def _without_class_token(match: re.Match[str], weights: Weights) -> dict[str, Tensor]:
    """(1, 1 + patches, width) to (1, patches, width)."""
    return {match[0]: weights[match[0]][:, 1:]}


_RULES: dict[str, Convert] = {
    "cls_token": drop,
    "pos_embed": _without_class_token,
    rf"patch_embed\.proj\.{KIND}": keep,
    rf"blocks\.\d+\.(?:norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.{KIND}": keep,
    rf"(?:norm|head)\.{KIND}": keep,
}

LAYOUTS = {
    "deit": CheckpointLayout(
        "timm's DeiT with class token",
        frozenset({"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"}),
        _RULES,
        left_out="the class token (cls_token, the first entry of pos_embed), for which the head was trained",
    )
}
