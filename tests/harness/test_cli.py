import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import VERBS, main

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
    print("heavy:", [name for name in ("torch", "timm", "mlflow", "pandas") if name in sys.modules])
"""


def test_help_imports_nothing_heavy() -> None:
    commands = [["--help"], *([verb, "--help"] for verb in VERBS)]
    script = HELP.format(commands=commands)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *texts, end = done.stdout.split("heavy: []\n")
    assert (len(texts), end) == (len(commands), "")
    for (verb, *_), text in zip(commands, texts, strict=True):
        assert text.startswith("usage: harness " + ("" if verb == "--help" else verb))


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
        (["table", "two.yaml"], ["no run of two under recipe smoke"]),
        (["data", "two.yaml", "--recipe", "imagenet"], ["--data DIR"]),
    ],
    ids=["file", "set key", "set value", "no data", "store", "dataset", "empty store", "data"],
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
def test_plan_needs_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "two.yaml"]) == 0
    _, _, stages = capsys.readouterr().out.partition("stage ")
    assert main(["plan", "two.yaml", "--set", "data.name=image_folder"]) == 0
    output = capsys.readouterr()
    assert "7,850" in output.out
    assert output.out.endswith(stages)
    assert "--data DIR; what is stale is not known" in output.err


def test_data_shows_what_is_there(capsys: pytest.CaptureFixture[str], experiment: Path) -> None:
    assert main(["data"]) == 0
    every = capsys.readouterr().out
    assert main(["data", "fashion_mnist"]) == 0
    one = capsys.readouterr().out
    assert main(["data", str(experiment)]) == 0
    assert capsys.readouterr().out == one
    assert one in every
    assert "complete" in one
