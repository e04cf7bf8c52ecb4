"""Names of other people's making, and lists of them, in sentences: on one line, without control characters, short."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile

_OF_A_MACHINE = re.compile(r"(?:[A-Za-z]:|~)?[\\/](?:[^\\/]+[\\/]){2}")


def printable(text: str) -> str:
    """Return `text` with whatever could steer a terminal, or hide in it, written out as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def shown(name: object, longest: int = 40) -> str:
    """Return a name for a sentence: printable, and cut to `longest` characters."""
    text = str(name)
    text = printable(text[: longest + 1])
    return text if len(text) <= longest else text[: longest - 1] + "…"


def listed(names: Iterable[object], most: int = 8, longest: int = 40) -> str:
    """Return ``a, b, c``; of many names the first, and how many more there are."""
    found = list(names)
    text = ", ".join(shown(name, longest) for name in found[:most])
    return text if len(found) <= most else f"{text} and {len(found) - most} more"


def counted(n: int, noun: str) -> str:
    """Return ``1 image``, ``2 images``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def without_folders(names: Sequence[str]) -> list[str]:
    """Return names, of which those that are paths on a machine lose the folders that all of these share."""
    parts = {name: re.split(r"[\\/]", name) for name in names if _OF_A_MACHINE.match(name)}
    levels = zip(*(path[:-1] for path in parts.values()), strict=False)
    common = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    return ["/".join(parts[name][common:]) if name in parts else name for name in names]
