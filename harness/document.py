"""A YAML document with source positions: an error reports file, line and key path."""

import json
import re
import stat
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.scalarbool import ScalarBoolean

from harness.errors import SpecError
from harness.parsing import MAX_BYTES, ParseError, parse_yaml
from harness.positions import Key, Positions, find_lines, to_key_path
from paradigms.facts import shorten, unknown_name

MAX_HINTS = 4
"""Places of a key that a message names."""

MAX_ERRORS = 20
"""Mistakes of one file that are listed."""

Model = TypeVar("Model", bound=BaseModel)

_PART = r"""(?:"[^"]+"|'[^']+'|[^.="'][^.=]*)"""
_OVERRIDE = re.compile(rf"\s*(?P<path>{_PART}(?:\.{_PART})*)=(?P<value>.*)", re.DOTALL)
_QUOTED = re.compile(r"""(?P<quote>["'])(?P<name>.+?)(?P=quote)(?=\.|$)""")

_EXPECTED = {
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "float_type": "must be a number",
    "invalid_key": "a key must be a string here",
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
        root: its top-level mapping.
        lines: of its keys, as the file has them.
        replaced: the option behind the value at a key.
    """

    path: Path
    root: CommentedMap
    lines: Mapping[tuple[str, ...], int]
    replaced: dict[tuple[str, ...], str] = field(default_factory=dict)

    def replace(self, key: tuple[str, ...], value: object, *, option: str) -> None:
        """Put `value` at `key`, making the mappings on the way; mistakes there are told as those of `option`."""
        node = self.root
        for depth, part in enumerate(key[:-1], start=1):
            found = _find_key(node, part)
            if found not in node:
                node[found] = CommentedMap()
                self.replaced[key[:depth]] = option
            if not isinstance(node[found], CommentedMap):
                raise SpecError(f"{to_key_path(key[:depth])} is not a mapping", key=option)
            node[found] = copy(node[found])  # an alias elsewhere in the file keeps what it had
            node = node[found]
        node[_find_key(node, key[-1])] = value
        self.replaced[key] = option

    def split_path(self, path: str) -> tuple[str, ...]:
        """The keys of a dotted path: of those that the file has, the longest that fits, so that a name may have a dot.

        A name in quotes is taken as it is: `rows."Swin-T, drop path 0.2".heads`.
        """
        node: Any = self.root
        keys: list[str] = []
        while path:
            quoted = _QUOTED.match(path)
            known = [str(key) for key in node] if isinstance(node, CommentedMap) else []
            fitting = [key for key in known if path == key or path.startswith(f"{key}.")]
            part = path.partition(".")[0] if not fitting else max(fitting, key=len)
            key = quoted["name"] if quoted else part
            path = path[quoted.end() if quoted else len(part) :].removeprefix(".")
            node = node.get(_find_key(node, key)) if isinstance(node, CommentedMap) else None
            keys.append(key)
        return tuple(keys)

    def to_plain(self) -> dict[str, Any]:
        """The content in Python's own types; lists as tuples."""
        plain: dict[str, Any] = _to_plain(self.root)
        return plain

    @property
    def positions(self) -> Positions:
        """The positions of the keys."""
        return Positions(self.path, self.lines, self.replaced)

    def error(self, message: str, *key: str | int) -> SpecError:
        """The mistake at `key`, with its place: an option, or file and line."""
        return self.positions.error(message, *key)

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
            models, elsewhere = _find_models(model, key[:-1]), [model] if len(key) == 1 else []
            former = [name for found in models for name in [getattr(found, "former_keys", {}).get(key[-1])] if name]
            if former:
                return self.error(f"this key is now {former[0]}", *key)
            known = tuple(name for found in models for name in found.model_fields)
            return self.error(unknown_key(key[-1], known, *elsewhere), *key)
        return self.error(describe_mistake(detail), *key)


def read_document(path: Path) -> Document:
    """Read a YAML file whose top level is a mapping.

    Raises:
        SpecError: it is not there, no regular file, not YAML, beyond a limit, or something else than a mapping.
    """
    text = _read_text(path)
    try:
        root = parse_yaml(text)
    except ParseError as error:
        raise SpecError(str(error), path=path, line=error.line, key=to_key_path(error.key)) from None
    if not isinstance(root, CommentedMap):
        raise SpecError(f"the top level must be a mapping, got {_show(_to_plain(root))}", path=path)
    return Document(path, root, find_lines(root))


def _read_text(path: Path) -> str:
    """UTF-8 text of a regular file; anything else could block, or never end."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise SpecError("is a directory, not a YAML file", path=path)
        if not stat.S_ISREG(mode):
            raise SpecError("is a pipe or a device, not a YAML file", path=path)
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise SpecError("no such file", path=path) from None
    except (OSError, ValueError) as error:
        raise SpecError(f"cannot be read: {getattr(error, 'strerror', None) or error}", path=path) from None
    if len(content) > MAX_BYTES:
        raise SpecError(f"is larger than {MAX_BYTES:,} bytes", path=path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError(f"cannot be read: it is not UTF-8 text ({error.reason})", path=path, line=line) from None


def parse_override(pair: str) -> tuple[str, Any]:
    """The key path, as it was written, and the value of `key.path=value`, the value read as YAML.

    Raises:
        SpecError: there is no key, no `=`, or no value that YAML understands.
    """
    matched = _OVERRIDE.fullmatch(pair)
    if matched is None:
        raise SpecError("must look like key=value, for example training.lr=1e-3", key=f"--set {shorten(pair)}")
    try:
        return matched["path"].strip(), parse_yaml(matched["value"])
    except ParseError as error:
        raise SpecError(f"the value is not YAML: {error}", key=f"--set {shorten(pair)}") from None


def join_errors(errors: Iterable[SpecError]) -> SpecError:
    """Several mistakes as one, each on its line; of very many the first ones."""
    messages = [str(error) for error in errors]
    more = len(messages) - MAX_ERRORS
    return SpecError("\n".join([*messages[:MAX_ERRORS], *([f"and {more:,} more"] if more > 0 else [])]))


def _find_key(node: CommentedMap, part: str | int) -> Any:
    """The key of `node` that is spelled `part`; where there is none, a number if it looks like one."""
    missing = int(part) if str(part).isdecimal() else part
    return next((key for key in node if str(key) == str(part)), missing)


def _to_plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {_to_plain(key): _to_plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return tuple(_to_plain(item) for item in node)
    if isinstance(node, ScalarBoolean):  # what `&name true` becomes: no bool, but an int
        return bool(node)
    return next((kind(node) for kind in (bool, int, float, str) if isinstance(node, kind)), node)


def _show(value: object) -> str:
    return shorten(json.dumps(value, default=str, ensure_ascii=False))


def describe_mistake(detail: ErrorDetails) -> str:
    """The message of one mistake that pydantic has found, without its place."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return "this key is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return unknown_name("value", detail["input"], tuple(re.findall("'([^']*)'", context["expected"])))
    if kind in ("too_short", "too_long"):
        bound = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"must have {bound} entries, got {context['actual_length']}"
    expected = _EXPECTED.get(kind) or detail["msg"].replace("Input should be", "must be")
    return f"{expected}, got {_show(detail['input'])}"


def _find_models(model: type[BaseModel], key: Key) -> list[type[BaseModel]]:
    """What the mapping at `key` is read as: of several models one may fit."""
    annotation: Any = model
    for part in key:
        annotation = _step_into(annotation, part)
    return [member for member in _members(annotation) if isinstance(member, type) and issubclass(member, BaseModel)]


def find_paths(model: type[BaseModel], name: str) -> list[str]:
    """The dotted paths of the fields called `name` below the top level of a model; mappings by name are left out."""
    found = []
    for part, info in model.model_fields.items():
        for member in _members(info.annotation):
            if isinstance(member, type) and issubclass(member, BaseModel) and not issubclass(model, member):
                found += [f"{part}.{name}"] if name in member.model_fields else []
                found += [f"{part}.{path}" for path in find_paths(member, name)]
    return list(dict.fromkeys(found))


def unknown_key(name: object, known: tuple[str, ...], *models: type[BaseModel]) -> str:
    """The message for a key that is not known; one that stands elsewhere in the models is named by its path."""
    paths = list(dict.fromkeys(path for model in models for path in find_paths(model, str(name))))
    stated = [path for path in paths if not path.startswith(("recipe.", "init_recipe."))]
    hint = f"unknown key {name!r}; did you mean {' or '.join(map(repr, stated[:MAX_HINTS]))}?"
    return hint if stated else unknown_name("key", name, known)


def _step_into(annotation: Any, part: str | int) -> Any:
    for member in _members(annotation):
        if part in getattr(member, "model_fields", ()):
            return member.model_fields[part].annotation
        if get_origin(member) is dict:
            return get_args(member)[1]
        if get_origin(member) is tuple and isinstance(part, int):
            return get_args(member)[0]
    return None


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]
