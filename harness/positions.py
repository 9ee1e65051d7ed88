"""Where the keys of a YAML file and of options are: errors about what was read report file, line and key path."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from harness.errors import SpecError

Key = tuple[str | int, ...]


@dataclass(frozen=True)
class Positions:
    """The lines of a file, and the options that replaced parts of it; equal for the same file.

    Attributes:
        path: the file.
        lines: of each key, counted from 1; keys are texts here.
        options: the option behind the value at a key.
    """

    path: Path
    lines: Mapping[tuple[str, ...], int] = field(compare=False, repr=False)
    options: Mapping[tuple[str, ...], str] = field(compare=False, repr=False)

    def error(self, message: str, *key: str | int) -> SpecError:
        """The mistake at `key`, with its place: an option, or file and line."""
        parts = tuple(str(part) for part in key)
        prefixes = [parts[:length] for length in range(len(parts), 0, -1)]
        option = next((self.options[prefix] for prefix in prefixes if prefix in self.options), None)
        if option is not None:
            return SpecError(f"{to_key_path(key)}: {message}", key=option)
        line = next((self.lines[prefix] for prefix in prefixes if prefix in self.lines), None)
        return SpecError(message, path=self.path, line=line, key=to_key_path(key))


def find_lines(root: CommentedMap) -> dict[tuple[str, ...], int]:
    """The line of every key of a document and of every entry of its lists; those of merged keys are not known."""
    lines: dict[tuple[str, ...], int] = {}
    waiting: list[tuple[tuple[str, ...], Any]] = [((), root)]
    while waiting:
        place, node = waiting.pop()
        if not isinstance(node, CommentedMap | CommentedSeq):
            continue
        for key, value in node.items() if isinstance(node, CommentedMap) else enumerate(node):
            if key in (node.lc.data or {}):
                lines[*place, str(key)] = node.lc.data[key][0] + 1
                waiting.append(((*place, str(key)), value))
    return lines


def to_key_path(key: Key) -> str:
    """The keys with dots between them; parts that are empty or have control characters in quotes."""
    return ".".join(part if part and part.isprintable() else json.dumps(part) for part in map(str, key))
