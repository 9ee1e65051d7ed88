"""Where runs execute. A new engine is one file, one entry here and one subclass of the contract test."""

from collections.abc import Callable

from harness.engines.engine import Engine
from harness.engines.local import LocalEngine

ENGINES: dict[str, Callable[..., Engine]] = {"local": LocalEngine}
