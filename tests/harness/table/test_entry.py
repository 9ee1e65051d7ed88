import pytest

from harness.plan import make_plan
from harness.report.summary import to_notes
from harness.spec import PublishedSpec
from harness.table.results import make_results

PAPER = "arXiv:2112.12786v1"


@pytest.mark.parametrize(
    ("printed", "recipe", "overrides", "replication"),
    [
        pytest.param({"top1": 83.3}, PAPER, (), "as published", id="within the spread"),
        pytest.param({"top1": 80.1}, PAPER, (), "differs", id="beyond it"),
        pytest.param({"top1": 83.3}, None, (), "not comparable: another recipe", id="recipe"),
        pytest.param({"top1": 83.3}, PAPER, ("seeds=3",), "not comparable: a changed recipe", id="overrides"),
        pytest.param(
            {"top1": 83.3, "quoted": True}, PAPER, (), "not comparable: quoted from another paper", id="quoted"
        ),
        pytest.param(
            {"top1": 83.3, "params": 0.1}, PAPER, (), "not comparable: 1.37 times as many parameters", id="size"
        ),
    ],
)
def test_a_printed_score_is_compared_with_where_one_more_run_is_expected(
    small_spec, records, printed, recipe, overrides, replication
):
    paper = small_spec.recipe.model_copy(update={"paper": recipe})
    published = {"Net1": PublishedSpec.model_validate(printed)}
    update = {"recipe": paper, "published": published, "overrides": overrides}
    results = make_results(make_plan(small_spec.model_copy(update=update)), records)
    frame = results.frame.set_index("row")
    assert frame.loc["Net1", "replication"] == replication
    assert not frame.loc["Swin-T", "replication"]
    assert ("**as printed?**" in "".join(to_notes(results))) == (not replication.startswith("not"))
