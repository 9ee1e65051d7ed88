"""What makes a record stale is what code computes, not its text: edits of the sources, by hand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.edits.changing import CHANGING
from tests.edits.copies import Edit, Server, copy_sources, edited
from tests.edits.harmless import HARMLESS

pytestmark = pytest.mark.slow

ALL = [
    "data.train_images=330",  # no multiple of the batch
    "training.epochs=3",
    "training.cooldown_epochs=1",
    "training.warmup_epochs=0.5",
    "training.warmup_lr=1e-4",
    "training.lr_base_size=32",
    "training.clip_grad=0.5",
    "training.smoothing=0.1",
    "training.ema_decay=0.5",
    "training.augmentation={hflip: 0.5, shift: 2, reprob: 0.5}",
    "backbones.swin.drop_path_rate=0.2",
    "backbones.swin.num_heads=[2, 4]",
]
"""So much that a run is longer than its rehearsal."""

HADAMARD = "rows.ELSA={stages: {not_last: {preset: elsa, parameterization: [hadamard]}}}"
MIXED = "training.augmentation={hflip: 0.5, mixup: 0.8, cutmix: 1.0}"

CELLS: dict[str, dict[str, Any]] = {
    "window": {"experiment": "table1", "row": "Net7", "overrides": ALL},
    "sliding": {"experiment": "table4", "row": "ELSA", "overrides": [*ALL, HADAMARD, MIXED]},
    "filter_norm": {"experiment": "table2", "row": "filter_norm", "overrides": [*ALL, "training.opt=adamw"]},
}
"""A row under `smoke`, by the name that edits have for it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("copy")
    copy_sources(folder)
    return folder


@pytest.fixture(scope="module")
def before(server: Server, copy: Path) -> dict[str, dict[str, str]]:
    """What each cell computes by the sources as they are, the same twice."""
    first, second = (dict(zip(CELLS, server.rehearse(copy, *CELLS.values()), strict=True)) for _ in range(2))
    assert first == second
    assert {made["ended"] for made in first.values()} == {"ok"}
    return first


def rehearse(server: Server, copy: Path, edit: Edit) -> dict[str, str]:
    with edited(copy, edit.changes):
        return server.rehearse(copy, CELLS[edit.cell])[0]


@pytest.mark.parametrize("edit", HARMLESS, ids=lambda edit: edit.name)
def test_an_edit_that_changes_no_number_leaves_the_trace(
    server: Server, copy: Path, before: dict[str, dict[str, str]], edit: Edit
) -> None:
    made, known = rehearse(server, copy, edit), before[edit.cell]
    assert made["ended"] == "ok"
    assert made["trace"] == known["trace"]
    assert (made["code"] != known["code"]) == edit.is_in_digest


@pytest.mark.parametrize("edit", CHANGING, ids=lambda edit: edit.name)
def test_an_edit_that_changes_numbers_is_detected(
    server: Server, copy: Path, before: dict[str, dict[str, str]], edit: Edit
) -> None:
    made, known = rehearse(server, copy, edit), before[edit.cell]
    assert made["ended"] == "ok"
    assert made["trace"] != known["trace"]
    assert made["code"] != known["code"]
