"""The types of what a model is fed with."""

from jaxtyping import Float, Int
from torch import Tensor

LabelledBatch = tuple[Float[Tensor, "batch channels height width"], Int[Tensor, "batch"]]
"""Normalized images and the index of each one's class."""

Batch = LabelledBatch | tuple[Float[Tensor, "batch channels height width"], Float[Tensor, "batch classes"]]
"""Images to train on; mixed images have a weight for each class."""
