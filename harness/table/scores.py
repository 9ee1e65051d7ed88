"""What the columns of a measure are called."""

from dataclasses import dataclass

from harness.measure import Measure


@dataclass(frozen=True)
class ScoreColumns:
    """Columns of a frame.

    Attributes:
        mean: of the test set over the replicates.
        std: of the same; only the deciding measure has it.
        val_mean: of the last validation; likewise.
        published: what the paper prints; likewise.
    """

    mean: str
    std: str
    val_mean: str
    published: str


def name_scores(measure: Measure) -> ScoreColumns:
    """The columns of a measure, each with its name in it: `NAME_mean`."""
    name = measure.name
    return ScoreColumns(f"{name}_mean", f"{name}_std", f"val_{name}_mean", f"published_{name}")
