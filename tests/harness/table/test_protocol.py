"""Rules that were changed after data had been seen."""

from dataclasses import replace

import pytest

from harness.report.summary import to_notes
from harness.spec import BetterSpec
from harness.table.protocol import PROTOCOL, find_changes, to_protocol
from harness.table.results import make_results


@pytest.fixture
def make_runs(records):
    """The records of an experiment that trained them."""

    def make(spec):
        return [
            replace(record, provenance={**record.provenance, PROTOCOL: to_protocol(spec)}, end_time=float(number))
            for number, record in enumerate(records)
        ]

    return make


@pytest.mark.parametrize(
    ("update", "changes"),
    [
        pytest.param({}, (), id="nothing"),
        pytest.param({"title": "Another title"}, (), id="a title is no rule"),
        pytest.param({"seeds": 5}, ("seeds 3, now 5",), id="more seeds"),
        pytest.param({"margin": 0.5}, ("margin 0.2, now 0.5",), id="margin"),
        pytest.param({"measure": "top5"}, ("measure top1, now top5",), id="measure"),
        pytest.param({"claims": (BetterSpec(better=("Net1", "Swin-T")),)}, ("claims",), id="claims"),
        pytest.param({"until_resolved": 12}, (), id="seeds until resolved have levels of their own"),
        pytest.param({"name": "other", "margin": 0.5}, (), id="runs of another experiment"),
        pytest.param({"margin": 0.5, "seeds": 2}, ("margin 0.2, now 0.5", "seeds 3, now 2"), id="two"),
    ],
)
def test_what_was_changed_after_the_first_run_is_named(small_spec, make_runs, update, changes):
    assert find_changes(small_spec.model_copy(update=update), make_runs(small_spec)) == changes


def test_a_rule_that_adds_seeds_may_not_change(small_spec, make_runs):
    ruled = small_spec.model_copy(update={"until_resolved": 7})
    longer = ruled.model_copy(update={"until_resolved": 12})
    assert find_changes(longer, make_runs(ruled)) == ("seeds until resolved, at most 7, now 12",)
    assert find_changes(small_spec, make_runs(ruled)) == ("seeds until resolved, at most 7, now none",)


def test_the_first_run_counts_and_runs_without_a_protocol_tell_nothing(small_spec, make_runs, records):
    first, *others = make_runs(small_spec)
    later = [replace(run, end_time=9.0) for run in make_runs(small_spec.model_copy(update={"margin": 0.5}))]
    assert find_changes(small_spec, [*later, *others, first]) == ()
    assert find_changes(small_spec.model_copy(update={"margin": 0.7}), records) == ()


def test_a_first_look_with_fewer_seeds_than_the_file_states_is_no_change(small_spec, make_runs):
    trial = small_spec.model_copy(update={"seeds": 1, "overrides": ("seeds=1",)})
    assert find_changes(small_spec, make_runs(trial)) == ()
    later = [replace(run, end_time=99.0) for run in make_runs(small_spec)]
    assert find_changes(small_spec.model_copy(update={"seeds": 5}), [*make_runs(trial), *later]) == ("seeds 3, now 5",)


def test_the_table_says_what_was_changed(small_plan, make_runs):
    runs = make_runs(small_plan.spec.model_copy(update={"margin": 0.5}))
    assert "**Changed after the first of these runs**: margin 0.5, now 0.2." in "".join(
        to_notes(make_results(small_plan, runs))
    )
    assert "Changed after" not in "".join(to_notes(make_results(small_plan, make_runs(small_plan.spec))))
