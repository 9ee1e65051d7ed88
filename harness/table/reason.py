"""Why a run has no measurement, or a doubtful one, in one wording for every output."""

from harness.record import Record, RunStatus
from harness.statistics import is_at_chance

AT_CHANCE = "at chance"

LIMIT_OF = {RunStatus.OUT_OF_MEMORY: "memory_limit_gb", RunStatus.TIMED_OUT: "time_limit_minutes"}
"""The limit whose raising makes an outcome worth another try."""


def name_outcome(record: Record) -> str:
    """The status in words, a divergence with its step: `diverged at step 412`; `at chance` for such a measurement."""
    if is_run_at_chance(record):
        return AT_CHANCE
    step = "" if record.step is None else f" at step {record.step}"
    return f"{record.status.value.replace('_', ' ')}{step}"


def explain(record: Record) -> str:
    """The reason in one line; empty for a good run, and where nothing more is known than the outcome's name."""
    if is_run_at_chance(record):
        top1, images, chance = (record.metrics[name] for name in ("val/top1", "val/images", "val/chance"))
        return f"{top1:.1f} % of {images:,.0f} validation images are right, guessing gets {chance:.3g} %"
    if record.status_detail:
        return record.status_detail.splitlines()[0]
    limit = LIMIT_OF.get(record.status, "")
    return f"{limit} {record.limits[limit]:g}" if limit in record.limits else ""


def describe_outcome(record: Record) -> str:
    """Both: `diverged at step 412: the training loss is nan`."""
    return ": ".join(part for part in (name_outcome(record), explain(record)) if part)


def is_run_at_chance(record: Record) -> bool:
    """Whether a run was measured and its last validation looks like guessing; see `is_at_chance`."""
    if record.status != RunStatus.OK or not {"val/top1", "val/images", "val/chance"} <= record.metrics.keys():
        return False
    num_images = round(record.metrics["val/images"])
    num_correct = round(record.metrics["val/top1"] / 100 * num_images)
    return is_at_chance(num_correct, num_images, record.metrics["val/chance"] / 100)
