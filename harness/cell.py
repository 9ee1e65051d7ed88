"""The cell: one full combination of levels; its content and its id."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, TypeVar

from pydantic import ValidationError

from harness.document import describe_mistake
from harness.initial import Initial, make_initial
from harness.spec import DataSpec, FrameworkSpec, Spec, TrainingSpec, find_framework, find_sizes
from paradigms.config import CORE, TERMS, AttentionConfig, make_config
from paradigms.facts import FIELDS

Model = TypeVar("Model", bound=Spec)

FACTORS = ("backbone", "parameterization", "normalization", "neighborhood", "aggregation", "heads")
"""The factors that `Cell.factors` gives a level of."""

ALL = "all"
"""What `Cell.terms` has for a term of every stage."""

CONTENT = ("backbone", "sizes", "attention", "num_heads", "data", "training")
"""The keys that every cell has as a dict; `init_from` and `framework` may be missing."""

RESOLVED = {"num_heads", "window_size", "initialization"}
"""Sizes of a backbone that the operator and the heads of a cell already say."""

WITHOUT_EFFECT = {"loading_workers"}
"""Fields of the data that change no number."""


@dataclass(frozen=True)
class Cell:
    """One full combination of levels: operator × backbone × data × recipe; known by its content alone.

    Attributes:
        backbone: a level's name, or `linear` / `mlp` for a floor.
        sizes: the backbone's sizes under the recipe.
        attention: the operator of each stage, None where timm's own attention stands; empty for a floor.
        num_heads: of each stage; empty for a floor.
        init_from: where the weights start; None: from scratch.
        framework: what the task puts on the backbone; None: the backbone's own head, or none.
    """

    backbone: str
    sizes: Spec
    attention: tuple[AttentionConfig | None, ...]
    num_heads: tuple[int, ...]
    data: DataSpec
    training: TrainingSpec
    init_from: Initial | None = None
    framework: FrameworkSpec | None = None

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits of the content: whatever resolves to the same cell has the same id."""
        content = json.dumps(self.to_identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def to_canonical(self) -> dict[str, Any]:
        """The content in JSON's types, less what is at its default and what has no effect."""
        stages = [None if config is None else config.to_canonical() for config in self.attention]
        shared = all(stage == stages[0] for stage in stages)
        return {
            "backbone": self.backbone,
            "sizes": _to_stated(self.sizes, RESOLVED),
            "attention": stages[:1] if shared else stages,
            "num_heads": list(self.num_heads),
            "data": _to_stated(self.data, WITHOUT_EFFECT),
            "training": _to_stated(self.training, set()),
            **({} if self.init_from is None else {"init_from": self.init_from.identity}),
            **self._name_framework(_to_stated),
        }

    def to_identity(self) -> dict[str, Any]:
        """`to_canonical` in the words of the first version, which ids are made of: what it was called then stays.

        Terms are sorted, and float16 is `amp`, which it was on a GPU.
        """
        content = self.to_canonical()
        for stage in content["attention"]:
            if stage is not None and "parameterization" in stage:
                stage["parameterization"] = sorted(stage["parameterization"])
        if self.training.precision == "float16":
            del content["training"]["precision"]
            content["training"]["amp"] = True
        return content

    def to_dict(self) -> dict[str, Any]:
        """The content in JSON's types, defaults written out: what `config.json` of a run says of its cell.

        Of an operator's fields those of levels that it does not have are left out.
        """
        return {
            "backbone": self.backbone,
            "sizes": self.sizes.model_dump(mode="json"),
            "attention": [None if config is None else _to_plain(config) for config in self.attention],
            "num_heads": list(self.num_heads),
            "data": self.data.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
            "init_from": None if self.init_from is None else asdict(self.init_from),
            **self._name_framework(lambda sizes, _: sizes.model_dump(mode="json")),
        }

    def _name_framework(self, to_sizes: Callable[[Spec, set[str]], dict[str, Any]]) -> dict[str, Any]:
        """The key of the framework, where there is one."""
        if self.framework is None:
            return {}
        return {"framework": {"name": self.framework.family, "sizes": to_sizes(self.framework, set())}}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Cell":
        """The cell that `to_dict` gave; what an older version did not write has its default, other keys are ignored.

        Raises:
            ValueError: a key is missing, or a level, a field or a value is unknown, as without the plug-in that has it.
        """
        missing = [key for key in CONTENT if key not in content]
        if missing:
            raise ValueError(f"a cell needs {', '.join(missing)}")
        backbone, initial, framework = content["backbone"], content.get("init_from"), content.get("framework")
        return cls(
            backbone=backbone,
            sizes=_read(find_sizes(backbone), content, "sizes"),
            attention=tuple(None if stage is None else make_config(stage) for stage in content["attention"]),
            num_heads=tuple(content["num_heads"]),
            data=_read(DataSpec, content, "data"),
            training=_read(TrainingSpec, {"training": _rename_precision(content["training"])}, "training"),
            init_from=None if initial is None else make_initial(initial),
            framework=None if framework is None else _read(find_framework(framework["name"]), framework, "sizes"),
        )

    def levels(self) -> frozenset[str]:
        """Every level that the cell names: of its operators, its backbone, its dataset, its task."""
        named = frozenset({self.backbone, self.data.name, self.data.task})
        named |= frozenset() if self.framework is None else {self.framework.family}
        return named.union(*(config.levels() for config in self.operators()))

    def operators(self) -> tuple[AttentionConfig, ...]:
        """The operators of the stages that have one."""
        return tuple(config for config in self.attention if config is not None)

    def factors(self) -> dict[str, str]:
        """The level of each factor as people read it; empty where the cell has no operator."""
        return {
            "backbone": self.backbone,
            "parameterization": _join_stages([" + ".join(config.parameterization) for config in self.operators()]),
            "normalization": _join_stages([config.normalization for config in self.operators()]),
            "neighborhood": _join_stages([config.neighborhood for config in self.operators()]),
            "aggregation": _join_stages([config.aggregation for config in self.operators()]),
            "heads": ", ".join(str(heads) for heads in self.num_heads),
        }

    def terms(self) -> dict[str, str]:
        """Where each term of Eq. 4 is part of the logits: `all` stages, some (`1, 3`) or none (empty).

        `other` is the parameterization of the stages that have none of them, with their numbers unless it is of all.
        """
        operators = self.operators()
        stages = {
            term: [n for n, config in enumerate(operators, start=1) if term in config.parameterization]
            for term in TERMS
        }
        names = [
            "" if set(config.parameterization) & set(TERMS) else config.parameterization[0] for config in operators
        ]
        other = {name: [n for n, own in enumerate(names, start=1) if own == name] for name in names if name}
        labels = {name: _format_stages(found, len(operators)) for name, found in {**stages, **other}.items()}
        shown = (name if labels[name] == ALL else f"{name} ({labels[name]})" for name in other)
        return {**{term: labels[term] for term in TERMS}, "other": ", ".join(shown)}


def _join_stages(levels: Sequence[str]) -> str:
    """One level where all stages agree, else each with its stages: `sliding_window (1-3), local_window (4)`."""
    if len(set(levels)) <= 1:
        return "".join(levels[:1])
    parts, first = [], 1
    for level, group in groupby(levels):
        last = first + len(list(group)) - 1
        parts.append(f"{level} ({first})" if first == last else f"{level} ({first}-{last})")
        first = last + 1
    return ", ".join(parts)


def _format_stages(stages: Sequence[int], total: int) -> str:
    return ALL if stages and len(stages) == total else ", ".join(map(str, stages))


def _to_plain(config: AttentionConfig) -> dict[str, Any]:
    """An operator's values in JSON's types, those of fields that it reads or that are not at their default."""
    read = config.read_fields()
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in config.to_dict().items()
        if name in CORE or name in read or value != FIELDS[name].default
    }


def _read(model: type[Model], content: Mapping[str, Any], key: str) -> Model:
    """The part of a cell at `key`; lists stand for tuples."""
    try:
        return model.model_validate(content[key], strict=False)
    except ValidationError as error:
        detail = error.errors()[0]
    raise ValueError(f"{'.'.join(map(str, (key, *detail['loc'])))}: {describe_mistake(detail)}")


def _rename_precision(training: Mapping[str, Any]) -> dict[str, Any]:
    """`amp` of an earlier version, which was float16 on a GPU, by its name of today."""
    renamed = {name: value for name, value in training.items() if name != "amp"}
    return {**renamed, "precision": "float16"} if training.get("amp") else renamed


def _to_stated(spec: Spec, ignored: set[str]) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude_defaults=True, exclude=ignored)
