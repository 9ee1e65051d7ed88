"""ELSA as released with arXiv:2112.12786: names, shapes, and the formula of the code that runs without CUDA."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, linear, unfold

Weights = dict[str, Tensor]


def draw(shapes: dict[str, tuple[int, ...]], *, seed: int = 0) -> Weights:
    """Numbers of these shapes, float64."""
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.4 * torch.randn(shape, dtype=torch.float64, generator=generator) for name, shape in shapes.items()}


def count_qk(dim: int, group_width: int) -> int:
    """dim_qk: two thirds, made up to a multiple."""
    dim_qk = dim // 3 * 2
    return dim_qk if dim_qk % group_width == 0 else (dim_qk // group_width + 1) * group_width


def attention_shapes(dim: int, heads: int, group_width: int, *, kernel: int = 7, both: bool = False) -> dict:
    """Of the module `ELSA` with λ = 0, γ = 1; `both`: with λ above 0."""
    narrow, taps = count_qk(dim, group_width), kernel**2
    return {
        "ghost_head": (2, 1, dim, kernel, kernel) if both else (1, dim, kernel, kernel),
        "pre_proj.weight": (2 * narrow + dim, dim, 1, 1),
        "pre_proj.bias": (2 * narrow + dim,),
        "attn.0.weight": (narrow, group_width, kernel, kernel),
        "attn.0.bias": (narrow,),
        "attn.2.weight": (taps * heads, narrow, 1, 1),
        "attn.2.bias": (taps * heads,),
        "post_proj.weight": (dim, dim),
        "post_proj.bias": (dim,),
    }


def window_shapes(dim: int, heads: int, window: int) -> dict:
    """Of the authors' window attention, which stage 4 keeps."""
    return {
        "rb": (heads, (2 * window - 1) ** 2),
        "relative_id": (window**4,),
        "pre_proj.weight": (3 * dim, dim),
        "pre_proj.bias": (3 * dim,),
        "post_proj.weight": (dim, dim),
        "post_proj.bias": (dim,),
    }


def model_shapes(dim: int, depths: tuple[int, ...], heads: tuple[int, ...], group_width: int, window: int) -> dict:
    """Of an ELSA-Swin for images of three channels and ten classes; the last stage has windows."""
    last = len(depths) - 1
    found = {
        "patch_embed.proj.weight": (dim, 3, 4, 4),
        "patch_embed.proj.bias": (dim,),
        "patch_embed.norm.weight": (dim,),
        "patch_embed.norm.bias": (dim,),
        "norm.weight": (dim * 2**last,),
        "norm.bias": (dim * 2**last,),
        "head.weight": (10, dim * 2**last),
        "head.bias": (10,),
    }
    for stage, depth in enumerate(depths):
        width = dim * 2**stage
        for number in range(depth):
            block = f"layers.{stage}.blocks.{number}"
            is_window = stage == last
            attention = (
                window_shapes(width, heads[stage], window)
                if is_window
                else attention_shapes(width, heads[stage], group_width)
            )
            found |= {f"{block}.attn.{name}": shape for name, shape in attention.items()}
            found |= {f"{block}.{norm}.{kind}": (width,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
            found |= {f"{block}.mlp.fc1.weight": (4 * width, width), f"{block}.mlp.fc1.bias": (4 * width,)}
            found |= {f"{block}.mlp.fc2.weight": (width, 4 * width), f"{block}.mlp.fc2.bias": (width,)}
        if stage < last:
            found[f"layers.{stage}.downsample.reduction.weight"] = (2 * width, 4 * width)
            found |= {f"layers.{stage}.downsample.norm.{kind}": (4 * width,) for kind in ("weight", "bias")}
    return found


def attend(weights: Weights, x: Tensor, heads: int) -> Tensor:
    """`ELSA` with λ = 0 or 1 and γ = 1: maps (batch, height, width, dim) to the same."""
    batch, height, width, dim = x.shape
    kernel = weights["ghost_head"].shape[-1]
    projected = conv2d(x.permute(0, 3, 1, 2), weights["pre_proj.weight"], weights["pre_proj.bias"])
    narrow = (projected.shape[1] - dim) // 2
    q, k, v = projected.split([narrow, narrow, dim], dim=1)
    groups = narrow // weights["attn.0.weight"].shape[1]
    mixed = conv2d(q * k, weights["attn.0.weight"], weights["attn.0.bias"], padding=kernel // 2, groups=groups)
    logits = conv2d(gelu(mixed), weights["attn.2.weight"], weights["attn.2.bias"])
    attention = logits.reshape(batch * heads, kernel**2, height, width).softmax(dim=1)
    copies = unfold(v.reshape(batch * heads, dim // heads, height, width), kernel, padding=kernel // 2)
    copies = copies.reshape(batch * heads, dim // heads, kernel**2, height * width)
    ghosts = weights["ghost_head"].reshape(-1, heads, dim // heads, kernel**2, 1).repeat(1, batch, 1, 1, 1)
    filters = attention.reshape(batch * heads, 1, kernel**2, height * width)
    filters = (filters if len(ghosts) == 1 else filters * ghosts[0]) + ghosts[-1]
    mapped = (copies * filters).sum(dim=2).reshape(batch, dim, height, width).permute(0, 2, 3, 1)
    return linear(mapped, weights["post_proj.weight"], weights["post_proj.bias"])


def attend_in_window(weights: Weights, x: Tensor, heads: int) -> Tensor:
    """The authors' window attention where the map is one window: r^b by key minus query, rows v, q, k."""
    batch, height, width, dim = x.shape
    v, q, k = linear(x.flatten(1, 2), weights["pre_proj.weight"], weights["pre_proj.bias"]).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    place = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    step = place[None, :] - place[:, None]  # [query, key]
    row = (step[..., 0] + height - 1) * (2 * width - 1) + step[..., 1] + width - 1
    logits = (dim // heads) ** -0.5 * q @ k.mT + weights["rb"][:, row]
    mapped = (logits.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, height, width, dim)
    return linear(mapped, weights["post_proj.weight"], weights["post_proj.bias"])
