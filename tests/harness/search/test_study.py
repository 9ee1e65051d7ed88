"""The study alone, in a real journal file: what is asked, told, taken up again."""

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import psutil
import pytest

from harness.errors import StoreError
from harness.record import EpochMetrics, Record, RunStatus
from harness.search import load_search
from harness.search.report import draw_figures, find_importances, to_frame, write_report
from harness.search.space import make_space
from harness.search.study import Study
from harness.search.trial import TrialResult, TrialState

SEARCH = """\
title: A small search
recipe: smoke
baseline: ELSA
rows:
  ELSA: {stages: {not_last: {preset: elsa}}}
search:
  ghost_lambda: {low: 0, high: 3, zero: true, stages: not_last}
  ghost_gamma: {low: 0.01, high: 10, log: true, zero: true, stages: not_last}
"""

GRID = SEARCH[: SEARCH.index("search:")] + (
    "search:\n"
    "  ghost_lambda: {low: 0, high: 2, step: 1, stages: not_last}\n"
    "  ghost_gamma: {low: 0.1, high: 10, log: true, points: 3, zero: true, stages: not_last}\n"
    "study: {sampler: grid}\n"
)

Measure = Callable[[Any], Record]


@pytest.fixture
def open_study(tmp_path: Path) -> Callable[..., Study]:
    """Opens the study of a text, like a process that has just started, in the journal of the test."""

    def open_again(text: str = SEARCH, *overrides: str, journal: str = "optuna.journal") -> Study:
        path = tmp_path / "small_search.yaml"
        path.write_text(text)
        return Study(make_space(load_search(path, overrides=overrides)), str(tmp_path / journal))

    return open_again


def measure_hill(values: Any) -> Record:
    """Best at λ = 1, γ = 1; the larger λ, the more multiply-adds."""
    power, gain = values["ghost_lambda"], values["ghost_gamma"]
    metrics = {"val/top1": 90 - 5 * abs(power - 1) - 2 * abs(gain - 1), "macs": 1000 + power}
    return Record("c3", "trial", 1000, RunStatus.OK, metrics, run_id="1234")


def search(study: Study, *, until: int | None = None, measure: Measure = measure_hill) -> list[TrialResult]:
    """Ask and tell until the study is complete, or a trial has been asked for that is left open."""
    found = []
    while (trial := study.ask()) is not None:
        if trial.number == until:
            return found
        found.append(study.tell(trial, measure(trial.values), is_reused=False))
    return found


def end(status: RunStatus, detail: str = "") -> Measure:
    return lambda _values: Record("c3", "trial", 1000, status, {}, status_detail=detail, run_id="1234")


def read_trials(study: Study) -> list[optuna.trial.FrozenTrial]:
    return study.optuna.get_trials()


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_an_interruption_changes_no_trial(open_study: Callable[..., Study], sampler: str) -> None:
    overrides = (
        f"study.sampler={sampler}",
        "study.startup_trials=2",
        "study.trials=6",
        "study.first=[{ghost_lambda: 1}]",
    )
    whole = search(open_study(SEARCH, *overrides))
    search(open_study(SEARCH, *overrides, journal="other.journal"), until=3)
    search(open_study(SEARCH, *overrides, journal="other.journal"))
    again = open_study(SEARCH, *overrides, journal="other.journal")
    assert [result.values for result in again.ended()] == [result.values for result in whole]
    assert whole[0].values["ghost_lambda"] == 1
    assert len({str(result.values) for result in whole}) == 6
    assert again.is_complete


def test_a_finished_study_goes_on_with_more_trials(open_study: Callable[..., Study]) -> None:
    assert len(search(open_study(SEARCH, "study.trials=2"))) == 2
    assert search(open_study(SEARCH, "study.trials=2")) == []
    assert [result.number for result in search(open_study(SEARCH, "study.trials=4"))] == [2, 3]


def test_a_trial_that_was_left_behind_is_taken_up_under_its_number(open_study: Callable[..., Study]) -> None:
    left = open_study().ask()
    taken = open_study().ask()
    assert left is not None
    assert taken is not None
    assert (taken.number, taken.values, taken.is_resumed) == (left.number, left.values, True)


def test_a_trial_of_a_living_process_is_left_alone(open_study: Callable[..., Study]) -> None:
    parent = psutil.Process().parent()
    left = open_study().ask()
    assert parent is not None
    assert left is not None
    owner = {"host": socket.gethostname(), "pid": parent.pid, "started": parent.create_time()}
    left.trial.set_user_attr("process", owner)
    study = open_study(SEARCH, "study.trials=2")
    assert [result.number for result in search(study)] == [1]
    assert not study.is_complete


