import pytest

from harness.division import Division
from harness.environment import STEP, describe_step, is_same_environment, list_changes
from harness.spec import ExperimentSpec
from harness.trace import find_place


def test_a_run_of_one_process_states_nothing_new(small_spec: ExperimentSpec) -> None:
    assert describe_step(Division(), small_spec.recipe) == {}


def test_a_run_states_how_its_steps_are_computed(small_spec: ExperimentSpec) -> None:
    recipe = small_spec.recipe.model_copy(update={"compile": True, "channels_last": True})
    stated = describe_step(Division(2, 4), recipe)
    assert stated == {"processes": "2", "accumulation": "4", "compile": "yes", "channels_last": "yes"}
    assert find_place(stated) == stated


@pytest.mark.parametrize("name", STEP)
def test_what_is_not_stated_is_the_default(name: str) -> None:
    """Records of earlier versions are of one process."""
    assert list_changes({name: "3"}, {}) == list_changes({}, {name: "3"}) == [name]
    assert is_same_environment({name: STEP[name]}, {})
