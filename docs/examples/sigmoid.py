"""A normalization: sigmoid attention (arXiv:2409.04431)."""

import math

from paradigms.facts import Field


class Sigmoid:
    """Each logit becomes a weight by itself: sigmoid(logit - log K + b), zero where a tap is not counted."""

    kind = "sigmoid"  # the level's name
    ignores_constant = False  # adding a number to all logits changes the weights
    weight_sum = None  # the weights of a query have no fixed sum
    fields = {"sigmoid_bias": Field(kind="float", default=0.0, minimum=-100, doc="The constant b.")}  # a key of rows

    def __init__(self, bias):
        self.bias = bias

    @classmethod
    def from_config(cls, config):
        return cls(config.sigmoid_bias)

    def __call__(self, logits, valid):
        weights = (logits - math.log(logits.shape[-1]) + self.bias).sigmoid()
        return weights if valid is None else weights * valid


NORMALIZATIONS = {"sigmoid": Sigmoid}
