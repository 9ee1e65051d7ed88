import pytest

from harness.rows import MAX_PRODUCT, SUBSETS, list_rows
from harness.spec import FactorsSpec, RowSpec
from paradigms.facts import NEIGHBORHOODS, NORMALIZATIONS, PARAMETERIZATIONS


def make(spec, **factors):
    return spec.model_copy(update={"factors": FactorsSpec(**factors)})


def test_factors_make_every_combination_after_the_stated_rows(small_spec):
    spec = make(
        small_spec,
        parameterization=(("query_key",), ("query_key", "position_bias")),
        normalization=("softmax", "identity"),
    )
    assert list(list_rows(spec)) == [
        "Swin-T",
        "Net1",
        "Net7-N",
        "query_key, softmax",
        "query_key, identity",
        "query_key+position_bias, softmax",
        "query_key+position_bias, identity",
    ]
    assert list_rows(spec)["query_key, identity"] == RowSpec(parameterization=("query_key",), normalization="identity")


def test_subsets_are_all_fifteen_sets_of_terms(small_spec):
    rows = list_rows(make(small_spec.model_copy(update={"rows": {}}), parameterization="subsets"))
    assert len(rows) == len({frozenset(row.parameterization) for row in rows.values()}) == 15
    assert SUBSETS[0] == ("query_key",)
    assert len(SUBSETS[-1]) == 4


def test_an_experiment_without_factors_has_its_stated_rows(small_spec):
    assert list_rows(small_spec) == small_spec.rows


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        pytest.param({"normalization": ("softmax", "softmax")}, "a level occurs twice in normalization", id="twice"),
        pytest.param(
            {"parameterization": (("query_key", "position_bias"), ("position_bias", "query_key"))},
            "a level occurs twice in parameterization",
            id="the same terms in another order",
        ),
        pytest.param(
            {
                "parameterization": (*SUBSETS, *((name,) for name in PARAMETERIZATIONS if (name,) not in SUBSETS)),
                "normalization": tuple(NORMALIZATIONS),
                "neighborhood": tuple(NEIGHBORHOODS),
                "aggregation": ("weighted_sum", "ghost_head"),
            },
            f"rows, more than {MAX_PRODUCT}",
            id="too many",
        ),
    ],
)
def test_impossible_factors_are_told(small_spec, factors, message):
    with pytest.raises(ValueError, match=message):
        list_rows(make(small_spec, **factors))


def test_a_stated_row_cannot_have_the_name_of_a_combination(small_spec):
    taken = small_spec.model_copy(update={"rows": {"softmax": RowSpec()}})
    with pytest.raises(ValueError, match="a row of factors has the name of a stated row: 'softmax'"):
        list_rows(make(taken, normalization=("softmax",)))


def test_an_experiment_without_any_row_is_told(small_spec):
    with pytest.raises(ValueError, match="an experiment needs rows or factors"):
        list_rows(small_spec.model_copy(update={"rows": {}}))
