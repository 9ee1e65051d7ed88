import json
import math
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cli import VERBS, main, make_parser
from harness.execution.ledger import find_digests
from harness.plan import make_plan
from harness.reading import load_spec
from harness.record import Record, RunStatus
from harness.report.files import find_records
from harness.table import list_columns
from harness.tracking import MlflowTracker
from harness.tracking.record_files import read_runs

EXPERIMENT = """\
title: Two rows
recipe: smoke
baseline: Swin-T
rows:
  Swin-T: {}
  Net1: {parameterization: [query_key]}
seeds: 1
"""


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good file in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = tmp_path / "two.yaml"
    path.write_text(EXPERIMENT)
    return path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def fail(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one message of a command that must end with exit code 2."""
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.err.startswith("harness: ")
    assert "Traceback" not in output.err
    return output.err


HELP = """
import sys
from harness.cli import main

for arguments in {commands}:
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == 0, arguments
    print("heavy:", [name for name in ("torch", "timm", "mlflow", "pandas", "shtab") if name in sys.modules])
"""


def test_help_imports_nothing_heavy() -> None:
    commands = [["--help"], *([verb, "--help"] for verb in VERBS)]
    script = HELP.format(commands=commands)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *texts, end = done.stdout.split("heavy: []\n")
    assert (len(texts), end) == (len(commands), "")
    for (verb, *_), text in zip(commands, texts, strict=True):
        assert text.startswith("usage: harness " + ("" if verb == "--help" else verb))


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_of_a_verb_is_a_command_line_of_it(verb: str) -> None:
    program, *arguments = shlex.split(VERBS[verb].EXAMPLE)
    assert program == "harness"
    assert make_parser().parse_args(arguments).verb == verb


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("baseline:", "base_line:", ["two.yaml:3", "base_line", "baseline"]),
        ("query_key", "query_kye", ["two.yaml:6", "query_kye", "query_key"]),
        ("[query_key]}", "[query_key], kernel_size: 4}", ["two.yaml:6", "odd"]),
        ("[query_key]}", "[query_key], heads: 3}", ["two.yaml:6", "heads must divide the width"]),
        ("  Net1:", "  Swin-T:", ["two.yaml", "Swin-T"]),
        ("recipe: smoke", "recipe: smoky", ["two.yaml:2", "smoky", "smoke"]),
        ("rows:\n", "rows: [\n", ["two.yaml"]),
    ],
    ids=["unknown key", "unknown level", "even kernel", "heads", "duplicate row", "unknown recipe", "malformed"],
)
@pytest.mark.parametrize("verb", ["plan", "run", "table"])
def test_a_mistake_in_a_file_is_one_message_with_its_place(
    experiment: Path, capsys: pytest.CaptureFixture[str], verb: str, old: str, new: str, expected: list[str]
) -> None:
    edit(experiment, old, new)
    message = fail(capsys, verb, "two.yaml")
    assert all(part in message for part in expected), message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "none.yaml"], ["none.yaml", "no such file"]),
        (["run", "two.yaml", "--set", "training.epoch=3"], ["--set training.epoch=3", "epochs"]),
        (["run", "two.yaml", "--set", "training.epochs=few"], ["--set training.epochs=few"]),
        (["run", "two.yaml", "--recipe", "imagenet"], ["--data DIR"]),
        (["run", "two.yaml", "--tracking-uri", "./mlruns"], ["./mlruns", "sqlite:///"]),
        (["plan", "two.yaml", "--set", "data.name=fashion_mnits"], ["data.name", "did you mean 'fashion_mnist'"]),
        (["run", "two.yaml", "--until", "resolved", "--seeds", "4"], ["--until", "leave out --rows and --seeds"]),
        (["run", "two.yaml", "--until", "resolved", "--rows", "Net1"], ["--until", "leave out --rows and --seeds"]),
        (["run", "two.yaml", "--max-seeds", "5"], ["need --until resolved"]),
        (["run", "two.yaml", "--until", "resolved", "--margin", "few"], ["--set margin=few"]),
        (["table", "two.yaml"], ["no run of two under recipe smoke"]),
        (["data", "two.yaml", "--recipe", "imagenet"], ["--data DIR"]),
    ],
    ids=[
        "file",
        "set key",
        "set value",
        "no data",
        "store",
        "dataset",
        "until and seeds",
        "until and rows",
        "no until",
        "margin",
        "empty store",
        "data",
    ],
)
@pytest.mark.usefixtures("experiment")
def test_a_mistake_in_an_option_is_one_message(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: list[str]
) -> None:
    message = fail(capsys, *arguments)
    assert all(part in message for part in expected), message
    assert not Path("results").exists()


@pytest.mark.usefixtures("experiment")
def test_a_damaged_data_file_is_one_message(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "harness/data/files/fashion_mnist"
    for file in source.glob("*.gz"):
        (tmp_path / file.name).write_bytes(file.read_bytes()[:1000])
    message = fail(capsys, "run", "two.yaml", "--data", str(tmp_path))
    assert "is damaged" in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train"], "invalid choice: 'train'"),
        (["rnu", "two.yaml"], "invalid choice: 'rnu'; did you mean 'run'?"),
        (["list", "expriments"], "did you mean 'experiments'?"),
        (["run", "two.yaml", "--recpie", "smoke"], "unrecognized arguments: --recpie smoke; did you mean '--recipe'?"),
        (["run", "two.yaml", "--epochs", "3"], "unrecognized arguments: --epochs 3"),
        (["run", "two.yaml", "--workers", "0"], "must be a whole number of at least 1, got '0'"),
        (["run", "two.yaml", "--seeds", "x"], "must be a whole number of at least 1, got 'x'"),
    ],
)
def test_an_unknown_verb_or_option_is_argparses(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.usefixtures("experiment")
def test_plan_shows_everything_and_creates_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", "two.yaml"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("two: Two rows\nrecipe smoke: Fashion-MNIST, 320 images, 1 epoch\n")
    assert output.strip().endswith("4 runs: 4 to do; `harness run` would train 4")
    assert [path.name for path in tmp_path.iterdir()] == ["two.yaml"]


@pytest.mark.usefixtures("experiment")
@pytest.mark.parametrize("wrong", ["data.num_classes=1000", "data.channels=3", "data.image_size=32"])
def test_plan_finds_data_and_recipe_that_disagree(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "two.yaml", "--set", wrong]) == 2
    assert f"{wrong.partition('=')[0]}: fashion_mnist has " in capsys.readouterr().err


@pytest.mark.usefixtures("experiment")
def test_plan_needs_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "two.yaml"]) == 0
    _, _, stages = capsys.readouterr().out.partition("stage ")
    assert main(["plan", "two.yaml", "--set", "data.name=image_folder"]) == 0
    output = capsys.readouterr()
    assert "7,850" in output.out
    assert output.out.endswith(stages)
    assert "--data DIR; stale runs cannot be identified" in output.err


def test_data_shows_what_is_there(capsys: pytest.CaptureFixture[str], experiment: Path) -> None:
    assert main(["data"]) == 0
    every = capsys.readouterr().out
    assert main(["data", "fashion_mnist"]) == 0
    one = capsys.readouterr().out
    assert main(["data", str(experiment)]) == 0
    assert capsys.readouterr().out == one
    assert one in every
    assert "complete" in one


def read_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The one document that a command prints."""
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("experiment")
def test_a_plan_for_scripts_has_stable_keys(capsys: pytest.CaptureFixture[str]) -> None:
    plan = read_json(capsys, "plan", "two.yaml")
    assert set(plan) == {
        "experiment",
        "title",
        "recipe",
        "overrides",
        "rows",
        "skipped",
        "counts",
        "to_train",
        "forecast",
    }
    assert set(plan["counts"]) == {
        *("done", "attested", "unattested", "undecided", "stale", "failed", "resumable", "to do"),
    }
    assert (plan["experiment"], plan["counts"]["to do"], plan["to_train"]) == ("two", 4, 4)
    row = plan["rows"][1]
    assert set(row) == {
        *(
            "row",
            "cell_id",
            "is_floor",
            "is_placebo",
            "solution",
            "levels",
            "params",
            "macs",
            "division",
            "stages",
            "runs",
        ),
    }
    assert row["levels"]["parameterization"] == "query_key"
    assert row["runs"] == [
        {"seed": 0, "standing": "to do", "reason": "", "epoch": None, "status": None, "run_id": None}
    ]


@pytest.fixture
def run_id(experiment: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The first of its four runs is stored, in the default store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    plan, tracker = make_plan(load_spec(experiment)), MlflowTracker(tracking_uri)
    tracker.prepare("two")
    parent = tracker.start_invocation(plan.spec, command="harness run two.yaml", provenance={})
    started = tracker.start_run(plan.runs[0], spec=plan.spec, parent_id=parent, provenance={})
    metrics = {"test/top1": 58.0, "val/loss": math.nan}
    tracker.finish_run(started, Record(plan.rows[0].cell.id, plan.rows[0].name, 0, RunStatus.OK, metrics))
    return started


@pytest.mark.usefixtures("run_id")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(("import", "none.jsonl"), "the record file none.jsonl cannot be read: No such file", id="no file"),
        pytest.param(("import", "two.yaml"), "two.yaml:1: not a run", id="another file"),
        pytest.param(("export", "tow.yaml"), "tow.yaml", id="no experiment"),
        pytest.param(("merge", "two.jsonl"), "merge needs --output", id="nowhere to write"),
        pytest.param(("export", "two.yaml", "--output", "x.jsonl"), "export and import take none", id="an output"),
        pytest.param(("import", "two.jsonl", "--set", "training.lr=1"), "--set is for export alone", id="overrides"),
        pytest.param(("export", "two.yaml", "--set", "training.lrr=1"), "did you mean 'lr'", id="an unknown key"),
    ],
)
def test_a_mistake_with_records_gets_one_message(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in fail(capsys, "records", *arguments)


def test_records_of_an_experiment_with_overrides_are_exported_to_their_own_folder(
    experiment: Path, tracking_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    override = "training.lr=0.002"
    plan, tracker = make_plan(load_spec(experiment, overrides=[override])), MlflowTracker(tracking_uri)
    run = plan.runs[0]
    code, data = find_digests(plan, data_dir=None)[run.row.cell.id]
    tracker.prepare("two")
    parent = tracker.start_invocation(plan.spec, command="harness run two.yaml", provenance={})
    provenance = {"code_digest": code, "data_digest": data}
    started = tracker.start_run(run, spec=plan.spec, parent_id=parent, provenance=provenance)
    record = Record(run.row.cell.id, run.row.name, 0, RunStatus.OK, {"test/top1": 58.0}, provenance=provenance)
    tracker.finish_run(started, record)
    assert main(["records", "export", "two.yaml", "--set", override, "--tracking-uri", tracking_uri]) == 0
    assert "written: results/smoke+training.lr=0.002/runs/two.jsonl" in capsys.readouterr().out
    (exported,) = read_runs(find_records(plan.spec, Path("results")))
    assert (exported.overrides, exported.record.cell_id) == ((override,), run.row.cell.id)


@pytest.mark.usefixtures("run_id")
def test_a_table_for_scripts_has_the_columns_of_the_csv(capsys: pytest.CaptureFixture[str]) -> None:
    table = read_json(capsys, "table", "two.yaml")
    assert set(table) == {
        *("experiment", "title", "recipe", "overrides"),
        *("rows", "claims", "effects", "left_out", "files"),
    }
    assert list(table["rows"][0]) == list(list_columns(load_spec("table1")))
    assert [row["top1_mean"] for row in table["rows"]] == [58.0, None, None, None]
    assert [Path(file).name for file in table["files"]] == ["two.csv", "two.md", "two.tex", "two.html"]


@pytest.mark.usefixtures("run_id")
def test_a_table_of_some_rows_is_written_as_a_whole(capsys: pytest.CaptureFixture[str]) -> None:
    table = read_json(capsys, "table", "two.yaml", "--rows", "Net1,Swin-T")
    assert [row["row"] for row in table["rows"]] == ["Swin-T", "Net1"]
    assert len(Path("results/smoke/two.csv").read_text().splitlines()) == 5
    Path("file").touch()
    assert "tables cannot be written to file/x" in fail(capsys, "table", "two.yaml", "--results", "file/x")


def test_status_and_show_for_scripts_have_stable_keys(capsys: pytest.CaptureFixture[str], run_id: str) -> None:
    (status,) = read_json(capsys, "status", "two.yaml")["experiments"]
    assert set(status) == {
        *("experiment", "recipe", "overrides", "is_planned", "runs", "counts"),
        *("seconds_left", "is_measured", "problem"),
    }
    assert set(status["runs"][0]) == {
        *("row", "seed", "cell_id", "state", "run_id", "status", "outcome", "reason"),
        *("cause", "step", "module", "epoch", "standing", "standing_reason"),
    }
    assert status["runs"][0]["run_id"] == run_id
    (run,) = read_json(capsys, "show", run_id)["runs"]
    assert run["metrics"] == {"test/top1": 58.0, "val/loss": None}


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("experiments", {"experiment", "rows", "seeds", "recipe", "title"}),
        ("searches", {"search", "title"}),
        ("recipes", {"recipe", "data", "backbones", "title"}),
        ("presets", {"preset", "source", "equation"}),
        ("operators", {"part", "is", "levels"}),
        ("data", {"data", "usable", "where", "state"}),
    ],
)
def test_a_list_for_scripts_has_stable_keys(capsys: pytest.CaptureFixture[str], section: str, keys: set[str]) -> None:
    entries = read_json(capsys, "list", section)[section]
    assert entries
    assert all(set(entry) == keys for entry in entries)


@pytest.mark.slow
def test_commands_work_from_any_folder_of_a_checkout(
    capsys: pytest.CaptureFixture[str], experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = experiment.parent
    (root / "pyproject.toml").write_text('[project]\nname = "elsa-ablation"\n')
    below = root / "docs" / "decisions"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    for name in ("table1", "experiments/table1.yaml", "../../two.yaml"):
        assert main(["plan", name, "--recipe", "smoke"]) == 0
    capsys.readouterr()
    assert main(["status", "table1", "--recipe", "smoke"]) == 0
    assert f"store: sqlite:///{root / 'mlflow.db'} (nothing yet)" in capsys.readouterr().out


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    command = f"{shlex.quote(sys.executable)} -m harness.cli list presets | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("presets")
    assert done.stderr == ""
