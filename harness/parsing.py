"""Parses YAML text into mappings and lists with source positions, within limits on size and depth.

YAML 1.2 by ruamel.yaml: `1e-3` is a number, `off` and `2024-05-01` are texts, a duplicate key is an error. Anchors,
aliases and merge keys are allowed, tags and directives are not.
"""

import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import StringMark, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

MAX_BYTES = 1_000_000
"""Size of a file."""

MAX_NODES = 20_000
"""Keys, values and lists of a file, each alias counted as what it stands for."""

MAX_DEPTH = 32
"""Mappings and lists inside one another."""

MAX_NUMBER = 50
"""Characters of a number."""

MAX_KEY = 200
"""Characters of a key, which may be the name of a row."""

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What YAML has no character for: control characters, halves of surrogate pairs, non-characters."""

_TAG = "tag:yaml.org,2002:"
_NUMBERS = {f"{_TAG}int", f"{_TAG}float"}
_KEYS = {f"{_TAG}{name}" for name in ("str", "int", "merge", "timestamp")}


class ParseError(Exception):
    """Text that is no YAML, or beyond a limit.

    Attributes:
        line: counted from 1; None where it is not known.
        key: the key path, as far as it is known.
    """

    def __init__(self, message: str, *, line: int | None = None, key: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.line, self.key = line, key


def parse_yaml(text: str) -> Any:
    """The content of one YAML document; mappings and lists know their lines.

    Raises:
        ParseError: a syntax error, a tag, a key that is no text or whole number, or something beyond a limit above.
    """
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        line = text.count("\n", 0, unprintable.start()) + 1
        raise ParseError(f"the character U+{ord(unprintable.group()):04X} is not allowed in YAML", line=line)
    yaml = YAML()
    yaml.Composer, yaml.Constructor = _LimitedComposer, _PlainConstructor
    try:
        return yaml.load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ParseError(_describe(error), line=mark and mark.line + 1) from None


class _LimitedComposer(Composer):
    """Composes nodes as ruamel.yaml does, and stops at the first one that is beyond a limit."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self.warn_double_anchors = False
        self._key: list[str | int] = []
        self._count = 0
        self._level = 0
        self._measured: dict[int, tuple[int, int]] = {}  # of each complete node: its nodes, its height

    def compose_document(self) -> Any:
        start = self.parser.peek_event()
        if start.version or start.tags:
            raise self._error("directives such as %YAML are not supported", start.start_mark)
        return super().compose_document()

    def compose_node(self, parent: Any, index: Any) -> Any:
        if index is not None:
            self._key.append(index.value if isinstance(index, Node) else index)
        event = self.parser.peek_event()
        node = self._follow_alias(event) if isinstance(event, AliasEvent) else self._compose_new(parent, index, event)
        if isinstance(parent, MappingNode) and index is None:
            self._check_key(node, event.start_mark)
        if index is not None:
            self._key.pop()
        return node

    def _follow_alias(self, event: Any) -> Any:
        """An alias is as large and as deep as what it stands for."""
        node = super().compose_node(None, None)
        if id(node) not in self._measured:
            raise self._error(f"the alias *{event.anchor} refers to a value that contains it", event.start_mark)
        count, height = self._measured[id(node)]
        self._count_nodes(count, height, event.start_mark)
        return node

    def _compose_new(self, parent: Any, index: Any, event: Any) -> Any:
        if event.ctag is not None:
            shown = str(event.ctag).replace(_TAG, "!!")
            raise self._error(f"tags are not supported, got {shown}", event.start_mark)
        before = self._count
        self._count_nodes(1, 1, event.start_mark)
        self._level += 1
        node = super().compose_node(parent, index)
        self._level -= 1
        if isinstance(node, ScalarNode):
            self._check_scalar(node)
        self._measured[id(node)] = self._count - before, 1 + max(map(self._get_height, _list_parts(node)), default=0)
        return node

    def _get_height(self, node: Any) -> int:
        return self._measured[id(node)][1]

    def _count_nodes(self, count: int, height: int, mark: StringMark) -> None:
        self._count += count
        if self._level + height > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} lists or mappings inside one another", mark)
        if self._count > MAX_NODES:
            raise self._error(f"more than {MAX_NODES:,} keys and values, counting an alias as its value", mark)

    def _check_scalar(self, node: ScalarNode) -> None:
        unprintable = _UNPRINTABLE.search(node.value) if node.style == '"' else None  # others have no escapes
        if unprintable:
            code = ord(unprintable.group())
            hint = "; write the character itself, or \\U and eight digits" if 0xD800 <= code <= 0xDFFF else ""
            raise self._error(f"the character U+{code:04X} is not allowed in a string{hint}", node.start_mark)
        if str(node.tag) in _NUMBERS and len(node.value) > MAX_NUMBER:
            message = f"a number has at most {MAX_NUMBER} characters, got {len(node.value):,}"
            raise self._error(message, node.start_mark)

    def _check_key(self, node: Any, mark: StringMark) -> None:
        if not isinstance(node, ScalarNode):
            kind = "a mapping" if isinstance(node, MappingNode) else "a list"
            raise self._error(f"a key must be a string or a whole number, got {kind}", mark)
        if len(node.value) > MAX_KEY:
            raise self._error(f"a key has at most {MAX_KEY} characters, got {len(node.value):,}", mark)
        if str(node.tag) not in _KEYS:
            shown = node.value or "null"
            raise self._error(f'a key must be a string or a whole number, got {shown}; write "{shown}"', mark)

    def _error(self, message: str, mark: StringMark) -> ParseError:
        return ParseError(message, line=mark.line + 1, key=tuple(self._key))


class _PlainConstructor(RoundTripConstructor):
    """Dates are texts, as in YAML 1.2; what looks like a number and is none gets its line."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError):  # ruamel.yaml takes `0b_` for a number
            raise ParseError(
                f"{node.value!r} is neither a number nor a string; put it in quotes", line=node.start_mark.line + 1
            ) from None


_PlainConstructor.add_constructor(f"{_TAG}timestamp", RoundTripConstructor.construct_yaml_str)


def _list_parts(node: Any) -> list[Any]:
    if isinstance(node, ScalarNode):
        return []
    return [part for pair in node.value for part in pair] if isinstance(node, MappingNode) else list(node.value)


def _describe(error: YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error)
    return str(problem.partition(" with value ")[0].removeprefix("found "))
