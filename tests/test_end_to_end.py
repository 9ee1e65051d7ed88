"""The real command, from the YAML to the table, through kills and interruptions."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from harness.cli import main
from harness.tracking.translation import to_worker

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted(path for path in (ROOT / "experiments").glob("*.yaml") if not path.stem.endswith("_search"))

EXPERIMENT = """\
title: Two rows
recipe: smoke
baseline: Swin-T
rows:
  Swin-T: {}
  Net4: {parameterization: [position_bias]}
seeds: 1
"""


BROKEN = """\
class Broken:
    kind = "broken"
    ignores_constant = True
    weight_sum = 1.0

    @classmethod
    def from_config(cls, _config):
        return cls()

    def __call__(self, logits, valid):
        return {}["missing"] if logits.device.type != "meta" else logits


NORMALIZATIONS = {"broken": Broken}
"""

TOKEN_LABELS = """\
title: Token labels
recipe: tokens
baseline: Swin-T
rows:
  Swin-T: {}
  VOLO: {backbone: volo}
  VOLO, bias: {backbone: volo, parameterization: [position_bias], window_size: 4}
seeds: 1
"""

TOKEN_RECIPE = """\
title: Three colours, 32x32
data: {name: image_folder, num_classes: 3, channels: 3, image_size: 32, val_images: 0}
backbones:
  swin: {patch_size: 4, embed_dim: 8, depths: [1, 1], num_heads: [1, 2], window_size: 4, weight_init: reset}
  volo:
    patch_size: 4
    stem_hidden_dim: 8
    layers: [1, 1]
    embed_dims: [16, 32]
    num_heads: [1, 2]
    weight_init: jax
    use_aux_head: true
training:
  opt: nmuon
  lr: 0.02
  batch_size: 8
  epochs: 3
  augmentation: {hflip: 0.5, scale: [0.5, 1.0], auto_augment: rand-m3-inc1}
training_of:
  volo: {ema_decay: 0.5, token_labels: {grid: 4}}
"""


@dataclass(frozen=True)
class Desk:
    """A working directory with an experiment, a store and results of its own."""

    folder: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`harness ARGUMENTS`, in a process group of its own, where Ctrl-C works even if the tests run without it."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        return subprocess.Popen(
            ["env", "--default-signal=INT", sys.executable, "-m", "harness.cli", *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def harness(self, *arguments: str) -> str:
        """What the command prints; it must succeed. It runs in this process, which has imported torch and MLflow."""
        output, errors = StringIO(), StringIO()
        before = signal.getsignal(signal.SIGTERM)
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
            patch.chdir(self.folder)
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            code = main(arguments)
        signal.signal(signal.SIGTERM, before)
        assert code == 0, f"{output.getvalue()}\n{errors.getvalue()}"
        return output.getvalue()

    def runs(self, *overrides: str) -> dict[str, Run]:
        """What the store has under these overrides, by name."""
        client = MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(ids, f"tags.kind = 'run' AND tags.overrides = '{json.dumps(overrides)}'")
        return {str(run.info.run_name): run for run in found}

    def table(self, *overrides: str) -> pd.DataFrame:
        folder = self.folder / "results" / "+".join(["smoke", *overrides])
        return pd.read_csv(folder / "two.csv").set_index("row")


def make_desk(folder: Path) -> Desk:
    (folder / "two.yaml").write_text(EXPERIMENT)
    return Desk(folder)


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One seed of both rows and both floors is trained."""
    folder = tmp_path_factory.mktemp("trained")
    make_desk(folder).harness("run", "two.yaml")
    return folder


@pytest.fixture
def desk(trained_folder: Path, tmp_path: Path) -> Desk:
    """A copy of what is trained, so that no test sees what another one did."""
    return Desk(shutil.copytree(trained_folder, tmp_path / "desk"))


@pytest.fixture
def fresh_desk(tmp_path: Path) -> Desk:
    folder = tmp_path / "fresh"
    folder.mkdir()
    return make_desk(folder)


def trained(output: str) -> set[str]:
    """The runs that a command trained, by its own account."""
    return set(re.findall(r"^\[\d+/\d+\] (.+ seed \d+):", output, re.MULTILINE))


MEASURED = ["n", "top1_mean", "top5_mean", "val_top1_mean", "delta", "params", "macs"]


