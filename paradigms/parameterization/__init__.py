"""The room of parameterizations: how logits are made.

`terms` holds the four terms of Eq. 4 (arXiv:2112.12786), of which a parameterization is any non-empty subset.
"""

from paradigms.parameterization.terms import TERMS, Term, TermSum

__all__ = ["TERMS", "Term", "TermSum"]
