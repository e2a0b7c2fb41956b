"""Hooks of MkDocs: where a link out of docs/ leads on the site, and what its search leaves out."""

from __future__ import annotations

import posixpath
import re
from typing import Any

#: Files beside docs/ that a page of the site shows, by an include.
_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
#: The search has its words at hand before anybody searches: these would be a quarter of what a first visit loads.
_NOT_SEARCHED = ("adr/", "changelog", "contributing", "layout")
_LINK = re.compile(r"(?<=\]\()(\.\./[^)\s#]*)(?=[)#])")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Called by MkDocs for each page, after its plugins.

    A file beside docs/ is the page that shows it, or else stands in the repository.
    """
    if page.file.src_uri.startswith(_NOT_SEARCHED):
        page.meta["search"] = {"exclude": True}
    folder = posixpath.dirname(page.file.src_uri)

    def target(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, link[1]))
        if path.startswith("docs/"):
            return link[1]
        if path in _PAGES:
            return posixpath.relpath(_PAGES[path], folder)
        return f"{config.repo_url.rstrip('/')}/blob/main/{path}"

    return _LINK.sub(target, markdown)