@pytest.mark.slow
def test_two_fresh_stores_get_the_same_numbers(desk: Desk, fresh_desk: Desk) -> None:
    fresh_desk.harness("run", "two.yaml")
    first, second = desk.table()[MEASURED], fresh_desk.table()[MEASURED]
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert list(first["n"]) == [1, 1, 1, 1]


@pytest.mark.slow
def test_committed_runs_are_trained_again_and_compared(desk: Desk) -> None:
    desk.harness("records", "export", "two.yaml")
    output = desk.harness("run", "two.yaml", "--reproduce")
    assert "4 rows: 4 equal bit for bit\nin the same environment" in output
    assert len(trained(output)) == 4
    assert trained(desk.harness("run", "two.yaml", "--reproduce")) == set()
    process = desk.start("run", "two.yaml", "--reproduce", "--tracking-uri", f"sqlite:///{desk.folder / 'mlflow.db'}")
    assert "the store has the committed runs themselves" in process.communicate(timeout=120)[1]
    assert process.returncode == 2


@pytest.mark.slow
def test_a_table_is_made_from_exported_records_and_nothing_is_trained_again(desk: Desk, fresh_desk: Desk) -> None:
    assert "written: results/smoke/runs/two.jsonl" in desk.harness("records", "export", "two.yaml")
    shutil.copytree(desk.folder / "results" / "smoke" / "runs", fresh_desk.folder / "runs")
    assert "4 runs imported, 0 known already" in fresh_desk.harness("records", "import", "runs/two.jsonl")
    assert "0 runs imported, 4 known already" in fresh_desk.harness("records", "import", "runs/two.jsonl")
    fresh_desk.harness("table", "two.yaml")
    for name in ("two.csv", "two.md", "two.tex", "two.html"):
        ours, theirs = (each.folder / "results" / "smoke" / name for each in (fresh_desk, desk))
        assert ours.read_bytes() == theirs.read_bytes(), name
    assert trained(fresh_desk.harness("run", "two.yaml")) == set()
    fresh_desk.harness("records", "merge", "runs/two.jsonl", "runs/two.jsonl", "--output", "both.jsonl")
    assert (fresh_desk.folder / "both.jsonl").read_bytes() == (fresh_desk.folder / "runs" / "two.jsonl").read_bytes()


@pytest.mark.slow
def test_a_fresh_clone_makes_its_committed_table_without_training(fresh_desk: Desk) -> None:
    shutil.copytree(ROOT / "results" / "laptop" / "runs", fresh_desk.folder / "results" / "laptop" / "runs")
    fresh_desk.harness("table", str(ROOT / "experiments" / "table1.yaml"))
    for name in ("table1.csv", "table1.md"):
        made, committed = (folder / "results" / "laptop" / name for folder in (fresh_desk.folder, ROOT))
        assert made.read_bytes() == committed.read_bytes(), name


@pytest.mark.slow
def test_a_placebo_goes_through_every_command(desk: Desk, fresh_desk: Desk) -> None:
    text = EXPERIMENT.replace("seeds: 1", "  Again: {placebo: true}\nseeds: 2")
    for each in (desk, fresh_desk):
        (each.folder / "experiments").mkdir()
        (each.folder / "experiments" / "two.yaml").write_text(text)
    first = desk.harness("run", "experiments/two.yaml", "--rows", "Again")
    assert trained(first) == {"Again seed 1000", "Again seed 1001"}  # those of the baseline were trained for two.yaml
    rest = trained(desk.harness("run", "experiments/two.yaml"))
    assert rest == {f"{row} seed 1" for row in ("Swin-T", "Net4", "Linear classifier", "One hidden layer")}
    table = desk.table()
    assert (table.loc["Again", "cell_id"], table.loc["Again", "n"]) == (table.loc["Swin-T", "cell_id"], 2)
    assert table.loc["Again", "verdict"] in ("unresolved", "equivalent")
    planned = json.loads(desk.harness("plan", "experiments/two.yaml", "--json"))
    assert planned["to_train"] == 0
    (counted,) = json.loads(desk.harness("status", "experiments/two.yaml", "--json"))["experiments"]
    assert counted["counts"]["done"] == 10
    shown = json.loads(desk.harness("show", table.loc["Again", "cell_id"], "--json"))
    assert [(run["row"], run["seed"]) for run in shown["runs"]] == [
        *(("Swin-T", 0), ("Swin-T", 1), ("Again", 1000), ("Again", 1001))
    ]
    desk.harness("records", "export", "experiments/two.yaml")
    desk.harness("verify", "results")
    runs = Path("results") / "smoke" / "runs"
    shutil.copytree(desk.folder / runs, fresh_desk.folder / runs)
    fresh_desk.harness("table", "experiments/two.yaml")
    for name in ("two.csv", "two.md", "two.tex"):
        ours, theirs = (each.folder / "results" / "smoke" / name for each in (fresh_desk, desk))
        assert ours.read_bytes() == theirs.read_bytes(), name
    assert "equal: 5 rows, 10 runs" in desk.harness("diff", str(fresh_desk.folder / runs), str(runs))


