"""The terms of Eq. 4 (arXiv:2112.12786) as products of whole tensors, in a kernel's layout.

The reference does not use this module: kernels are compared with it, so it computes the sum independently.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from paradigms.functional import Terms


class Layout(NamedTuple):
    """The axes of the operands and of the logits, one letter per axis, as in `torch.einsum`."""

    query: str
    key: str
    table: str
    logits: str


def join_terms(terms: Terms, layout: Layout) -> Tensor:
    """The sum of the terms that are present.

    Args:
        terms: tensors in this layout; `rb` has no channels and must broadcast with the logits.
        layout: the axes of `q`, `k`, of `rk` and `rq`, and of the result.
    """
    q, k, rk, rq, rb, scale = terms
    query, key, table, logits = layout
    parts: list[Tensor] = []
    if scale is not None:
        assert q is not None and k is not None
        parts.append(torch.einsum(f"{query},{key}->{logits}", q * scale, k))
    if rk is not None:
        assert q is not None
        parts.append(torch.einsum(f"{query},{table}->{logits}", q, rk))
    if rq is not None:
        assert k is not None
        parts.append(torch.einsum(f"{table},{key}->{logits}", rq, k))
    if rb is not None:
        parts.append(rb)
    assert len(parts) > 0  # torch.compile cannot trace bool(list)
    return sum(parts[1:], start=parts[0])
