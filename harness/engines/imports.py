"""Checks that a worker imports the code that its caller has digested."""

import importlib.util
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec

from harness.errors import EngineError
from harness.provenance import PACKAGES, collect_versions, fingerprint_code

MODULES = ("harness", "paradigms", "PIL", *PACKAGES)
"""What decides the numbers of a run."""


@dataclass(frozen=True)
class Imports:
    """Where a process finds each of `MODULES`, the versions of the packages, and a fingerprint of our own sources."""

    host: str
    places: dict[str, str]
    versions: dict[str, str]
    sources: str

    @classmethod
    def here(cls) -> "Imports":
        """Those of this process at this moment."""
        places = {name: _locate(name) for name in MODULES}
        return cls(socket.gethostname(), places, collect_versions(), fingerprint_code())

    def check(self) -> None:
        """Compare with those of the process that has digested the code; places on the same host alone.

        Raises:
            EngineError: this process would execute other code.
        """
        here = Imports.here()
        for name, place in self.places.items() if here.host == self.host else ():
            if here.places[name] != place:
                raise EngineError(
                    f"workers would import {name} from {here.places[name]}, but this command imported it from {place}: "
                    "start it from another folder, without PYTHONPATH"
                )
        for name, version in self.versions.items():
            if here.versions[name] != version:
                raise EngineError(
                    f"{here.host} has {name} {here.versions[name]}, but this command has {version}: "
                    "install the same versions there"
                )
        if here.sources != self.sources:
            raise EngineError(
                "harness or paradigms were edited while the workers started: start the command again"
                if here.host == self.host
                else f"{here.host} has another version of harness or paradigms than this command: install it there"
            )


def list_import_path() -> list[str]:
    """The folders in which this process looks for modules, where '' is the working directory."""
    return list(dict.fromkeys(entry or os.getcwd() for entry in sys.path))  # noqa: PTH109 - entries are strings


def _locate(name: str) -> str:
    """The file of a module, or the folder of one that has no file; without importing it."""
    return next(_list_places(name), "nowhere")


def _list_places(name: str) -> Iterator[str]:
    spec: ModuleSpec | None = None
    with suppress(ValueError):  # a module that somebody has put together by hand has no spec
        spec = importlib.util.find_spec(name)
    if spec is not None:
        yield from (
            os.path.realpath(place) for place in (spec.origin, *(spec.submodule_search_locations or ())) if place
        )