@pytest.mark.parametrize(
    ("status", "detail", "reason"),
    [
        (RunStatus.DIVERGED, "the loss is nan", "diverged: the loss is nan"),
        (RunStatus.OUT_OF_MEMORY, "", "out of memory"),
        (RunStatus.TIMED_OUT, "", "timed out"),
        (RunStatus.FAILED, "ValueError: no", "failed: ValueError: no"),
    ],
)
def test_a_trial_without_a_measurement_fails_with_its_reason(
    open_study: Callable[..., Study], status: RunStatus, detail: str, reason: str
) -> None:
    study = open_study(SEARCH, "study.trials=1")
    (result,) = search(study, measure=end(status, detail))
    assert (result.state, result.reason, result.objectives) == (TrialState.FAILED, reason, {})
    assert study.find_best() is None
    assert read_trials(study)[0].values is None


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_trials_without_a_measurement_move_no_sampler(open_study: Callable[..., Study], sampler: str) -> None:
    """After failures alone a sampler that models still draws from the whole space."""
    overrides = (f"study.sampler={sampler}", "study.startup_trials=2", "study.trials=5")
    found = search(open_study(SEARCH, *overrides), measure=end(RunStatus.DIVERGED, "a weight is not finite"))
    assert len({result.values["ghost_lambda"] for result in found}) > 3
    assert list(to_frame(open_study(SEARCH, *overrides))["reason"]) == ["diverged: a weight is not finite"] * 5


def report(study: Study, top1: float) -> list[bool]:
    """One trial of three epochs; after which the pruner would end it."""
    trial = study.ask()
    assert trial is not None
    return [study.report(trial, EpochMetrics(epoch, epoch, {"val/top1": top1})) for epoch in (1, 2, 3)]


def test_the_median_pruner_ends_what_is_worse_than_half_of_the_others(open_study: Callable[..., Study]) -> None:
    study = open_study(SEARCH, "study.pruner=median", "study.startup_trials=1")
    assert report(study, 50) == [False] * 3
    study.optuna.tell(0, 50.0)
    assert report(study, 10) == [True] * 3
    assert report(study, 60) == [False] * 3


def test_a_pruned_trial_keeps_its_curve(open_study: Callable[..., Study]) -> None:
    study = open_study()
    trial = study.ask()
    assert trial is not None
    study.report(trial, EpochMetrics(1, 10, {"val/top1": 12.5}))
    record = end(RunStatus.INTERRUPTED, "pruned after epoch 1")(None)
    result = study.tell(trial, record, is_reused=False, is_pruned=True)
    assert (result.state, result.reason) == (TrialState.PRUNED, "pruned after epoch 1")
    assert read_trials(study)[0].intermediate_values == {1: 12.5}


def test_hyperband_gives_trials_budgets(open_study: Callable[..., Study]) -> None:
    study = open_study(SEARCH, "study.pruner=hyperband", "study.sampler=random", "training.epochs=9")
    wanted = []
    for number in range(12):
        trial = study.ask()
        assert trial is not None
        curve = [EpochMetrics(epoch, epoch, {"val/top1": 80.0 - number}) for epoch in range(1, 10)]
        wanted.append(next((epoch.epoch for epoch in curve if study.report(trial, epoch)), None))
        study.tell(trial, measure_hill(trial.values), is_reused=False)
    assert None in wanted
    assert {1, 3} & set(wanted)


def test_a_grid_takes_every_combination_once_and_ends(open_study: Callable[..., Study]) -> None:
    search(open_study(GRID), until=5)
    search(open_study(GRID))
    study = open_study(GRID)
    points = [(result.values["ghost_lambda"], result.values["ghost_gamma"]) for result in study.ended()]
    assert sorted(points) == [(power, gain) for power in (0, 1, 2) for gain in (0, 0.1, 1, 10)]
    assert study.is_complete


def test_the_best_of_a_front_is_the_most_accurate(open_study: Callable[..., Study]) -> None:
    study = open_study(SEARCH, "study.objectives=[val, macs]", "study.trials=6")
    search(study)
    frame = to_frame(study).set_index("trial")
    best = study.find_best()
    assert best is not None
    assert frame.loc[best.number, "value"] == frame["value"].max()
    front = frame[frame["is_best"]]
    assert front["macs"].min() == frame["macs"].min()
    assert not frame["is_best"].all()
    assert {"front", "history", "surface", "parallel"} <= set(draw_figures(study, to_frame(study)))


@pytest.mark.parametrize("objectives", ["[val]", "[val, macs]"])
def test_importance_names_the_parameter_that_matters(open_study: Callable[..., Study], objectives: str) -> None:
    study = open_study(GRID, f"study.objectives={objectives}")
    search(study, measure=lambda values: measure_hill({**values, "ghost_lambda": 1}))
    importances = find_importances(study)
    assert sum(importances.values()) == pytest.approx(1)
    assert importances["ghost_gamma"] > 0.9