@pytest.mark.slow
def test_a_matched_row_is_solved_by_the_plan_and_every_command_states_it(fresh_desk: Desk) -> None:
    matched = EXPERIMENT.replace("[position_bias]}", "[position_bias], match: {params: Swin-T, by: mlp_ratio}}")
    (fresh_desk.folder / "two.yaml").write_text(matched)
    planned = json.loads(fresh_desk.harness("plan", "two.yaml", "--json"))
    swin, row = planned["rows"][:2]
    solution = row["solution"]
    assert (solution["row"], solution["target"], solution["cost"]) == ("Swin-T", swin["params"], row["params"])
    assert abs(row["params"] / swin["params"] - 1) <= 0.005
    stated = f"mlp_ratio {solution['value']:g}, for as many parameters as Swin-T: {solution['cost']:,}"
    assert f"Net4: {stated}" in fresh_desk.harness("plan", "two.yaml")
    assert f"solved: {stated}" in fresh_desk.harness("describe", "two.yaml", "Net4")
    fresh_desk.harness("run", "two.yaml", "--rows", "Net4,Swin-T")
    assert fresh_desk.table().loc["Net4", "params"] == row["params"]
    assert f"Net4: {stated}" in (fresh_desk.folder / "results" / "smoke" / "two.md").read_text().replace("\\", "")
    assert json.loads(fresh_desk.harness("show", row["cell_id"], "--json"))["config"]["solution"].startswith(stated)
    by_hand = matched.replace(
        "match: {params: Swin-T, by: mlp_ratio}", f"sizes: {{smoke: {{mlp_ratio: {solution['value']}}}}}"
    )
    (fresh_desk.folder / "two.yaml").write_text(by_hand)
    assert trained(fresh_desk.harness("run", "two.yaml", "--rows", "Net4,Swin-T")) == set()


@pytest.mark.slow
def test_generated_rows_are_planned_trained_and_shown_like_others(fresh_desk: Desk) -> None:
    stated = EXPERIMENT.replace(
        "[position_bias]}", "[query_key, position_bias, query_position], normalization: identity}"
    )
    (fresh_desk.folder / "two.yaml").write_text(f"{stated}ablate: {{from: Net4, remove: each, add: each}}\n")
    planned = json.loads(fresh_desk.harness("plan", "two.yaml", "--json"))
    generated = ["Net4 - query position", "Net4 - identity"]
    assert [row["row"] for row in planned["rows"]][:4] == ["Swin-T", "Net4", *generated]
    assert {each["row"]: each["reason"] for each in planned["skipped"]} == {
        "Swin-T + query position": "is row 'Net4 - identity'",
        "Swin-T + identity": "is row 'Net4 - query position'",
    }
    fresh_desk.harness("run", "two.yaml", "--rows", ",".join(["Swin-T", *generated]))
    table = fresh_desk.table()
    assert list(table.loc[generated, "n"]) == [1, 1]
    assert table.loc["Swin-T + identity", "skipped"] == "is row 'Net4 - query position'"


@pytest.mark.slow
def test_a_rehearsal_forecasts_a_long_run_and_plan_shows_it(fresh_desk: Desk) -> None:
    longer = ("--set", "training.epochs=40")
    known = json.loads(fresh_desk.harness("rehearse", "two.yaml", "--json", *longer))
    assert [row["status"] for row in known["rows"]] == ["ok"] * 4
    assert all(row["trace"] and row["runs"] == {"to do": 1} for row in known["rows"])
    again = fresh_desk.harness("rehearse", "two.yaml", *longer)
    assert "rehearsing" not in again  # they are stored
    planned = json.loads(fresh_desk.harness("plan", "two.yaml", "--json", *longer))
    assert planned["forecast"]["seconds"] == pytest.approx(known["forecast"]["seconds"])


