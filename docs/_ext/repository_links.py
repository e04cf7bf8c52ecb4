"""Files of the repository that the pages link to: as pages of the site where they are pages, else as downloads.

On a code forge ``[Contributing](../CONTRIBUTING.md)`` leads to the file itself. On the site the same link leads to the
page that shows it, and the links inside that page, which are relative to the file, lead where they should. A page shows
a file by the comment ``<!-- shows FILE -->``, or what lies between two comments of it by
``<!-- shows FILE from FIRST to LAST -->``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
_LINK = re.compile(r"(\]\()(?![a-z]+:|#|/)([^)\s#]+)")
_SHOWN = re.compile(r"<!-- shows (?P<file>\S+?)(?: from (?P<first>.+?) to (?P<last>.+?))? -->")


def pages() -> dict[str, str]:
    """Return the page that shows a file of the repository as a whole, by the file's path."""
    found = {}
    for page in DOCS.glob("*.md"):
        for match in _SHOWN.finditer(page.read_text(encoding="utf-8")):
            if not match["first"]:
                found[match["file"]] = page.name
    return found


def relinked(text: str, folder: Path) -> str:
    """Return `text`, whose links are relative to `folder`, with links that are relative to the documentation."""
    shown_by = pages()

    def replaced(match: re.Match[str]) -> str:
        path = os.path.normpath(folder / match[2])
        if Path(path).is_dir():
            path = str(Path(path) / "README.md")
        name = Path(os.path.relpath(path, ROOT)).as_posix()
        return match[1] + shown_by.get(name, os.path.relpath(path, DOCS))

    return _LINK.sub(replaced, text)


def shown(match: re.Match[str]) -> str:
    """Return the file (without YAML front matter), or what lies between two of its comments."""
    path = ROOT / match["file"]
    text = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    if match["first"]:
        text = text.partition(f"<!-- {match['first']} -->")[2].partition(f"<!-- {match['last']} -->")[0]
    return relinked(text, path.parent)


def rewrite(app: Sphinx, docname: str, source: list[str]) -> None:
    """Rewrite the links of a page, and put in the files that it shows (the event ``source-read``)."""
    source[0] = _SHOWN.sub(shown, relinked(source[0], DOCS))


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the hook."""
    app.connect("source-read", rewrite)
    return {"parallel_read_safe": True}
