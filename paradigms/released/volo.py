"""Released weights of VOLO (arXiv:2106.13112); most names are the same in our model.

Source: timm 1.0.31's `models/volo.py`, and `models/volo.py` of github.com/sail-sg/volo, which have the same names.
Every tensor is loaded: stem and its batch norms, Outlookers, downsampling, transformer blocks, class token and class
attention (`post_network`), position embedding, `head`, and the head over all tokens (`aux_head`). A model needs
`use_aux_head` for the last one; half of its maximum over the tokens is part of the logits, so that it cannot be left
out.
"""

from paradigms.released.layout import KIND, CheckpointLayout, Convert, keep

_BLOCK = r"(?:norm1|norm2|mlp\.fc1|mlp\.fc2)"
_RULES: dict[str, Convert] = {
    "pos_embed|cls_token": keep,
    r"patch_embed\.conv\.(?:0|3|6)\.weight": keep,
    r"patch_embed\.conv\.(?:1|4|7)\.(?:weight|bias|running_mean|running_var|num_batches_tracked)": keep,
    rf"patch_embed\.proj\.{KIND}": keep,
    rf"network\.\d+\.\d+\.(?:{_BLOCK}|attn\.(?:v|attn|qkv|proj))\.{KIND}": keep,
    rf"network\.\d+\.proj\.{KIND}": keep,
    rf"post_network\.\d+\.(?:{_BLOCK}|attn\.(?:q|kv|proj))\.{KIND}": keep,
    rf"(?:norm|head|aux_head)\.{KIND}": keep,
}

LAYOUTS = {
    "volo": CheckpointLayout(
        "VOLO of github.com/sail-sg/volo and timm",
        frozenset({"patch_embed.conv.0.weight", "network.0.0.attn.attn.weight", "cls_token", "head.weight"}),
        _RULES,
    )
}
