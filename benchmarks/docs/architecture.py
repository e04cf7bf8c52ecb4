"""The tower of rooms of ``hf_task2vec`` as one picture, from the imports of its files.

    python -m benchmarks.docs.architecture

writes ``docs/figures/architecture.svg``; a test compares the committed picture with the package.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from html import escape
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "hf_task2vec"
PICTURE = ROOT / "docs" / "figures" / "architecture.svg"

ROW, TOP, NAME, JOB, DOTS, STEP = 40, 92, 24, 140, 560, 24
STYLE = """<style>
svg { font-family: system-ui, -apple-system, "Segoe UI", sans-serif }
rect.room { fill: #f8fafc; stroke: #94a3b8 } rect.page { fill: #fff }
text { fill: #0f172a; font-size: 13px } text.n { font-weight: 600; font-size: 15px }
text.s { fill: #475569; font-size: 12px } line { stroke: #e2e8f0 }
circle.b { fill: #0f766e } circle.a { fill: none; stroke: #ea580c; stroke-width: 2 }
</style>"""


@dataclass(frozen=True)
class Room:
    """A room, or a file on the ground floor: its job, and the rooms it imports."""

    name: str
    job: str
    below: frozenset[str]
    above: frozenset[str]


def rooms() -> list[Room]:
    """Return the rooms from top to bottom, in the order that import-linter holds them to (pyproject.toml)."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (order,) = (c["layers"] for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    found = []
    for place, name in enumerate(order):
        folder = PACKAGE / name
        files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
        head = folder / "__init__.py" if folder.is_dir() else files[0]
        job = ast.get_docstring(ast.parse(head.read_text(encoding="utf-8"))) or ""
        used = frozenset().union(*map(imported_rooms, files)) - {name}
        below = frozenset(order[place:]) & used
        job = job.splitlines()[0].rstrip(".")
        found.append(Room(name, job, below, used & frozenset(order[:place])))
    return found


def imported_rooms(file: Path) -> set[str]:
    """Return the rooms whose names a file imports, anywhere but for annotations alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {module.split(".")[1] for module in modules if module.startswith("hf_task2vec.")}


def draw(tower: list[Room]) -> str:
    """Return the picture: a row a room, and a dot in the column of each room that it imports."""
    width, height = DOTS + STEP * len(tower) + 16, TOP + ROW * len(tower) + 52
    names = [room.name for room in tower]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="t d">',
        '<title id="t">The rooms of hf_task2vec</title>',
        '<desc id="d">' + escape("; ".join(f"{r.name} imports {', '.join(sorted(r.below)) or 'none'}" for r in tower)),
        "</desc>",
        STYLE,
        f'<rect class="page" width="{width}" height="{height}"/>',
    ]
    for column, name in enumerate(names):
        x = DOTS + STEP * column + STEP / 2
        parts.append(f'<line x1="{x:g}" y1="{TOP}" x2="{x:g}" y2="{TOP + ROW * len(tower)}"/>')
        parts.append(f'<text class="s" transform="translate({x + 4:g} {TOP - 8}) rotate(-60)">{name}</text>')
    for row, room in enumerate(tower):
        y = TOP + ROW * row
        parts.append(f'<rect class="room" x="12" y="{y + 3}" width="{DOTS - 24}" height="{ROW - 6}" rx="6"/>')
        parts.append(f'<text class="n" x="{NAME}" y="{y + 25}">{room.name}</text>')
        parts.append(f'<text x="{JOB}" y="{y + 25}">{escape(room.job.replace("`", ""))}</text>')
        for column, name in enumerate(names):
            kind = "b" if name in room.below else "a" if name in room.above else None
            if kind:
                x = DOTS + STEP * column + STEP / 2
                parts.append(f'<circle class="{kind}" cx="{x:g}" cy="{y + ROW / 2:g}" r="5"/>')
    y = TOP + ROW * len(tower) + 30
    parts.append(
        f'<circle class="b" cx="30" cy="{y - 4}" r="5"/><text class="s" x="44" y="{y}">imports a room below</text>'
        f'<circle class="a" cx="210" cy="{y - 4}" r="5"/><text class="s" x="224" y="{y}">'
        "calls a room above, when asked to (push_to_hub, from_pretrained, Ranking.report)</text></svg>"
    )
    return "\n".join(parts) + "\n"


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(draw(rooms()), encoding="utf-8")


if __name__ == "__main__":
    main()
