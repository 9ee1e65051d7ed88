"""Tasks and their measures, one file per task; a new task is one row here."""

from collections.abc import Sequence
from dataclasses import replace

from harness.measure import Measure
from harness.spec import ExperimentSpec
from harness.spec.data import DEFAULT_TASK
from harness.tasks.classification import CLASSIFICATION
from harness.tasks.detection import DETECTION
from harness.tasks.task import Evaluation, Task
from paradigms.facts import unknown_name

__all__ = [
    "DEFAULT_MEASURE",
    "TASKS",
    "Evaluation",
    "Task",
    "choose_measure",
    "find_margin",
    "find_measure",
    "list_measures",
]

TASKS: dict[str, Task] = {"classification": CLASSIFICATION, "detection": DETECTION}

DEFAULT_MEASURE = TASKS[DEFAULT_TASK].measures[0]
"""Of experiments that name neither a task nor a measure."""


def find_measure(spec: ExperimentSpec) -> Measure:
    """The measure that decides in an experiment, with its chance level on the recipe's images.

    Raises:
        ValueError: there is no such task, or the task has no such measure.
    """
    data = spec.recipe.data
    if data.task not in TASKS:
        raise ValueError(unknown_name("task", data.task, tuple(TASKS)))
    task = TASKS[data.task]
    measure = choose_measure(task.measures, spec.measure)
    return replace(measure, chance=task.find_chance(measure, data))


def find_margin(spec: ExperimentSpec) -> float:
    """The largest difference that does not matter in an experiment; 0 where neither file nor measure states one."""
    return spec.margin if spec.margin is not None else find_measure(spec).relevant_gain


def choose_measure(measures: Sequence[Measure], name: str | None) -> Measure:
    """The measure of this name; the first where none is named.

    Raises:
        ValueError: there is none; the message gives the nearest name.
    """
    named = {measure.name: measure for measure in measures}
    if name is not None and name not in named:
        raise ValueError(unknown_name("measure", name, tuple(named)))
    return measures[0] if name is None else named[name]


def list_measures(spec: ExperimentSpec) -> tuple[Measure, ...]:
    """All measures of the experiment's task, the deciding one first."""
    deciding = find_measure(spec)
    others = (measure for measure in TASKS[spec.recipe.data.task].measures if measure.name != deciding.name)
    return deciding, *others
