import io
from pathlib import Path

import pytest
from rich.console import Console
from ruamel.yaml import YAML

from harness.commands.search import Count, _LiveSearch, open_search, write_preset
from harness.errors import StoreError
from harness.record import EpochMetrics, Record, RunStatus
from harness.search import SearchEvent, StudyOpened, TrialEnded, TrialEpochEnded, TrialStarted, load_search
from harness.search.space import make_space
from harness.search.study import Study
from harness.search.trial import TrialResult, TrialState
from harness.spec import RowSpec

SEARCH = """\
title: A search
recipe: smoke
baseline: ELSA
rows:
  ELSA: {stages: {not_last: {preset: elsa}}}
search:
  ghost_lambda: {low: 0, high: 3, stages: not_last}
  training.lr: {low: 1e-3, high: 1, log: true}
study:
  first: [{ghost_lambda: 2, training.lr: 0.5}]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "a_search.yaml"
    file.write_text(SEARCH)
    return file


@pytest.fixture
def events() -> list[SearchEvent]:
    """Of four trials one has ended before, one is measured, one diverges."""
    return [
        StudyOpened("a_search smoke 123456", "optuna.journal", 4, (make_result(0, 70.0),), 1),
        TrialStarted(1, {"ghost_lambda": 1.25, "training.lr": 0.1}, 2, is_resumed=False),
        TrialStarted(2, {"ghost_lambda": 0.0, "training.lr": 1.0}, 2, is_resumed=True),
        TrialEpochEnded(1, EpochMetrics(1, 10, {"val/top1": 60.5, "train/loss": 1.25}), 2),
        TrialEnded(make_result(1, 80.25)),
        TrialEnded(make_result(2, None, RunStatus.DIVERGED, "diverged at step 3")),
    ]


def make_result(number: int, top1: float | None, status: RunStatus = RunStatus.OK, reason: str = "") -> TrialResult:
    state = TrialState.FAILED if top1 is None else TrialState.COMPLETE
    objectives = {} if top1 is None else {"val": top1}
    return TrialResult(number, state, {}, objectives, status, reason, "c3", "1234", "", is_reused=False)


def test_without_a_terminal_every_event_is_a_plain_line(events: list[SearchEvent]) -> None:
    stream = io.StringIO()
    with open_search(stream) as show:
        for event in events:
            show(event)
    assert stream.getvalue().splitlines() == [
        "study 'a_search smoke 123456' in optuna.journal",
        "1 trial ended, 3 to go",
        "closed what an earlier call left open: 1 run",
        "trial 1: ghost_lambda = 1.25, training.lr = 0.1",
        "trial 2 again: ghost_lambda = 0, training.lr = 1",
        "trial 1: epoch 1/2, val top-1 60.50 %, train loss 1.250",
        "[2/4 trials, best 80.25 % (trial 1)] trial 1: val top-1 80.25 %",
        "[3/4 trials, best 80.25 % (trial 1)] trial 2: diverged at step 3",
    ]


def test_a_terminal_shows_trials_the_best_value_and_the_time_left(events: list[SearchEvent]) -> None:
    stream = io.StringIO()
    with _LiveSearch(Console(file=stream, force_terminal=True, width=120)) as show:
        for event in events:
            show(event)
    shown = stream.getvalue()
    assert "3/4 trials, best 80.25 % (trial 1)" in shown
    assert "left" in shown
    assert "trial 2: diverged at step 3" in shown


def test_bugs_are_counted() -> None:
    count = Count()
    count.add(TrialEnded(make_result(0, None, RunStatus.FAILED, "ValueError: no")))
    count.add(TrialEnded(make_result(1, None, RunStatus.OUT_OF_MEMORY, "failed: to hold the model")))
    assert [result.number for result in count.failed] == [0]


def test_the_winner_is_a_row_to_paste(path: Path, tmp_path: Path) -> None:
    spec, storage = load_search(path), str(tmp_path / "optuna.journal")
    with pytest.raises(StoreError, match="no measured trial"):
        write_preset(spec, storage)
    study = Study(make_space(spec), storage)
    trial = study.ask()
    assert trial is not None
    study.tell(trial, Record("c3", "trial 0", 1000, RunStatus.OK, {"val/top1": 81.5}), is_reused=False)
    text = write_preset(spec, storage)
    assert "validation top-1 81.50 %" in text
    assert "--set training.lr=0.5" in text
    (row,) = YAML(typ="safe").load(text).values()
    assert RowSpec.model_validate(row).model_dump(exclude_unset=True) == {
        "stages": {"not_last": {"preset": "elsa", "ghost_lambda": 2.0}}
    }
