"""Adds custom levels to the rooms and checks what they must have.

A custom level is a class that implements the protocol of its room, like the levels of this package. Importing this
module has no effects.
"""

from dataclasses import dataclass, replace
from typing import Any

from paradigms.aggregation import AGGREGATIONS
from paradigms.aggregation.level import Aggregation
from paradigms.backbones import BACKBONES, OperatorStages
from paradigms.config import BACKBONES as BACKBONE_NAMES
from paradigms.facts import Facts, add_facts, unknown_name
from paradigms.neighborhood import NEIGHBORHOODS, Neighborhood
from paradigms.normalization import NORMALIZATIONS, Normalization
from paradigms.parameterization import PARAMETERIZATIONS
from paradigms.parameterization.level import Parameterization


@dataclass(frozen=True)
class Room:
    """A room and the requirements on its levels.

    Attributes:
        mapping: the mapping of the room.
        needs: names that a level must define.
    """

    mapping: dict[str, Any]
    needs: tuple[str, ...]


def list_needs(protocol: type) -> tuple[str, ...]:
    """The names of a protocol that the class of a level must define; properties may be attributes of its instances."""
    stated = {**protocol.__annotations__, **vars(protocol)}
    return tuple(name for name, value in stated.items() if name[0] != "_" and not isinstance(value, property))


ROOMS: dict[str, Room] = {
    "parameterization": Room(PARAMETERIZATIONS, list_needs(Parameterization)),
    "normalization": Room(NORMALIZATIONS, ("kind", *list_needs(Normalization))),
    "neighborhood": Room(NEIGHBORHOODS, ("facts", *list_needs(Neighborhood))),
    "aggregation": Room(AGGREGATIONS, list_needs(Aggregation)),
    "backbone": Room(BACKBONES, list_needs(OperatorStages)),
}


OF_SUBCLASSES = ("num_stages", "list_blocks", "get_map_size")
"""Names that a backbone has to define itself."""


def add_level(room: str, name: str, level: Any) -> None:
    """Add a custom level to its room. Experiments and configs can use its name afterwards.

    The level declares its properties as attributes:

    * `kind` of a normalization is its name; kernels are chosen by it.
    * `facts` of a neighborhood are its `NeighborhoodFacts`.
    * `centred_borders` of a parameterization or aggregation states that it needs the taps around each query of a
      sliding window, and the borders that it supports.
    * `minimum_taps` is the number of taps that it needs.
    * `fields` maps names of its own fields to `paradigms.facts.Field`. Configs take them, and `from_config` reads them.

    A backbone becomes `attention_<name>` of `timm.create_model`.

    Raises:
        ValueError: the room is unknown, the name exists already, or the level lacks a required attribute.
    """
    if room not in ROOMS:
        raise ValueError(unknown_name("room", room, tuple(ROOMS)))
    taken = ROOMS[room].mapping
    if name in taken and taken[name] is level:
        return
    if name in taken:
        raise ValueError(f"{room} {name!r} exists already; choose another name")
    check_needs(f"{room} {name!r}", level, ROOMS[room].needs)
    _check_callable(f"{room} {name!r}", level)
    if room == "normalization" and level.kind != name:
        raise ValueError(f"the kind of normalization {name!r} must be its name, got {level.kind!r}")
    if room == "backbone":
        from paradigms.models import add_backbone  # registers all names in timm

        BACKBONE_NAMES.append(name)
        add_backbone(name)
    else:
        add_facts(room, name, level.facts if room == "neighborhood" else _make_facts(room, level))
    taken[name] = level


def check_needs(title: str, level: object, needs: tuple[str, ...]) -> None:
    """Raise ValueError with all names that a level lacks."""
    missing = [need for need in needs if not hasattr(level, need)]
    missing += [name for name in OF_SUBCLASSES if getattr(level, name, None) is getattr(OperatorStages, name)]
    if missing:
        raise ValueError(f"{title} has no {', '.join(missing)}, which every level of its kind has")


def _check_callable(title: str, level: object) -> None:
    if not callable(level):
        raise ValueError(f"{title} must be a class, got {level!r}")


def _make_facts(room: str, level: Any) -> Facts:
    """The facts that the class of a parameterization, normalization or aggregation declares."""
    names = ("fields", "minimum_taps", "centred_borders", *(["scores"] if room == "parameterization" else []))
    facts = Facts(**{name: getattr(level, name) for name in names if hasattr(level, name)})
    if room == "aggregation" and isinstance(level.kind, str):  # it is a property if it depends on the config
        return replace(facts, get_kind=lambda _config: level.kind)
    return facts
