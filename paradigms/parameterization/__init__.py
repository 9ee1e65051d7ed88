"""The room of parameterizations: how logits are computed.

Either the sum of any non-empty subset of the terms of Eq. 4 (arXiv:2112.12786), or one of the other levels.
"""

from paradigms.parameterization.ddf import DDF
from paradigms.parameterization.dynamic_conv import DynamicConv
from paradigms.parameterization.hadamard import Hadamard
from paradigms.parameterization.hadamard_conv import HadamardConv
from paradigms.parameterization.involution import Involution
from paradigms.parameterization.level import Parameterization
from paradigms.parameterization.outlook import Outlook
from paradigms.parameterization.terms import TERMS, TermSum

PARAMETERIZATIONS: dict[str, type[Parameterization]] = {
    "query_key": TermSum,
    "query_position": TermSum,
    "position_key": TermSum,
    "position_bias": TermSum,
    "hadamard": Hadamard,
    "hadamard_conv": HadamardConv,
    "involution": Involution,
    "ddf": DDF,
    "dynamic_conv": DynamicConv,
    "outlook": Outlook,
}

__all__ = ["PARAMETERIZATIONS", "TERMS", "Parameterization", "TermSum"]
