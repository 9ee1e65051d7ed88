"""The experiment runner: spec → plan → run → record → table.

What a script or a notebook uses stands here and is loaded when it is first used, so that `import harness` costs
nothing: `load_spec` reads an experiment, `run` trains what is missing of it and returns its table, `read_records` its
runs, `compare` the differences between rows that they prove; `load_plugins` makes levels of one's own known.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.errors import HarnessError
    from harness.execution.library import compare, read_records, run
    from harness.plugins import load_plugins
    from harness.reading import load_spec

_HOME = {
    "HarnessError": "harness.errors",
    "load_plugins": "harness.plugins",
    "load_spec": "harness.reading",
    "read_records": "harness.execution.library",
    "compare": "harness.execution.library",
    "run": "harness.execution.library",
}

__all__ = ["HarnessError", "compare", "load_plugins", "load_spec", "read_records", "run"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
