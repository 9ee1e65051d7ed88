"""A normalization: sigmoid attention (arXiv:2409.04431)."""

import math


class Sigmoid:
    """Each logit becomes a weight by itself: sigmoid(logit - log K), zero where a tap is not counted."""

    kind = "sigmoid"  # the level's name
    ignores_constant = False  # adding a number to all logits changes the weights
    weight_sum = None  # the weights of a query have no fixed sum

    def __call__(self, logits, valid):
        weights = (logits - math.log(logits.shape[-1])).sigmoid()
        return weights if valid is None else weights * valid


NORMALIZATIONS = {"sigmoid": Sigmoid}
