"""What a detector finds in one image."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class Detections(NamedTuple):
    """Objects that a detector found in one image, in descending order of their scores.

    Attributes:
        boxes: left, top, right and bottom in pixels of the image without its padding.
        scores: probabilities.
        labels: the class of each, from 0.
        masks: the probability that a point belongs to the object, on a grid over its box.
    """

    boxes: Float[Tensor, "detections 4"]
    scores: Float[Tensor, "detections"]
    labels: Int[Tensor, "detections"]
    masks: Float[Tensor, "detections side side"]
