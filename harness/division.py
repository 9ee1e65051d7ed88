"""How a global batch is divided: between processes, and into the micro-batches that each of them accumulates.

The image at position i of a batch of n is mixed with the one at n - 1 - i (mixup, cutmix, MixToken). A part therefore
consists of such pairs, in the order of the batch: reversed, it has each image's counterpart at the image's position,
so that a part is mixed by itself exactly as in the whole batch.
"""

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Division:
    """How many processes a run has, and in how many micro-batches each of them computes its part of a step."""

    processes: int = 1
    accumulation: int = 1


def divide_batch(
    batch_size: int, *, device_batch_size: int | None, processes: int | None = None, num_gpus: int = 0
) -> Division:
    """The division of a batch on a machine with so many GPUs for the run, or none.

    Args:
        batch_size: images of an optimizer step.
        device_batch_size: images that one device is meant to hold at once; None: all.
        processes: those that the recipe states; None: on GPUs as many as needed, otherwise one.
        num_gpus: GPUs that the run may use.

    Raises:
        ValueError: there are more processes than pairs of images.
    """
    needed = 1 if device_batch_size is None else ceil(batch_size / device_batch_size)
    num_pairs = ceil(batch_size / 2)
    chosen = processes or max(1, min(needed, num_gpus, num_pairs))
    if chosen > num_pairs:
        raise ValueError(f"processes must not exceed half of batch_size, got {processes} and {batch_size}")
    return Division(chosen, min(ceil(needed / chosen), num_pairs // chosen))


def list_positions(num_images: int, *, part: int, num_parts: int) -> list[int]:
    """The positions of a part in a batch, ascending; the parts' sizes differ by two images at most."""
    num_pairs = ceil(num_images / 2)
    first, end = (num_pairs * number // num_parts for number in (part, part + 1))
    chosen = range(first, end)
    return sorted({*chosen, *(num_images - 1 - position for position in chosen)})
