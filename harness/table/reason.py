"""Why a run has no measurement, or a doubtful one, in one wording for every output."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.errors import Cause
from harness.record import Record, RunStatus
from harness.tasks import TASKS

AT_CHANCE = "at chance"

Outcome = tuple[RunStatus, int | None]
"""How a run ended, and the step of a divergence."""

LIMIT_OF = {RunStatus.OUT_OF_MEMORY: "memory_limit_gb", RunStatus.TIMED_OUT: "time_limit_minutes"}
"""The limit that causes an outcome; after it is raised, the run is tried again."""


def name_outcome(record: Record) -> str:
    """The status in words, such as `diverged at step 412`; `at chance` for a score that looks like guessing."""
    if is_run_at_chance(record):
        return AT_CHANCE
    step = "" if record.step is None else f" at step {record.step}"
    return f"{record.status.value.replace('_', ' ')}{step}"


def explain(record: Record) -> str:
    """The reason in one line; empty for a good run, and if nothing is known except the name of the outcome."""
    guessing = _explain_chance(record)
    if guessing:
        return guessing
    if record.status_detail:
        module = f", first in {record.module}" if record.module else ""
        return f"{record.status_detail.splitlines()[0]}{module}"
    limit = LIMIT_OF.get(record.status, "")
    return f"{limit} {record.limits[limit]:g}" if limit in record.limits else ""


def find_cause(record: Record) -> str:
    """The numbers of a run that were not finite, or `chance` if it guesses; empty for other outcomes."""
    return Cause.CHANCE.value if is_run_at_chance(record) else "" if record.cause is None else record.cause.value


def describe_outcome(record: Record) -> str:
    """Outcome and reason: `diverged at step 412: the norm of the gradients is nan, first in layers.0.blocks.1.attn`."""
    return ": ".join(part for part in (name_outcome(record), explain(record)) if part)


def is_run_at_chance(record: Record) -> bool:
    """Whether a run was measured, but the first measure of its last validation looks like guessing."""
    return bool(_explain_chance(record))


def _explain_chance(record: Record) -> str:
    """Why a run looks like guessing; empty if it does not, or if its task or chance level is unknown."""
    task = TASKS.get(record.task)
    if task is None or record.status != RunStatus.OK or not {"val/images", "val/chance"} <= record.metrics.keys():
        return ""
    measure = replace(task.measures[0], chance=record.metrics["val/chance"])
    if measure.val not in record.metrics:
        return ""
    return task.explain_chance(measure, record.metrics[measure.val], round(record.metrics["val/images"]))


def show_outcomes(outcomes: Sequence[Outcome]) -> str:
    """List bad outcomes, divergences with their steps: `diverged@412,398, failed ×2`."""
    parts = []
    for status in dict.fromkeys(status for status, _ in outcomes):
        steps = [step for other, step in outcomes if other == status]
        if None not in steps:
            parts.append(f"{status.value}@{','.join(map(str, steps))}")
        else:
            parts.append(status.value if len(steps) == 1 else f"{status.value} ×{len(steps)}")
    return ", ".join(parts)


def show_reasons(reasons: Mapping[int, str]) -> str:
    """List reasons by seed: `seed 0 diverged at step 412: the training loss is nan; seed 2 ...`."""
    return "; ".join(f"seed {seed} {reason}" for seed, reason in reasons.items())
