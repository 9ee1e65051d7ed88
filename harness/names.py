"""File names as printable text, for people and for databases."""

import re

_SURROGATE = re.compile("[\ud800-\udfff]")


def to_printable(text: str) -> str:
    r"""Text that can be written as UTF-8: a byte of a name that is none shows as `\xff`.

    Python gives such bytes as lone surrogates, U+DC80 to U+DCFF, which neither a terminal nor a database takes.
    """
    return _SURROGATE.sub(lambda found: _escape(ord(found[0])), text)


def _escape(code: int) -> str:
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