@pytest.mark.parametrize("storage", ["optuna.journal", "sqlite:///study.db"])
def test_any_storage_gives_back_what_was_chosen(
    open_study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    monkeypatch.chdir(tmp_path)
    choices = "  parameterization: {choices: [[query_key], [query_key, position_bias]], stages: last}\n"
    space = open_study(SEARCH + choices, "study.trials=3").space
    found = search(Study(space, storage))
    again = Study(space, storage)
    assert again.ended() == tuple(found)
    assert {type(result.values["parameterization"]) for result in found} == {tuple}
    assert [space.find_cell("trial", result.values) for result in again.ended()]


CHOICES = """\
  ghost_lambda: {choices: [1, 2.5], stages: not_last}
  training.clip_grad: {choices: [null, 5]}
  parameterization: {choices: [[query_key], [query_key, position_bias]], stages: last}
"""


def test_choices_keep_their_type_in_every_table_and_figure(open_study: Callable[..., Study], tmp_path: Path) -> None:
    text = SEARCH[: SEARCH.index("search:")] + f"search:\n{CHOICES}study: {{sampler: grid, trials: 8}}\n"
    study = open_study(text)
    search(study, measure=lambda values: measure_hill({**values, "ghost_gamma": 1}))
    study = open_study(text)
    frame = to_frame(study)
    assert {repr(value) for value in frame["ghost_lambda"]} == {"1", "2.5"}
    assert {repr(value) for value in frame["training.clip_grad"]} == {"None", "5"}
    page, csv, *figures = write_report(study, tmp_path / "results")
    assert {"surface", "parallel"} <= {path.stem.partition("_")[0] for path in figures}
    written = pd.read_csv(csv, dtype=str, keep_default_na=False)
    assert set(written["ghost_lambda"]) == {"1", "2.5"}
    assert set(written["training.clip_grad"]) == {"null", "5"}
    assert set(written["parameterization"]) == {'["query_key"]', '["query_key", "position_bias"]'}
    assert re.search(r"training.clip_grad = (null|5)\W", page.read_text())
    assert all(study.space.find_cell("trial", result.values) for result in study.ended())


@pytest.mark.parametrize("tail", [b'{"op_code": 4, "wor', b"\0" * 40, b'{"op_code"\n', b"\xff\xfe"], ids=repr)
def test_a_half_written_end_of_the_journal_is_repaired(
    open_study: Callable[..., Study], tmp_path: Path, tail: bytes
) -> None:
    found = search(open_study(SEARCH, "study.trials=2"))
    journal = tmp_path / "optuna.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + tail)
    again = open_study(SEARCH, "study.trials=3")
    assert again.ended() == tuple(found)
    assert [result.number for result in search(again)] == [2]
    assert journal.read_bytes().startswith(whole)
    assert len(open_study(SEARCH, "study.trials=3").ended()) == 3


@pytest.mark.parametrize("cuts", [8, pytest.param(200, marks=pytest.mark.slow)], ids=["some", "many"])
def test_a_journal_cut_at_any_byte_goes_on(open_study: Callable[..., Study], tmp_path: Path, cuts: int) -> None:
    search(open_study(SEARCH, "study.trials=1"))
    journal = tmp_path / "optuna.journal"
    whole = journal.read_bytes()
    for end in range(0, len(whole), max(1, len(whole) // cuts)):
        journal.write_bytes(whole[:end])
        search(open_study(SEARCH, "study.trials=1"))
        assert [result.number for result in open_study(SEARCH, "study.trials=1").ended()] == [0]


@pytest.mark.parametrize("damage", [b"not json\n", b"[]\n", b'{"op_code": 1}\n', b'{"op_code": 77, "worker_id": ""}\n'])
def test_a_journal_that_is_damaged_elsewhere_is_named_and_kept(
    open_study: Callable[..., Study], tmp_path: Path, damage: bytes
) -> None:
    search(open_study(SEARCH, "study.trials=1"))
    journal = tmp_path / "optuna.journal"
    first, *others = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([first, damage, *others]))
    content = journal.read_bytes()
    with pytest.raises(StoreError, match=r"optuna\.journal"):
        open_study()
    assert journal.read_bytes() == content


def test_a_trial_that_two_calls_took_up_is_told_once(open_study: Callable[..., Study]) -> None:
    one, other = open_study(), open_study()
    first, second = one.ask(), other.ask()
    assert first is not None
    assert second is not None
    assert first.number == second.number
    told = one.tell(first, measure_hill(first.values), is_reused=False)
    assert other.tell(second, end(RunStatus.FAILED)(None), is_reused=False) == told


def test_another_space_is_another_study(open_study: Callable[..., Study]) -> None:
    names = {open_study(SEARCH, *overrides).name for overrides in ((), ("study.trials=5",), ("study.sampler=random",))}
    assert len(names) == 1
    others = (SEARCH.replace("high: 3", "high: 2"), SEARCH.replace("elsa", "swin_n, aggregation: ghost_head"))
    assert len({*names, *(open_study(text).name for text in others), open_study(SEARCH, "training.lr=0.1").name}) == 4


def test_a_storage_that_cannot_be_used_is_told(open_study: Callable[..., Study], tmp_path: Path) -> None:
    (tmp_path / "folder.journal").mkdir()
    with pytest.raises(Exception, match=r"the study's storage .*folder.journal cannot be used: .*Is a directory"):
        open_study(journal="folder.journal")