@pytest.mark.slow
def test_a_row_that_fails_is_reported_by_its_rehearsal(fresh_desk: Desk) -> None:
    (fresh_desk.folder / "broken.py").write_text(BROKEN)
    stated = EXPERIMENT.replace("[position_bias]}", "[position_bias]}\n  Broken: {normalization: broken}")
    (fresh_desk.folder / "two.yaml").write_text(stated)
    process = fresh_desk.start("rehearse", "two.yaml", "--plugin", "broken.py", "--json")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    rows = {row["row"]: row for row in json.loads(output)["rows"]}
    assert rows["Swin-T"]["status"] == "ok"
    assert (rows["Broken"]["status"], rows["Broken"]["detail"]) == ("failed", "KeyError: 'missing'")


@pytest.mark.slow
def test_a_second_call_trains_nothing(desk: Desk) -> None:
    output = desk.harness("run", "two.yaml")
    assert "4 runs: 4 done, 0 to train" in output
    assert trained(output) == set()


@pytest.mark.slow
def test_the_table_can_be_made_from_the_store_alone(desk: Desk) -> None:
    before = desk.table()
    shutil.rmtree(desk.folder / "results")
    output = desk.harness("table", "two.yaml")
    assert "written: results/smoke/two.md" in output
    pd.testing.assert_frame_equal(desk.table(), before)


def keep_weights(desk: Desk, run: str) -> None:
    """Copy what a run has kept to the working directory."""
    client = MlflowClient(f"sqlite:///{desk.folder / 'mlflow.db'}")
    client.download_artifacts(desk.runs()[run].info.run_id, "weights.pt", str(desk.folder))


@pytest.mark.slow
def test_kept_weights_score_what_the_table_says(desk: Desk) -> None:
    keep_weights(desk, "Net4 seed 0")
    output = desk.harness("evaluate", "two.yaml", "Net4", "--weights", "weights.pt")
    row = desk.table().loc["Net4"]
    expected = f"Net4: top-1 {row['top1_mean']:.2f} %, top-5 {row['top5_mean']:.2f} % of 200 test images"
    assert output.splitlines()[-1] == expected


LOAD = """
import sys
import numpy as np, timm, torch
import paradigms.models

model = timm.create_model("local-dir:model", pretrained=True).eval()
assert "harness" not in sys.modules
from harness.data import load_data
from harness.reading import load_recipe
from harness.tracking.translation import to_worker

recipe = load_recipe("smoke")
data = load_data(recipe.data, recipe.training, replicate=0, data_dir=None, device=torch.device("cpu"))
assert list(model.pretrained_cfg["mean"]) == [data.splits.mean]
with torch.inference_mode():
    predicted = torch.cat([model(images).argmax(-1) for images, _ in data.test_batches()])
kept = np.load("predictions.npz")["predictions"]
assert len(kept) == 200 and len(set(kept)) > 1 and (predicted.numpy() == kept).all()
"""


