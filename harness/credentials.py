"""Removes passwords from addresses before they are stored, printed or logged."""

import base64
import re
from collections.abc import Iterable
from shlex import join
from urllib.parse import unquote, urlsplit

HIDDEN = "***"

_SCHEME = r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*://)"
_WITH_PASSWORD = _SCHEME + r"(?P<user>[^\s/?#:@]*):"
_TOKEN = re.compile(r"(\bhttps?://)[^\s/?#:@]+@")
_FIELD = re.compile(r"(?i)([?&;][\w.-]*(?:password|passwd|pwd|token|secret|key)=)[^&;\s'\"]+")


def hide_credentials(text: str) -> str:
    """A text without the passwords and tokens of the addresses in it; a password ends at the last `@` of a word."""
    return _hide(text, re.compile(_WITH_PASSWORD + r"\S*@"))


def join_command(arguments: Iterable[str]) -> str:
    """A command line for people; here a password may contain blanks, since every argument is an address or none."""
    whole = re.compile(_WITH_PASSWORD + r".*@", re.DOTALL)
    return join(_hide(argument, whole) for argument in arguments)


def split_credentials(address: str) -> tuple[str, dict[str, str]]:
    """The address of a server without user and password, and the header of a request that has them."""
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return address, {}
    name, _, password = user.partition(":")
    login = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return parts._replace(netloc=host).geturl(), {"Authorization": f"Basic {login}"}


def _hide(text: str, with_password: re.Pattern[str]) -> str:
    shown = with_password.sub(rf"\g<scheme>\g<user>:{HIDDEN}@", text)
    return _FIELD.sub(rf"\g<1>{HIDDEN}", _TOKEN.sub(rf"\g<1>{HIDDEN}@", shown))
