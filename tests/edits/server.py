"""Rehearses cells by copies of the sources: a process forked for each copy imports it, and nothing else is imported.

Reads requests from standard input and writes answers to standard output, both JSON, one a line.
"""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

PRELOADED = (
    "jaxtyping",
    "pandas",
    "psutil",
    "pyarrow",
    "pydantic",
    "ruamel.yaml",
    "scipy.special",
    "tabulate",
    "timm.data.random_erasing",
    "timm.models",
    "timm.optim",
    "timm.scheduler",
    "timm.task",
    "torch.utils.flop_counter",
)
"""What the sources import of others."""


def serve(requests: TextIO, answers: TextIO) -> None:
    for module in PRELOADED:
        importlib.import_module(module)
    for request in requests:
        child = os.fork()
        if not child:
            _answer(json.loads(request), answers)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            _write(answers, {"error": f"the process ended with status {status}"})


def _answer(request: dict[str, Any], answers: TextIO) -> None:
    try:
        answer: dict[str, Any] = {"cells": [rehearse(request["root"], **cell) for cell in request["cells"]]}
    except Exception:  # noqa: BLE001 - the test that has asked reports it
        answer = {"error": traceback.format_exc()}
    _write(answers, answer)


def _write(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def rehearse(root: str, experiment: str, row: str, overrides: list[str]) -> dict[str, str]:
    """How a row's rehearsal ended, the digest of its trace, and that of the code."""
    if sys.path[0] != root:
        sys.path.insert(0, root)
    import torch

    import harness
    from harness.execution.context import RunContext
    from harness.execution.ledger import Digester
    from harness.execution.rehearse import rehearse_cell
    from harness.plan import PlannedRun, find_row, make_plan
    from harness.provenance import collect
    from harness.reading import load_spec
    from harness.tracking import MlflowTracker

    assert Path(str(harness.__file__)).is_relative_to(root)
    torch.set_num_threads(1)
    plan = make_plan(load_spec(Path(root, "experiments", f"{experiment}.yaml"), recipe="smoke", overrides=overrides))
    found = find_row(plan, row)
    code, data = Digester(None).digest(found.cell)
    provenance = {**collect(threads=1), "code_digest": code, "data_digest": data}
    context = RunContext(MlflowTracker("sqlite:///unused.db"), plan.spec, "", provenance, data_dir=None, threads=1)
    made = rehearse_cell(lambda _: None, PlannedRun(found, 0), context)
    return {"ended": f"{made.status} {made.detail}".strip(), "trace": made.digest, "code": made.code_digest}


if __name__ == "__main__":
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    serve(sys.stdin, answers)
