"""Levels and datasets from outside; what loads them does so in processes of its own, as they stay loaded."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from harness.cli import main
from harness.plugins import MAPPINGS

ROOT = Path(__file__).parents[2]

EXPERIMENT = """\
title: Levels from outside
recipe: outside
baseline: Swin-T
rows:
  Swin-T: {}
  Sharp: {normalization: sharp, temperature: 0.25}
  Learned: {normalization: learned}
  All: {backbone: own_swin, parameterization: [own_hadamard], normalization: sharp, neighborhood: row,
        aggregation: own_sum, kernel_size: 3}
seeds: 1
"""
SIZES = "  own_swin: {patch_size: 4, embed_dim: 8, depths: [1, 1], num_heads: [1, 2], window_size: 7}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study of someone else: an experiment, its recipe and a file of levels."""
    shutil.copy(Path(__file__).with_name("outside_levels.py"), tmp_path / "my_levels.py")
    (tmp_path / "recipes").mkdir()
    smoke = (ROOT / "experiments" / "recipes" / "smoke.yaml").read_text()
    own = smoke.replace("name: fashion_mnist", "name: negatives").replace("backbones:", f"backbones:\n{SIZES}")
    own = re.sub("floor_width: .*", "floor_width: null", own)
    (tmp_path / "recipes" / "outside.yaml").write_text(own)
    (tmp_path / "outside.yaml").write_text(EXPERIMENT)
    return tmp_path


