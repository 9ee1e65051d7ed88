"""The shape of a cell's model: its costs and stages. It is found once, since that takes torch, and kept in a file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from harness.cell import Cell
from harness.files import locate_cached, write_cached
from harness.provenance import code_digest, collect_versions
from harness.stages import StageInfo


@dataclass(frozen=True)
class Shape:
    """What the shapes of a cell's tensors tell.

    Attributes:
        params: the model's parameters.
        macs: multiply-adds an image.
        stages: those with an operator.
    """

    params: float
    macs: float
    stages: tuple[StageInfo, ...]


_ADAPTER = TypeAdapter(Shape)


def find_shapes(cells: Iterable[Cell], codes: Mapping[str, str]) -> dict[str, Shape]:
    """The shapes of cells by id; the digest of a cell's code is computed where it is not among `codes`."""
    return {cell.id: _find_shape(cell, codes.get(cell.id) or code_digest(cell)) for cell in cells}


def measure_shape(cell: Cell) -> Shape:
    """The shape of a cell, by a model without memory for its values."""
    from harness.build import describe_stages
    from harness.costs import measure_cost

    return Shape(**measure_cost(cell), stages=tuple(describe_stages(cell)))


def _find_shape(cell: Cell, code: str) -> Shape:
    path = locate_cached("shapes", [cell.id, code, collect_versions()])
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        shape = measure_shape(cell)
    write_cached(path, _ADAPTER.dump_json(shape))
    return shape
