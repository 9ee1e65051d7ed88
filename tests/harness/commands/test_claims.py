"""`harness claims` judges the shipped claims by the committed runs, and stores nothing."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from harness.cli import main
from harness.commands.claims import ListedClaim, describe_claims, list_claims, to_page
from harness.errors import SpecError
from harness.reading import list_experiments, load_spec
from harness.spec import CLAIMS
from harness.tracking import MlflowTracker

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "results"


def run(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> str:
    store = f"sqlite:///{folder / 'mlflow.db'}"
    assert main(["claims", *arguments, "--tracking-uri", store, "--results", str(RESULTS)]) == 0
    assert not (folder / "mlflow.db").exists()
    return capsys.readouterr().out


def test_the_verdicts_are_those_of_the_committed_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claims = json.loads(run(capsys, tmp_path, "figure2", "--json"))["claims"]
    stored = pd.read_csv(RESULTS / "laptop" / "figure2_claims.csv")
    columns = ["claim", "source", "verdict", "evidence"]
    assert [[claim[name] for name in columns] for claim in claims] == stored[columns].to_numpy().tolist()
    assert {(claim["experiment"], claim["recipe"]) for claim in claims} == {("figure2", "laptop")}


@pytest.fixture(scope="module")
def claims(tmp_path_factory: pytest.TempPathFactory) -> list[ListedClaim]:
    """All that are shipped, by the committed runs."""
    tracker = MlflowTracker(f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}")
    return list_claims(tracker, results=RESULTS)


def test_the_page_beside_the_tables_is_of_today(claims: list[ListedClaim]) -> None:
    page = to_page(claims)
    assert (RESULTS / "README.md").read_text() == f"{page}\n", "harness claims --markdown > results/README.md"
    assert re.search(r"^69 claims: \d+ supported", page, re.MULTILINE)


def test_all_shipped_claims_are_listed_trained_or_not(claims: list[ListedClaim]) -> None:
    text = describe_claims(claims)
    specs = [load_spec(path) for path in list_experiments().values()]
    stated = [claim for spec in specs for claim in spec.claims]
    assert {claim.kind for claim in stated} == set(CLAIMS)
    assert all(claim.source for claim in stated)
    assert all(re.search(rf"^{spec.name} ", text, re.MULTILINE) for spec in specs if spec.claims)
    assert f"\n{len(stated)} claims: " in text
    (counted,) = re.findall(r"^\d+ claims: (.*)$", text, re.MULTILINE)
    assert sum(map(int, re.findall(r"\d+", counted))) == len(stated)


def test_under_another_recipe_the_same_claims_are_not_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claims = json.loads(run(capsys, tmp_path, "table1", "--recipe", "smoke", "--json"))["claims"]
    assert {claim["verdict"] for claim in claims} == {"not trained"}


def test_runs_of_older_code_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "laptop" / "runs"
    folder.mkdir(parents=True)
    shutil.copy(RESULTS / "laptop" / "runs" / "figure2.jsonl", folder)
    path = folder / "figure2.jsonl"
    path.write_text(re.sub(r'("(?:attested_code|code_digest)": )"\w+"', r'\1"c0de"', path.read_text()))
    tracker = MlflowTracker(f"sqlite:///{tmp_path / 'mlflow.db'}")
    claims = list_claims(tracker, [Path("figure2")], results=tmp_path)
    assert all(claim.is_older for claim in claims)
    assert describe_claims(claims).endswith("by runs of older code or data: figure2 laptop")


def test_an_experiment_without_claims_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, tmp_path, "eq4_factorial") == "no claim is stated in these experiments\n"


def test_a_mistake_in_a_file_is_an_error(tmp_path: Path) -> None:
    tracker = MlflowTracker(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with pytest.raises(SpecError, match="did you mean 'table1'"):
        list_claims(tracker, [Path("tabl1")], results=tmp_path)


def test_a_claim_of_one_seed_is_counted_without_verdict() -> None:
    claim = ListedClaim("mine", "smoke", "A better than B", "", "", "Δ +1.00, n = 1", is_older=False)
    text = describe_claims([claim])
    assert re.search(r"^mine +A better than B +— +Δ \+1.00, n = 1$", text, re.MULTILINE)
    assert text.endswith("1 claim: 1 without verdict")
