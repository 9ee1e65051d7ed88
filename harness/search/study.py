"""An Optuna study that continues after it was killed; the study records which process works on a trial.

A trial whose process has died is continued under its number, so that no trial is lost or counted twice. The sampler of
trial n is seeded by the name of the study and n only: with one worker, an interruption changes nothing.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import optuna
from optuna.trial import FrozenTrial, Trial, create_trial
from optuna.trial import TrialState as State

from harness.attestation import get_digests
from harness.measure import Measure
from harness.record import EpochMetrics, Record, RunStatus
from harness.search.space import Space
from harness.search.spec import Objective, SearchSpec
from harness.search.storage import make_store_error, open_storage
from harness.search.trial import TrialResult, TrialState
from harness.seeding import seed_for
from harness.table.reason import describe_outcome
from harness.tasks import find_measure
from harness.tracking.process import ProcessIdentity

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

Goal = Literal["minimize", "maximize"]


def find_objective(objective: Objective, measure: Measure) -> tuple[str, Goal]:
    """The metric of an objective in a record, and its direction."""
    known: dict[Objective, tuple[str, Goal]] = {
        "val": (measure.val, measure.goal),
        "macs": ("macs", "minimize"),
        "throughput": ("train/images_per_second", "maximize"),
    }
    return known[objective]


STATES = {State.COMPLETE: TrialState.COMPLETE, State.PRUNED: TrialState.PRUNED, State.FAIL: TrialState.FAILED}
ENDED = tuple(STATES)

STATUS, IMPOSSIBLE = "status", "impossible"
"""The attribute of a trial with the status of its run, and its value if there is no run."""


def name_study(space: Space) -> str:
    """Experiment, recipe, and six hexadecimal digits of a digest of everything that its numbers depend on.

    A change of the space, the row, the recipe, the objectives or the seed gives another study. The number of trials,
    the sampler and the pruner can be changed in an existing study.
    """
    spec = space.spec
    start = space.find_cell("start", {parameter.name: parameter.probes()[0] for parameter in space.parameters})
    content = {
        "search": {name: dimension.model_dump(mode="json") for name, dimension in spec.search.items()},
        "start": start.cell.to_identity(),
        "objectives": spec.study.objectives,
        "seed": spec.study.seed,
        **({} if spec.measure is None else {"measure": spec.measure}),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:6]
    return f"{spec.name} {spec.recipe.name} {digest}"


@dataclass(frozen=True)
class OpenTrial:
    """A trial that this process works on; `values` are the values of the fields, by parameter."""

    trial: Trial
    values: Mapping[str, Any]
    is_resumed: bool

    @property
    def number(self) -> int:
        """Its number in the study, from 0."""
        return self.trial.number


class Study:
    """The study of a space in a storage; created if it does not exist.

    Raises:
        StoreError: the storage cannot be used.
    """

    def __init__(self, space: Space, storage: str) -> None:
        self.space, self.spec, self.storage = space, space.spec, storage
        self.name, self.measure = name_study(space), find_measure(space.spec)
        self._here = ProcessIdentity.current()
        self._mine: set[int] = set()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self.guarded():
            self.optuna = optuna.create_study(
                storage=open_storage(storage),
                study_name=self.name,
                directions=[find_objective(name, self.measure)[1] for name in self.spec.study.objectives],
                pruner=make_pruner(self.spec),
                load_if_exists=True,
            )
            self._describe()

    @property
    def _metrics(self) -> list[str]:
        """The metrics of a record, one per objective."""
        return [find_objective(name, self.measure)[0] for name in self.spec.study.objectives]

    def ask(self) -> OpenTrial | None:
        """A trial whose process has died, or a new trial; None if the study has all its trials or the grid is done."""
        with self.guarded():
            trials = self.optuna.get_trials(deepcopy=False)
            left = next((trial for trial in trials if self._is_left_behind(trial)), None)
            if left is None and len(trials) >= self.spec.study.trials:
                return None
            self.optuna.sampler = make_sampler(self.spec, self.name, len(trials) if left is None else left.number)
            found = self._create(trials) if left is None else left
            if found is None:
                return None
            trial = Trial(self.optuna, found._trial_id)
            trial.set_user_attr("process", asdict(self._here))
            self._mine.add(found.number)
            values = {parameter.name: parameter.suggest(trial) for parameter in self.space.parameters}
            trial.set_user_attr("values", values)
            return OpenTrial(trial, values, is_resumed=left is not None)

    def report(self, open_trial: OpenTrial, epoch: EpochMetrics) -> bool:
        """Store the validation score of an epoch; returns whether the pruner ends the trial."""
        if len(self.spec.study.objectives) > 1:  # Optuna does not support intermediate values of two objectives
            return False
        with self.guarded():
            trial = open_trial.trial
            if epoch.epoch not in self.optuna.get_trials(deepcopy=False)[trial.number].intermediate_values:
                trial.report(epoch.metrics[self.measure.val], epoch.epoch)
            return trial.should_prune()

    def tell(self, open_trial: OpenTrial, record: Record, *, is_reused: bool, is_pruned: bool = False) -> TrialResult:
        """End a trial with the result of its run; a trial without a measurement does not affect the sampler."""
        is_ok = record.status == RunStatus.OK
        attributes = {
            STATUS: record.status.value,
            "reason": "" if is_ok else record.status_detail if is_pruned else describe_outcome(record),
            "cell_id": record.cell_id,
            "run_id": record.run_id or "",
            "digests": " ".join(get_digests(record)),
            "is_reused": is_reused,
        }
        values = [record.metrics[name] for name in self._metrics] if is_ok else None
        state = State.COMPLETE if is_ok else State.PRUNED if is_pruned else State.FAIL
        return self._end(open_trial, state, values, attributes)

    def end_impossible(self, open_trial: OpenTrial, reason: str) -> TrialResult:
        """End a trial whose point is not a possible operator."""
        return self._end(open_trial, State.FAIL, None, {STATUS: IMPOSSIBLE, "reason": reason})

    def ended(self) -> tuple[TrialResult, ...]:
        """All trials that have ended, in order."""
        with self.guarded():
            return tuple(self._to_result(trial) for trial in self.optuna.get_trials(deepcopy=False, states=ENDED))

    @property
    def is_complete(self) -> bool:
        """Whether the study has its trials, or its whole grid, and none of them is open."""
        with self.guarded():
            trials = self.optuna.get_trials(deepcopy=False)
        is_full = len(trials) >= self.spec.study.trials or self._next_point(trials) is None
        return is_full and all(trial.state in ENDED for trial in trials)

    def find_best(self) -> TrialResult | None:
        """The trial with the best validation score; with two objectives, it is on the Pareto front."""
        measured = [result for result in self.ended() if result.state == TrialState.COMPLETE]
        sign = self.measure.sign
        return max(measured, key=lambda result: (sign * result.objectives["val"], -result.number), default=None)

    def _create(self, trials: list[FrozenTrial]) -> FrozenTrial | None:
        """Create a trial that records its process from the beginning; None after the last point of a grid."""
        point = self._next_point(trials)
        if point is None:
            return None
        claim = uuid4().hex
        fixed = {} if point == len(self.space.first) else {"fixed_params": self.space.first[point]}
        attributes = {"process": asdict(self._here), "claim": claim, "point": point}
        self.optuna.add_trial(create_trial(state=State.RUNNING, user_attrs=attributes, system_attrs=fixed))
        created = self.optuna.get_trials(deepcopy=False, states=(State.RUNNING,))
        return next(trial for trial in created if trial.user_attrs["claim"] == claim)

    def _next_point(self, trials: list[FrozenTrial]) -> int | None:
        """The index of the next first point; their number if the sampler chooses."""
        taken = {trial.user_attrs["point"] for trial in trials}
        free = next((point for point in range(len(self.space.first)) if point not in taken), None)
        if free is None and self.spec.study.sampler != "grid":
            return len(self.space.first)
        return free

    def _is_left_behind(self, trial: FrozenTrial) -> bool:
        """Whether the process of an open trial has ended; processes on other hosts count as alive."""
        if trial.state != State.RUNNING or trial.number in self._mine:
            return False
        owner = ProcessIdentity(**trial.user_attrs["process"])
        return owner == self._here or (owner.is_here and not owner.is_alive)

    def _end(
        self, open_trial: OpenTrial, state: State, values: list[float] | None, attributes: Mapping[str, Any]
    ) -> TrialResult:
        with self.guarded():
            with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another call has ended it in the meantime
                for name, value in attributes.items():
                    open_trial.trial.set_user_attr(name, value)
                self.optuna.tell(open_trial.number, values, state=state, skip_if_finished=True)
            self._mine.discard(open_trial.number)
            trial = self.optuna.get_trials(deepcopy=False)[open_trial.number]
        return self._to_result(trial)

    def _to_result(self, trial: FrozenTrial) -> TrialResult:
        attributes = trial.user_attrs
        names = self.spec.study.objectives
        complete = trial.state == State.COMPLETE
        status = attributes.get(STATUS)
        return TrialResult(
            number=trial.number,
            state=STATES[trial.state],
            values={
                known.name: known.to_value(trial.params[known.name])
                for known in self.space.parameters
                if known.name in trial.params
            },
            objectives=dict(zip(names, trial.values, strict=True)) if complete else {},
            status=RunStatus(status) if status in set(RunStatus) else None,
            reason=attributes.get("reason", ""),
            cell_id=attributes.get("cell_id", ""),
            run_id=attributes.get("run_id", ""),
            digests=attributes.get("digests", ""),
            is_reused=attributes.get("is_reused", False),
        )

    def _describe(self) -> None:
        """Write the attributes that the dashboard shows."""
        study = self.spec.study
        known = self.optuna.user_attrs
        facts = {
            "experiment": self.spec.name,
            "recipe": self.spec.recipe.name,
            "row": self.spec.row,
            "seed": study.seed,
        }
        for name, value in facts.items():
            if name not in known:
                self.optuna.set_user_attr(name, value)
        if self.optuna.metric_names is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.optuna.set_metric_names(list(study.objectives))

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Convert exceptions of the storage to `StoreError`."""
        try:
            yield
        except (optuna.exceptions.StorageInternalError, optuna.exceptions.DuplicatedStudyError, OSError) as error:
            raise make_store_error(self.storage, error) from error


def make_sampler(spec: SearchSpec, name: str, number: int) -> "BaseSampler":
    """The sampler that chooses the point of trial `number`; the points of a grid are chosen already."""
    seed, startup = seed_for("sampler", name, number) % 2**32, spec.study.startup_trials
    match spec.study.sampler:
        case "tpe":
            return optuna.samplers.TPESampler(n_startup_trials=startup, seed=seed)
        case "gp":
            return optuna.samplers.GPSampler(n_startup_trials=startup, seed=seed)
        case _:
            return optuna.samplers.RandomSampler(seed=seed)


def make_pruner(spec: SearchSpec) -> "BasePruner":
    """The pruner; the budget of Hyperband is the number of epochs of the recipe, even if the space varies it."""
    match spec.study.pruner:
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=spec.study.startup_trials)
        case "hyperband":
            return optuna.pruners.HyperbandPruner(max_resource=spec.recipe.training.total_epochs)
        case _:
            return optuna.pruners.NopPruner()