@pytest.mark.slow
def test_an_exported_model_predicts_in_plain_timm_what_its_run_did(desk: Desk) -> None:
    run_id = desk.runs()["Net4 seed 0"].info.run_id
    assert "written: model/model.safetensors" in desk.harness("export", run_id, "--output", "model")
    MlflowClient(f"sqlite:///{desk.folder / 'mlflow.db'}").download_artifacts(
        run_id, "predictions.npz", str(desk.folder)
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=desk.folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_floor_and_an_unknown_run_are_not_exported(desk: Desk) -> None:
    for run_id, message in [
        (desk.runs()["Linear classifier seed 0"].info.run_id, "which is not a model of timm"),
        ("0123456789abcdef0123456789abcdef", "has no run '0123456789abcdef0123456789abcdef'"),
    ]:
        process = desk.start("export", run_id)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2
        assert message in errors


@pytest.mark.slow
def test_more_seeds_train_only_the_new_ones(desk: Desk) -> None:
    output = desk.harness("run", "two.yaml", "--seeds", "2")
    assert trained(output) == {f"{row} seed 1" for row in ("Swin-T", "Net4", "Linear classifier", "One hidden layer")}
    assert list(desk.table()["n"]) == [2, 2, 2, 2]
    report = (desk.folder / "results" / "smoke" / "two.md").read_text()
    assert "**Changed after the first of these runs**: seeds 1, now 2." in report


@pytest.mark.slow
def test_what_one_experiment_has_trained_is_shown_in_another(desk: Desk) -> None:
    (desk.folder / "other.yaml").write_text(EXPERIMENT.replace("Net4", "A row by another name"))
    output = desk.harness("run", "other.yaml")
    assert trained(output) == set()
    assert list(pd.read_csv(desk.folder / "results/smoke/other.csv")["n"]) == [1, 1, 1, 1]


@pytest.mark.slow
def test_the_commands_of_the_readme_and_of_the_guide_run(fresh_desk: Desk) -> None:
    text = "".join((ROOT / name).read_text() for name in ("docs/guide/commands.md", "README.md"))
    commands = re.findall(r"^(?:    \.venv/bin/)?harness (.+?)(?: +#.*)?$", text, re.MULTILINE)
    shutil.copytree(ROOT / "docs" / "examples", fresh_desk.folder / "docs" / "examples")
    assert {command.split()[0] for command in commands} == {
        *("init", "list", "plan", "describe", "run", "table", "search", "evaluate"),
        *("status", "show", "ui", "doctor", "data", "export", "rehearse", "records"),
        *("verify", "diff", "checklist", "claims", "repro"),
    }
    shutil.copytree(ROOT / "results" / "laptop", fresh_desk.folder / "results" / "laptop")
    shutil.copy(ROOT / "results" / "laptop" / "runs" / "table1.jsonl", fresh_desk.folder / "old.jsonl")
    for command in commands:
        if command.startswith("evaluate"):
            keep_weights(fresh_desk, "Swin-T seed 0")
        if command.startswith("ui"):
            look_and_leave(fresh_desk)
            continue
        small = ["--recipe", "smoke"] if "experiments/" in command and "--recipe" not in command else []
        small += ["--rows", "Swin-T"] if command.startswith("rehearse") else []
        small += ["--max-seeds", "5", "--set", "floor_width=null"] if "--until" in command else []
        small += ["--trials", "2", "--seeds", "1"] if command.startswith("search") else []
        small += ["--seeds", "1", "--set", "floor_width=null"] if "docs/examples/" in command else []
        if "--reproduce" in command:
            fresh_desk.harness("records", "export", "experiments/table1.yaml", "--recipe", "smoke")
        if "RUN" in command:
            command = command.replace("RUN", fresh_desk.runs()["Swin-T seed 0"].info.run_id)  # noqa: PLW2901
        small += ["--set", "seeds=5"] if "--seeds 3-4" in command else []
        refusals = {
            "repro ": "ended as ok: only runs that diverged or failed are replayed",
            "run experiments/table1.yaml --engine slurm": "there is no Slurm on this machine",
        }
        refusal = next((message for start, message in refusals.items() if command.startswith(start)), None)
        if refusal is not None:
            assert refusal in fresh_desk.start(*command.split(), *small).communicate(timeout=60)[1]
            continue
        fresh_desk.harness(*command.split(), *small)


def look_and_leave(desk: Desk) -> None:
    process = desk.start("ui")
    read_until(process, "open http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0


@pytest.mark.slow
def test_memory_that_the_recipe_does_not_allow_is_a_result(desk: Desk) -> None:
    overrides = ("floor_width=null", "limits.memory_limit_gb=0.02", "training.epochs=5")
    output = desk.harness("run", "two.yaml", *to_options(overrides))
    assert output.count("seed 0: out of memory") == 2
    assert list(desk.table(*overrides)["outcomes"]) == ["out_of_memory"] * 2


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(desk: Desk) -> None:
    overrides = ("floor_width=null", "training.epochs=100")
    process = desk.start("run", "two.yaml", *to_options(overrides))
    read_until(process, "epoch 1/100")
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip() == "interrupted: 0 of 2 runs are done; run the same command to continue"
    assert_gone(family)
    assert {run.data.tags["status"] for run in desk.runs(*overrides).values()} == {"interrupted"}


@pytest.mark.slow
def test_a_killed_run_is_interrupted_alone(desk: Desk) -> None:
    overrides = ("floor_width=null", "data.train_images=160", "training.epochs=12")
    process = desk.start("run", "two.yaml", *to_options(overrides))
    read_until(process, "Net4 seed 0: epoch 1/12")
    os.kill(to_worker(desk.runs(*overrides)["Net4 seed 0"]).pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted: Net4 seed 0, killed by signal 9 (SIGKILL); the same command trains it again" in output
    assert list(desk.table(*overrides)["n"]) == [1, 0]


@pytest.mark.slow
def test_a_call_that_was_killed_is_closed_and_done_again(desk: Desk) -> None:
    overrides = ("floor_width=null", "data.train_images=160", "training.epochs=4")
    process = desk.start("run", "two.yaml", *to_options(overrides))
    read_until(process, "epoch 1/4")
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=30)
    assert_gone(family)
    left = desk.runs(*overrides)
    assert {run.info.status for run in left.values()} == {"RUNNING"}
    output = desk.harness("run", "two.yaml", *to_options(overrides))
    assert "closed what an earlier call left open: 3 runs" in output
    assert trained(output) == {"Swin-T seed 0", "Net4 seed 0"}


@pytest.mark.slow
def test_two_calls_on_one_store_train_each_run_once(fresh_desk: Desk) -> None:
    calls = [fresh_desk.start("run", "two.yaml", "--seeds", "2", "--workers", "1") for _ in range(2)]
    outputs = [call.communicate(timeout=240) for call in calls]
    assert [call.returncode for call in calls] == [0, 0], outputs
    own = [trained(output) for output, _ in outputs]
    assert all(own)
    assert not own[0] & own[1]
    assert len(own[0] | own[1]) == 8
    assert_each_run_once(fresh_desk, 8)


@pytest.mark.slow
def test_a_call_takes_over_what_a_killed_one_has_left(desk: Desk, fresh_desk: Desk) -> None:
    killed = fresh_desk.start("run", "two.yaml", "--workers", "1")
    read_until(killed, "epoch 1/")
    other = fresh_desk.start("run", "two.yaml", "--workers", "1")
    time.sleep(2)
    os.killpg(killed.pid, signal.SIGKILL)
    output, errors = other.communicate(timeout=240)
    killed.communicate()
    assert other.returncode == 0, errors
    assert "[4/4]" in output
    assert_each_run_once(fresh_desk, 4)
    pd.testing.assert_frame_equal(fresh_desk.table()[MEASURED], desk.table()[MEASURED])


def assert_each_run_once(desk: Desk, count: int) -> None:
    """No run was started twice, and no claim is left."""
    client = MlflowClient(f"sqlite:///{desk.folder / 'mlflow.db'}")
    ids = {experiment.name: experiment.experiment_id for experiment in client.search_experiments()}
    runs = client.search_runs([ids["two"]], "tags.kind = 'run'")
    assert len({run.info.run_name for run in runs}) == len(runs) == count
    assert {run.data.tags["status"] for run in runs} == {"ok"}
    assert not client.search_runs([ids["claims"]], "attributes.status = 'RUNNING'")


def wait_for_checkpoint(desk: Desk, process: subprocess.Popen[str]) -> None:
    """Until a run of this call has written one."""
    start = time.time()
    while process.poll() is None:
        written = desk.folder.glob("checkpoints/*/*.json")
        if any(path.name != "attempts.json" and path.stat().st_mtime > start for path in written):
            return
        time.sleep(0.05)
    pytest.fail("the command ended before")


def kill_workers(desk: Desk, _process: subprocess.Popen[str], *overrides: str) -> None:
    for run in desk.runs(*overrides).values():
        if run.info.status == "RUNNING":
            os.kill(to_worker(run).pid, signal.SIGKILL)


def kill_driver(_desk: Desk, process: subprocess.Popen[str], *_overrides: str) -> None:
    process.kill()


def terminate_driver(_desk: Desk, process: subprocess.Popen[str], *_overrides: str) -> None:
    process.terminate()


def terminate_everything(_desk: Desk, process: subprocess.Popen[str], *_overrides: str) -> None:
    """As a cluster does: every process of the job, at once."""
    for member in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        with suppress(psutil.NoSuchProcess):
            member.terminate()


@pytest.mark.slow
def test_whatever_ends_a_call_the_same_command_goes_on_bit_for_bit(desk: Desk, fresh_desk: Desk) -> None:
    overrides = (
        *("floor_width=null", "data.train_images=480", "training.epochs=8", "training.ema_decay=0.9"),
        *("training.augmentation={hflip: 0.5, mixup: 0.8}", "backbones.swin.drop_path_rate=0.2"),
        "checkpoint_minutes=0.001",
    )
    options = ("run", "two.yaml", *to_options(overrides))
    desk.harness(*options)
    ends = {kill_workers: 130, kill_driver: -signal.SIGKILL, terminate_driver: 130, terminate_everything: 130}
    for end, code in ends.items():
        process = fresh_desk.start(*options)
        wait_for_checkpoint(fresh_desk, process)
        family = psutil.Process(process.pid).children(recursive=True)
        end(fresh_desk, process, *overrides)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == code, f"{end.__name__}: {output}\n{errors}"
        assert_gone(family)
        planned = json.loads(fresh_desk.harness("plan", "two.yaml", "--json", *to_options(overrides)))
        assert planned["counts"]["resumable"] >= 1, end.__name__
    output = fresh_desk.harness(*options)
    assert re.search(r"seed 0: continues after epoch \d+, step \d+, attempt \d", output)
    tables = [pd.read_csv(next(each.folder.glob("results/smoke+*/two.csv")))[MEASURED] for each in (desk, fresh_desk)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    expected, found = desk.runs(*overrides), fresh_desk.runs(*overrides)
    assert found.keys() == expected.keys() == {"Swin-T seed 0", "Net4 seed 0"}
    assert max(run.data.metrics.get("attempts", 1) for run in found.values()) >= 3
    for name, run in found.items():
        ours, theirs = read_weights(fresh_desk, run.info.run_id), read_weights(desk, expected[name].info.run_id)
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items()), name
    assert not list(fresh_desk.folder.glob("checkpoints/*/*.pt"))


def read_weights(desk: Desk, run_id: str) -> dict[str, torch.Tensor]:
    client = MlflowClient(f"sqlite:///{desk.folder / 'mlflow.db'}")
    weights: dict[str, torch.Tensor] = torch.load(client.download_artifacts(run_id, "weights.pt"), weights_only=True)
    return weights


def require_same_weights(found: Desk, expected: Desk, overrides: Sequence[str]) -> None:
    """The same runs, with the same weights bit for bit."""
    ours, theirs = found.runs(*overrides), expected.runs(*overrides)
    assert ours.keys() == theirs.keys()
    for name, run in ours.items():
        weights, wanted = read_weights(found, run.info.run_id), read_weights(expected, theirs[name].info.run_id)
        assert weights.keys() == wanted.keys()
        assert all(torch.equal(tensor, wanted[key]) for key, tensor in weights.items()), name


def write_token_labels(folder: Path) -> None:
    """An experiment, its recipe, and `images/`: 48 of three colours to train on, each with a label map."""
    (folder / "recipes").mkdir()
    (folder / "recipes" / "tokens.yaml").write_text(TOKEN_RECIPE)
    (folder / "labels.yaml").write_text(TOKEN_LABELS)
    generator = np.random.default_rng(0)
    for number, name in enumerate(("blue", "green", "red")):  # classes are numbered by their names in order
        for split in ("train", "val", "label_maps"):
            (folder / "images" / split / name).mkdir(parents=True)
        for index in range(16):
            pixels = generator.integers(0, 90, (36, 40, 3), dtype=np.uint8)
            pixels[..., 2 - number] += 150
            for split in ("train", "val"):
                Image.fromarray(pixels).save(folder / "images" / split / name / f"{index}.png")
            scores = torch.full((1, 6, 6), 9.0)
            path = folder / "images" / "label_maps" / name / f"{index}.pt"
            torch.save(torch.stack([scores, torch.full_like(scores, number)]).half(), path)


@pytest.mark.slow
def test_token_labels_from_a_folder_to_the_table(tmp_path: Path) -> None:
    write_token_labels(tmp_path)
    desk, command = Desk(tmp_path), ("run", "labels.yaml", "--data", "images")
    assert trained(desk.harness(*command)) == {f"{row} seed 0" for row in ("Swin-T", "VOLO", "VOLO, bias")}
    table = pd.read_csv(tmp_path / "results/tokens/labels.csv").set_index("row")
    assert list(table["n"]) == [1, 1, 1]
    assert table["top1_mean"].min() > 60
    assert table["delta"].notna().sum() == 2  # on the same images, whatever the labels of their tokens
    notes = (tmp_path / "results/tokens/labels.md").read_text()
    assert "* Trained otherwise than all: VOLO, VOLO, bias; ema_decay 0.5 instead of off, token_labels.grid 4" in notes
    assert trained(desk.harness(*command)) == set()
    (tmp_path / "images/label_maps/red/0.pt").unlink()
    process = desk.start(*command)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.strip() == "harness: 1 training images have no label map; the first is label_maps/red/0.pt"


def to_options(overrides: Sequence[str]) -> list[str]:
    return [option for override in overrides for option in ("--set", override)]


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Read what a command prints up to a line with `text`."""
    assert process.stdout is not None
    assert any(text in line for line in process.stdout), "the command ended before"


def assert_gone(family: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


SEARCH = """\
title: The learning rate
recipe: smoke
baseline: Swin-T
rows:
  Swin-T: {}
seeds: 1
search:
  training.lr: {low: 0.005, high: 1e9, log: true}
study:
  startup_trials: 1
  first: [{training.lr: 0.02}, {training.lr: 1e9}, {training.lr: 0.01}]
"""


def read_trials(desk: Desk, *overrides: str) -> pd.DataFrame:
    folder = desk.folder / "results" / "+".join(["smoke", *overrides])
    return pd.read_csv(folder / "lr_search" / "trials.csv")


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_and_loses_no_trial(fresh_desk: Desk) -> None:
    (fresh_desk.folder / "lr_search.yaml").write_text(SEARCH)
    overrides = ("floor_width=null", "training.epochs=2")
    options = ("search", "lr_search.yaml", *to_options(overrides), "--workers", "2")
    process = fresh_desk.start(*options, "--trials", "3")
    read_until(process, "trial 2: ")
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=30)
    assert_gone(family)
    output = fresh_desk.harness(*options, "--trials", "3")
    assert "trial 2 again: training.lr = 0.01" in output
    trials = read_trials(fresh_desk, *overrides)
    assert list(trials["training.lr"]) == [0.02, 1e9, 0.01]
    assert list(trials["state"]) == ["complete", "failed", "complete"]
    assert trials["reason"][1].startswith("diverged at step")
    client = MlflowClient(f"sqlite:///{fresh_desk.folder / 'mlflow.db'}")
    (experiment,) = (found for found in client.search_experiments() if found.name == "lr_search")
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'run' AND params.seed = '1000'")
    statuses = Counter(run.data.tags["status"] for run in runs)
    assert (statuses["ok"], statuses["diverged"]) == (2, 1)
    further = fresh_desk.harness(*options, "--trials", "4")
    assert re.findall(r"^trial (\d+): training", further, re.MULTILINE) == ["3"]
    row = fresh_desk.harness("search", "lr_search.yaml", *to_options(overrides), "--write-preset")
    assert "Winner: {}" in row
    assert "--set training.lr=" in row


@pytest.mark.slow
def test_a_pruner_stops_the_process_of_a_poor_trial(fresh_desk: Desk) -> None:
    text = SEARCH.replace("low: 0.005, high: 1e9", "low: 2e-5, high: 1").replace("1e9}", "2e-5}")
    (fresh_desk.folder / "lr_search.yaml").write_text(text)
    overrides = ("floor_width=null", "training.epochs=3", "study.pruner=median")
    options = ("search", "lr_search.yaml", *to_options(overrides), "--trials", "2", "--workers", "1", "--timeout", "10")
    output = fresh_desk.harness(*options)
    assert "trial 1: pruned after epoch 1" in output
    assert list(read_trials(fresh_desk, *overrides)["state"]) == ["complete", "pruned"]


@pytest.fixture(scope="module")
def smoke_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all experiments: a cell that stands in several is trained once."""
    return tmp_path_factory.mktemp("smoke")


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_shipped_experiment_runs_under_smoke(experiment: Path, smoke_folder: Path) -> None:
    desk = Desk(smoke_folder)
    desk.harness("run", str(experiment), "--recipe", "smoke", "--seeds", "1")
    table = pd.read_csv(smoke_folder / "results" / "smoke+seeds=1" / f"{experiment.stem}.csv")
    ran = table[table["cell_id"].notna()]  # others are skipped under smoke, or quoted
    assert not ran.empty
    measured = ran["top1_mean"].between(0, 100)
    assert (measured | ran["outcomes"].notna()).all(), ran[["row", "top1_mean", "outcomes"]]
