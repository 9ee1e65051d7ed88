"""The noise that the choice of test images adds to each row's difference, and the verdicts that depend on it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from harness.record import Record
from harness.statistics import ImageNoise, Verdict, add_image_noise, decide, find_image_noise
from harness.table.comparison import Judged
from harness.table.selection import Replicates
from harness.tasks import TASKS

Scores = NDArray[np.float64]

ReadPredictions = Callable[[Record], Mapping[str, NDArray[np.generic]]]
"""Reads the stored values of each test image of a run; empty if the run has stored none."""


def judge_by_images(
    rows: Sequence[Replicates], judged: Sequence[Judged], baseline: str, margin: float, read: ReadPredictions
) -> list[Judged]:
    """Add the noise of the test images to the verdicts, and whether each verdict would change with it.

    Args:
        rows: the rows of the table.
        judged: their comparisons with the baseline.
        baseline: name of the baseline.
        margin: the largest difference that does not matter.
        read: reads the stored values of a run.
    """
    base = next((row for row in rows if row.row.name == baseline), None)
    compared = {
        number: own.comparison
        for number, (row, own) in enumerate(zip(rows, judged, strict=True))
        if own.comparison is not None and not row.row.is_placebo
    }
    tested = {number: item for number, item in compared.items() if item.error is not None}
    if base is None or not tested:
        return [*judged]
    of_base = _score_images(base, read)
    found = {number: _find_noise(_score_images(rows[number], read), of_base) for number in tested}
    noises = {number: noise for number, noise in found.items() if noise is not None}
    again = add_image_noise([tested[number] for number in noises], [*noises.values()])
    made = [*judged]
    for (number, noise), item in zip(noises.items(), again, strict=True):
        own = judged[number]
        verdict = decide(base.measure.sign * item.delta, item.p, item.interval, margin, own.alpha)
        rests = own.verdict not in (verdict, Verdict.UNRESOLVED)
        made[number] = replace(own, image_error=noise.error, rests_on_images=rests)
    return made


def _find_noise(own: Mapping[int, Scores], base: Mapping[int, Scores]) -> ImageNoise | None:
    """The noise of the difference, over the seeds for which both rows have scores of single images."""
    shared = sorted(own.keys() & base.keys())
    return find_image_noise(np.stack([own[seed] - base[seed] for seed in shared])) if shared else None


def _score_images(row: Replicates, read: ReadPredictions) -> dict[int, Scores]:
    """The score of each test image, by replicate; runs without stored predictions are left out."""
    task, name, scores = TASKS[row.row.cell.data.task], row.measure.name, {}
    for replicate in row.scores:
        kept = read(row.records[replicate])
        scored = task.score_images(kept) if kept else {}
        if name in scored:
            scores[replicate] = scored[name]
    return scores
