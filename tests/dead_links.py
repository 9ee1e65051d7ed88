"""Every link, anchor and image of built pages, compared with the files that are there."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ELSEWHERE = {"http", "https", "mailto", "data", "javascript"}
ADDRESSES = {"href", "src", "poster", "data", "action"}


class Page(HTMLParser):
    """The addresses on a page, those of them that it loads itself, and the anchors that links may lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.embedded: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.embedded |= {value for name, value in attrs if tag != "a" and name in ADDRESSES and value is not None}
        for name, value in attrs:
            if name in ADDRESSES and value is not None:
                self.addresses.append(value)
            elif name == "srcset" and value:
                self.addresses += [part.split()[0] for part in value.split(",")]
            elif value and (name == "id" or (tag == "a" and name == "name")):
                self.anchors.add(value)


def find_dead_links(site: Path) -> list[str]:
    """`page: address` of all that leads to no file or to no anchor of one, and of what a page loads from another host.

    A folder is no page: opened from a disk it is a listing. Links to other hosts are not followed.
    """
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    return [
        f"{path.relative_to(site)}: {address}"
        for path, page in pages.items()
        for address in dict.fromkeys(page.addresses)
        if _is_dead(address, path, site, pages)
    ]


def _is_dead(address: str, path: Path, site: Path, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return parts.scheme not in ELSEWHERE or (bool(parts.netloc) and address in pages[path].embedded)
    start = site if parts.path.startswith("/") else path.parent
    target = path if not parts.path else (start / unquote(parts.path).lstrip("/")).resolve()
    if not target.is_file() or not target.is_relative_to(site):
        return True
    if not parts.fragment or parts.fragment == "__top":
        return False
    return target in pages and unquote(parts.fragment) not in pages[target].anchors