def start(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def harness(folder: Path, *arguments: str) -> str:
    done = start(folder, "-m", "harness.cli", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_levels_and_a_dataset_from_outside_become_rows_of_a_table(folder: Path) -> None:
    harness(folder, "run", "outside.yaml", "--plugin", "my_levels.py")
    table = pd.read_csv(folder / "results" / "outside" / "outside.csv").set_index("row")
    assert list(table["n"]) == [1, 1, 1, 1]
    assert table.loc["Learned", "params"] - table.loc["Swin-T", "params"] == 3  # one in each block
    assert table.loc["Sharp", "normalization"] == "sharp"
    assert (table["data_digest"].str.startswith("negatives")).all()
    assert "4 done, 0 to train" in harness(folder, "run", "outside.yaml", "--plugin", "my_levels.py")

    levels = folder / "my_levels.py"
    levels.write_text(levels.read_text() + "\n# a comment changes nothing\n")
    assert "stale" not in harness(folder, "plan", "outside.yaml", "--plugin", "my_levels")
    levels.write_text(levels.read_text().replace("counted / self.temp", "0.5 * counted / self.temp"))
    assert "4 undecided" in harness(folder, "plan", "outside.yaml", "--plugin", "my_levels")
    shown = harness(folder, "run", "outside.yaml", "--plugin", "my_levels.py")
    assert "2 of them are attested" in shown
    assert "2 of them are stale" in shown
    assert set(re.findall(r"\] (\w+) seed 0: test", shown)) == {"Sharp", "All"}


@pytest.mark.slow
def test_plugins_of_the_project_need_no_flag_in_any_of_its_folders(folder: Path) -> None:
    below = folder / "notes" / "today"
    below.mkdir(parents=True)
    (folder / "harness.yaml").write_text("plugins: my_levels.py\n")
    assert "Θ 1x3 row" in harness(below, "plan", "../../outside.yaml")
    assert "sharp" in harness(below, "list", "operators", "--plugin", "../../my_levels.py")


def test_a_mistake_in_the_projects_file_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    told = {
        "plugin: [a]": "harness.yaml:1: plugin: unknown key 'plugin'; did you mean 'plugins'?",
        "plugins:\n  - 3": "harness.yaml:2: plugins.0: must be a text, got 3",
        "plugins:\n  - gone.py": "harness.yaml:2: plugins.0: plugin ",
        "plugins: []\nplugins: []": "harness.yaml:2: ",
        "[]": "harness.yaml: the top level must be a mapping",
    }
    for text, message in told.items():
        (tmp_path / "harness.yaml").write_text(f"{text}\n")
        assert main(["list", "operators"]) == 2
        shown = capsys.readouterr().err
        assert message in shown
        assert len(shown.splitlines()) == 1


ENTRY_POINTS = """\
[elsa_ablation.normalization]
sharp = my_levels:Sharp
learned = my_levels:Learned
[elsa_ablation.neighborhood]
row = my_levels:Row
[elsa_ablation.parameterization]
own_hadamard = my_levels:OwnHadamard
[elsa_ablation.aggregation]
own_sum = my_levels:OwnSum
[elsa_ablation.backbone]
own_swin = my_levels:OwnSwin
[elsa_ablation.dataset]
negatives = my_levels:NEGATIVES
"""


@pytest.mark.slow
def test_an_installed_package_needs_no_flag(folder: Path) -> None:
    (folder / "my_levels.py").write_text((folder / "my_levels.py").read_text() + "\nNEGATIVES = Negatives()\n")
    (folder / "mine-1.0.dist-info").mkdir()
    (folder / "mine-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (folder / "mine-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    assert "Θ 1x3 row" in harness(folder, "plan", "outside.yaml")


LAWS = """
from harness.plugins import load_plugins
from paradigms import facts, plugins
from paradigms.laws import LawBroken, check_level
from paradigms.normalization import NORMALIZATIONS

load_plugins("my_levels.py")
load_plugins("my_levels")  # again is nothing new
for room, levels in facts.ROOMS.items():
    assert list(plugins.ROOMS[room].mapping) == list(levels), room
assert check_level("normalization", "learned") > 50
NORMALIZATIONS["sharp"].weight_sum = 2.0
try:
    check_level("normalization", "sharp")
except LawBroken as broken:
    assert str(broken) == "normalization sharp: keeps what it declares: the weights do not sum to 2.0, as declared"
else:
    raise SystemExit("a false declaration was not found")
"""


@pytest.mark.slow
def test_a_false_declaration_of_a_level_from_outside_is_found(folder: Path) -> None:
    done = start(folder, "-c", LAWS)
    assert done.returncode == 0, done.stderr


FIELDS = """
from harness.errors import SpecError
from harness.plan import make_plan
from harness.plugins import load_plugins
from harness.reading import load_spec
from harness.search.space import make_space
from harness.search.spec import load_search
from paradigms import AttentionConfig

load_plugins("my_levels.py")
rows = {row.name: row.cell for row in make_plan(load_spec("outside.yaml")).rows}
assert rows["Sharp"].attention[0].temperature == 0.25
assert AttentionConfig(normalization="sharp", temperature=0.5).to_canonical() == {"normalization": "sharp"}
for value, message in (("0", "must be greater than 0"), ("warm", "must be a number")):
    try:
        load_spec("outside.yaml", overrides=[f"rows.Sharp.temperature={value}"])
    except SpecError as error:
        assert message in str(error), error
    else:
        raise SystemExit("a wrong value was accepted")
space = make_space(load_search("search.yaml"))
cells = {space.find_cell("trial", {"temperature": value}).cell.id for value in (0.1, 0.25, 1.0)}
assert len(cells) == 3 and rows["Sharp"].id in cells
"""

SEARCH = """\
title: A temperature
recipe: outside
baseline: Swin-T
rows:
  Swin-T: {}
  Sharp: {normalization: sharp}
search:
  temperature: {low: 0.1, high: 1.0}
study: {row: Sharp, trials: 3}
"""


@pytest.mark.slow
def test_a_field_of_a_plugin_is_a_key_of_experiments_and_can_be_searched(folder: Path) -> None:
    (folder / "search.yaml").write_text(SEARCH)
    done = start(folder, "-c", FIELDS)
    assert done.returncode == 0, done.stderr
    assert "temperature 0.25" in harness(folder, "describe", "outside.yaml", "Sharp", "--plugin", "my_levels.py")


def test_a_module_lists_levels_of_the_rooms_and_datasets() -> None:
    from paradigms.plugins import ROOMS

    assert [*ROOMS, "dataset", "task", "column"] == list(MAPPINGS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent", None, "cannot be imported: ImportError: no such file"),
        ("unfinished", "def f(:", "cannot be imported: SyntaxError: invalid syntax"),
        ("misspelt", "x = y", "cannot be imported: NameError: name 'y' is not defined"),
        ("empty", "", "lists no level; it must have one of PARAMETERIZATIONS, NORMALIZATIONS"),
        ("listed", "NORMALIZATIONS = ['mine']", "NORMALIZATIONS must map names to levels"),
        ("taken", "class A: kind, ignores_constant, weight_sum = 'softmax', True, 1\nNORMALIZATIONS = {'softmax': A}",
         "normalization 'softmax': a level or dataset of this name exists already"),
        ("poor", "class A: kind = 'a'\nNORMALIZATIONS = {'a': A}", "has no ignores_constant, weight_sum"),
        ("disguised", "from paradigms.normalization import Softmax\nclass A(Softmax): pass\nNORMALIZATIONS = {'a': A}",
         "the kind of normalization 'a' must be its name, got 'softmax'"),
        ("sizeless", "from paradigms.backbones import VOLO\nclass A(VOLO): pass\nBACKBONES = {'a': A}",
         "backbone 'a' must have `sizes`"),
        ("sized", "BACKBONES = {'swin_small': int}", "backbone 'swin_small' exists already"),
        ("blockless", "from paradigms.backbones import OperatorStages\nfrom harness.spec import SwinSpec\n"
         "class B(SwinSpec): family = 'b'\nclass A(OperatorStages): sizes = B\nBACKBONES = {'b': A}",
         "backbone 'b' has no operator_stages, num_stages, list_blocks, get_map_size"),
        ("half", "DATASETS = {'a': object()}", "dataset 'a' has no check_data, load_data, digest_files"),
        ("idle", "TASKS = {'a': object()}", "task 'a' must be an instance of a subclass of harness.tasks.Task"),
        ("shadowed", "from harness.tasks.classification import Classification, TOP1\nfrom dataclasses import replace\n"
         "class A(Classification): measures = (replace(TOP1, name='delta'),)\nTASKS = {'a': A()}",
         "task 'a': each measure needs a name that no other column has, got ['delta']"),
        ("json", "NORMALIZATIONS = {}", "there is another module 'json'"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)  # fmt: skip
def test_a_plugin_that_cannot_be_used_is_one_message(
    name: str,
    content: str | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / f"{name}.py"
    if content is not None:
        path.write_text(content)
    assert main(["plan", "table1", "--plugin", str(path)]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors
    assert len(errors.splitlines()) == 1
