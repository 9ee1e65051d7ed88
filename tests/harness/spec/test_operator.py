from harness.spec import OperatorSpec


def test_stated_is_what_stands_there_of_the_operator() -> None:
    spec = OperatorSpec(preset="net7", parameterization=("query_key",), kernel_size=(3, 5), heads="2x")
    assert spec.stated() == {"parameterization": ("query_key",), "kernel_size": (3, 5)}
