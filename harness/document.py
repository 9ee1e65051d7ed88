"""A YAML file that knows its places: a mistake in it is told with file, line and key path.

YAML 1.2 by ruamel.yaml: `1e-3` is a number, `off` a string, a duplicate key an error.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from harness.errors import SpecError
from paradigms.config import unknown_name

Model = TypeVar("Model", bound=BaseModel)
Key = tuple[str | int, ...]

_EXPECTED = {
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "model_type": "must be a mapping",
    "string_type": "must be a text",
    "tuple_type": "must be a list",
}


@dataclass
class Document:
    """One file and the options that replace parts of it.

    Attributes:
        path: where it was read.
        root: its top-level mapping, which still knows its lines.
        replaced: the option that stands behind the value at a key.
    """

    path: Path
    root: CommentedMap
    replaced: dict[Key, str] = field(default_factory=dict)

    def replace(self, key: Key, value: object, *, option: str) -> None:
        """Put `value` at `key`, making the mappings on the way; mistakes there are told as those of `option`."""
        node = self.root
        for depth, part in enumerate(key[:-1], start=1):
            found = _find_key(node, part)
            if found not in node:
                node[found] = CommentedMap()
                self.replaced[key[:depth]] = option
            node = node[found]
            if not isinstance(node, CommentedMap):
                raise SpecError(f"{_to_text(key[:depth])} is not a mapping", key=option)
        node[_find_key(node, key[-1])] = value
        self.replaced[key] = option

    def to_plain(self) -> dict[str, Any]:
        """The content in Python's own types; lists as tuples."""
        plain: dict[str, Any] = _to_plain(self.root)
        return plain

    def error(self, message: str, *key: str | int) -> SpecError:
        """The mistake at `key`, with its place: an option, or file and line."""
        parts = tuple(str(part) for part in key)
        options = [replaced for replaced in self.replaced if parts[: len(replaced)] == replaced]
        if options:
            return SpecError(f"{_to_text(key)}: {message}", key=self.replaced[max(options, key=len)])
        return SpecError(message, path=self.path, line=self._find_line(key), key=_to_text(key))

    def validate(self, model: type[Model], **derived: object) -> Model:
        """Make a frozen model of the content and of `derived` fields, which a file cannot state.

        Raises:
            SpecError: all mistakes, one a line.
        """
        stated = [name for name in derived if name in self.root]
        known = tuple(name for name in model.model_fields if name not in derived)
        if stated:
            raise join_errors(self.error(unknown_name("key", name, known), name) for name in stated)
        try:
            return model.model_validate({**self.to_plain(), **derived})
        except ValidationError as error:
            details = error.errors()
        raise join_errors(self._explain(model, detail) for detail in details)

    def _explain(self, model: type[BaseModel], detail: ErrorDetails) -> SpecError:
        key = tuple(part for part in detail["loc"] if part != "[key]")
        if detail["type"] == "extra_forbidden":
            return self.error(unknown_name("key", key[-1], _known_keys(model, key[:-1])), *key)
        return self.error(_to_message(detail), *key)

    def _find_line(self, key: Key) -> int | None:
        node, line = self.root, None
        for part in key:
            if isinstance(node, CommentedMap):
                part = _find_key(node, part)  # noqa: PLW2901
            if not isinstance(node, CommentedMap | CommentedSeq) or part not in (node.lc.data or {}):
                break
            line = node.lc.data[part][0] + 1
            node = node[part]
        return line


def read_document(path: Path) -> Document:
    """Read a YAML file whose top level is a mapping.

    Raises:
        SpecError: it is not there, not YAML, or something else than a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError("no such file", path=path) from None
    except IsADirectoryError:
        raise SpecError("is a directory, not a YAML file", path=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot be read: {error}", path=path) from None
    try:
        root = YAML().load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise SpecError(_describe(error), path=path, line=mark and mark.line + 1) from None
    if not isinstance(root, CommentedMap):
        raise SpecError(f"the top level must be a mapping, got {_show(_to_plain(root))}", path=path)
    return Document(path, root)


def parse_override(pair: str) -> tuple[tuple[str, ...], Any]:
    """The key path and the value of `key.path=value`, the value read as YAML.

    Raises:
        SpecError: there is no key, no `=`, or no value that YAML understands.
    """
    name, equals, text = pair.partition("=")
    key = tuple(name.strip().split("."))
    if not equals or not all(key):
        raise SpecError("must look like key=value, for example training.lr=1e-3", key=f"--set {pair}")
    try:
        return key, YAML().load(text)
    except YAMLError as error:
        raise SpecError(f"the value is not YAML: {_describe(error)}", key=f"--set {pair}") from None


def join_errors(errors: Iterable[SpecError]) -> SpecError:
    """Several mistakes as one, each on its line."""
    return SpecError("\n".join(str(error) for error in errors))


def _find_key(node: CommentedMap, part: str | int) -> Any:
    """The key of `node` that is spelled `part`; where there is none, a number if it looks like one."""
    missing = int(part) if str(part).isdecimal() else part
    return next((key for key in node if str(key) == str(part)), missing)


def _to_plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {_to_plain(key): _to_plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return tuple(_to_plain(item) for item in node)
    return next((kind(node) for kind in (bool, int, float, str) if isinstance(node, kind)), node)


def _to_text(key: Key) -> str:
    """Parts that are empty or have control characters in quotes."""
    return ".".join(part if part and part.isprintable() else json.dumps(part) for part in map(str, key))


def _show(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def _describe(error: YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error)
    return str(problem.partition(" with value ")[0].removeprefix("found "))


def _to_message(detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return "this key is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return unknown_name("value", detail["input"], tuple(re.findall("'([^']*)'", context["expected"])))
    expected = _EXPECTED.get(kind) or detail["msg"].replace("Input should be", "must be")
    return f"{expected}, got {_show(detail['input'])}"


def _known_keys(model: type[BaseModel], key: Key) -> tuple[str, ...]:
    """The keys that the mapping at `key` can have."""
    annotation: Any = model
    for part in key:
        annotation = _step_into(annotation, part)
    return tuple(name for member in _members(annotation) for name in getattr(member, "model_fields", ()))


def _step_into(annotation: Any, part: str | int) -> Any:
    for member in _members(annotation):
        if part in getattr(member, "model_fields", ()):
            return member.model_fields[part].annotation
        if get_origin(member) is dict:
            return get_args(member)[1]
    return None


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]
