"""`harness claims`: the paper's claims in checkable form, with the verdicts of the runs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from harness.attestation import Digests
from harness.errors import DataError
from harness.execution.adoption import gather_records
from harness.execution.ledger import Digester
from harness.execution.plan import judge_records
from harness.plan import Plan, make_plan
from harness.reading import list_experiments, load_spec
from harness.record import Record
from harness.report.markdown import to_markdown_table
from harness.statistics import ClaimVerdict
from harness.table.column import Text, to_rows
from harness.text import NOTHING, count_noun, to_line
from harness.tracking import Tracker

_WIDTHS = {"experiment": None, "claim": 34, "source": 16, "verdict": 11, "evidence": 40}
"""Widths of the columns in characters; longer texts are broken into lines, except names of experiments."""


WITHOUT = "without verdict"

PAGE = """\
# The paper's claims

Whether each claim of the paper holds for models as small as those trained here (recipe: {recipes}). Such a model can
refute a claim at its own size, but not on ImageNet. Claims of experiments that have no runs beside their table are
`not trained`. `harness claims --markdown` makes this page; docs/statistics.md says how claims are tested.

{counted}

{table}"""


@dataclass(frozen=True)
class ListedClaim:
    """A claim with the verdict of the runs of its experiment.

    Attributes:
        verdict: one of `ClaimVerdict`; empty if there is only one seed.
        evidence: the numbers behind the verdict, or why there is no verdict.
        is_older: whether runs of the experiment used older code or data.
    """

    experiment: str
    recipe: str
    claim: str
    source: str
    verdict: str
    evidence: str
    is_older: bool


def list_claims(
    tracker: Tracker,
    paths: Sequence[Path] = (),
    *,
    results: Path,
    recipe: str | None = None,
    data_dir: Path | None = None,
) -> list[ListedClaim]:
    """The claims of experiments, judged by the store and by the record files beside the tables; stores nothing.

    Args:
        tracker: the store of runs.
        paths: files or names of experiments; if empty, all shipped experiments.
        results: the folder of the tables.
        recipe: replaces the recipe of each experiment.
        data_dir: the folder of datasets that do not ship with the package. If they are missing, stale runs cannot be
            identified.

    Raises:
        SpecError: a mistake in an experiment.
        StoreError: the store or a record file cannot be read.
    """
    specs = [load_spec(path, recipe=recipe) for path in paths or map(Path, list_experiments())]
    digester = Digester(data_dir)
    return [
        claim for spec in specs if spec.claims for claim in _judge_claims(make_plan(spec), tracker, results, digester)
    ]


def _judge_claims(plan: Plan, tracker: Tracker, results: Path, digester: Digester) -> list[ListedClaim]:
    records = gather_records(plan, tracker, results)
    digests = _find_digests(plan, records, digester)
    made = judge_records(plan, tracker, records, digests)
    is_older = bool(made.undecided) or any(row.is_stale for row in made.replicates.values())
    return [
        ListedClaim(
            plan.spec.name,
            plan.spec.recipe.name,
            row["claim"],
            row["source"] or "",
            str(row["verdict"]),
            row["evidence"],
            is_older,
        )
        for row in to_rows(made.findings.claims.frame)
    ]


def _find_digests(plan: Plan, records: Iterable[Record], digester: Digester) -> dict[str, Digests]:
    """The digests of the cells that have runs: only these can be stale."""
    trained = {record.cell_id for record in records}
    try:
        return digester.digest_all(row.cell for row in plan.rows if row.cell.id in trained)
    except DataError:
        return {}


def describe_claims(claims: Sequence[ListedClaim]) -> str:
    """A table for a terminal, the number of claims by verdict, and the experiments with older code or data."""
    if not claims:
        return "no claim is stated in these experiments"
    cells = [[to_line(cell) for cell in line] for line in _list_lines(claims)]
    table = tabulate(cells, list(_WIDTHS), disable_numparse=True, maxcolwidths=list(_WIDTHS.values()))
    older = dict.fromkeys(f"{claim.experiment} {claim.recipe}" for claim in claims if claim.is_older)
    notes = [f"by runs of older code or data: {', '.join(map(to_line, older))}"] if older else []
    return "\n\n".join([table, "\n".join([_count(claims), *notes])])


def to_page(claims: Sequence[ListedClaim]) -> str:
    """The same as a page in Markdown, which does not depend on the present code."""
    recipes = ", ".join(dict.fromkeys(claim.recipe for claim in claims))
    lines = [[Text(cell) for cell in line] for line in _list_lines(claims)]
    return PAGE.format(counted=_count(claims), recipes=recipes, table=to_markdown_table(list(_WIDTHS), lines))


def _list_lines(claims: Sequence[ListedClaim]) -> list[list[str]]:
    """The cells of a table; only the first claim of an experiment has its name."""
    lines, shown = [], set[str]()
    for claim in claims:
        name = "" if claim.experiment in shown else claim.experiment
        shown.add(claim.experiment)
        lines.append([name, claim.claim, claim.source, claim.verdict or NOTHING, claim.evidence])
    return lines


def _count(claims: Sequence[ListedClaim]) -> str:
    counts = Counter(claim.verdict or WITHOUT for claim in claims)
    counted = ", ".join(f"{counts[verdict]} {verdict}" for verdict in [*ClaimVerdict, WITHOUT] if counts[verdict])
    return f"{count_noun(len(claims), 'claim')}: {counted}"
