"""`harness repro` replays a run that diverged or failed, and names the first module and tensor that was not finite."""

from pathlib import Path

import pytest
import torch
from torch import nn

from harness.cli import main
from harness.commands.repro import NotFinite, Replay, _Watch
from harness.record import Record, RunStatus
from harness.tracking import MlflowTracker

PLUGIN = """
import torch
from torch import nn


class Decaying(nn.Module):
    kind = "decaying"
    ignores_constant = True
    weight_sum = 1.0

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    @classmethod
    def from_config(cls, _config):
        return cls()

    def forward(self, logits, valid):
        if self.training and logits.device.type != "meta":
            self.calls += 1
        weights = (logits if valid is None else logits.masked_fill(~valid, -torch.inf)).softmax(-1)
        return weights * torch.where(self.calls > STEPS, torch.nan, 1.0)


NORMALIZATIONS = {"decaying": Decaying}
"""

EXPERIMENT = """
title: One row that diverges
recipe: smoke
baseline: Swin
rows:
  Swin: {}
  Decaying: {normalization: decaying}
seeds: 1
"""


class Steps:
    """What a watch reads of a training."""

    def __init__(self, model):
        self.model, self.step, self.after_step = model, 0, None


class Poison(nn.Module):
    """Multiplies its input, and its gradient, by numbers that may be infinite."""

    forward_factor, backward_factor = 1.0, 1.0

    def forward(self, images):
        kept = images * self.forward_factor
        kept.register_hook(lambda gradient: gradient * self.backward_factor)
        return kept


@pytest.fixture
def training():
    return Steps(nn.Sequential(nn.Linear(4, 4), Poison(), nn.Linear(4, 2)))


def step(training):
    training.model(torch.ones(3, 4)).sum().backward()
    training.step += 1
    training.after_step()


def test_a_watch_finds_the_first_output_that_is_not_finite(training):
    watch = _Watch(training)
    step(training)
    training.model[1].forward_factor = torch.inf
    step(training)
    assert watch.find_first(1) == NotFinite(1, "1", "output")
    assert watch.find_first(0) is None


def test_a_watch_finds_the_first_gradient_on_the_way_back(training):
    watch = _Watch(training)
    training.model[1].backward_factor = torch.nan
    step(training)
    assert watch.find_first(0) == NotFinite(0, "1", "gradient at the output")


def test_a_watch_goes_back_to_the_step_that_spoilt_a_parameter(training):
    watch = _Watch(training)
    step(training)
    training.model(torch.ones(3, 4))
    training.model[2].bias.data.fill_(torch.nan)
    training.step += 1
    training.after_step()
    step(training)
    assert watch.find_first(2) == NotFinite(1, "2", "parameter bias")


def test_a_replay_that_ends_otherwise_says_so():
    record = Record("cell", "Net7", 2, RunStatus.DIVERGED, {}, status_detail="the training loss is nan", step=7)
    text = Replay(record, "its beginning", "trained to its end, ok", is_same=False, first=None).describe()
    assert text == (
        "Net7 seed 2: diverged the training loss is nan\n"
        "replayed from its beginning: trained to its end, ok\n"
        "the replay did not end as the run did"
    )


@pytest.mark.slow
def test_a_run_that_diverged_is_replayed_to_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    Path("decaying.py").write_text(PLUGIN.replace("STEPS", "12"))
    Path("one.yaml").write_text(EXPERIMENT)
    plugin = ("--plugin", "decaying.py")
    main(["run", "one.yaml", *plugin, "--set", "floor_width=null"])
    tracker = MlflowTracker(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = {run.row: run for run in tracker.find_runs()}
    record = runs["Decaying"].record
    assert record is not None
    assert (record.status, record.step) == (RunStatus.DIVERGED, 12)
    capsys.readouterr()
    assert main(["repro", runs["Decaying"].run_id[:8], *plugin]) == 0
    text = capsys.readouterr().out
    assert "replayed from its beginning: trained to step 12, diverged: the training loss is nan" in text
    assert "first: step 12: the output of layers.0.blocks.0.attn.normalization is not finite" in text
    Path("copy.yaml").write_text(EXPERIMENT)
    main(["run", "copy.yaml", *plugin, "--set", "floor_width=null"])
    (copy,) = [run for run in tracker.find_runs() if run.reused_from and run.row == "Decaying"]
    assert main(["repro", copy.run_id, *plugin]) == 0
    capsys.readouterr()
    assert main(["repro", runs["Swin"].run_id, *plugin]) == 2
    assert "ended as ok: only runs that diverged or failed are replayed" in capsys.readouterr().err
