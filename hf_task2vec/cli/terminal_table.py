"""A report's table on a terminal: as many columns as there is room for, ids whole, notes wrapped between words."""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from hf_task2vec.cli.console import Column

_GAP = 2


def terminal_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], notes: Sequence[str] = (), *, width: int = 80
) -> str:
    """Return the table with the terminal's codes for bold text, unless NO_COLOR is set or TERM says dumb.

    Where it is wider than the terminal, the columns of the highest rank are left out, and a note says which. An id is
    there to be copied: it is folded only where even the columns of rank 0 have no room, and never cut.
    """
    styled = not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in ("dumb", "unknown", "")
    screen = io.StringIO()
    console = Console(
        file=screen,
        force_terminal=styled,
        color_system="standard" if styled else None,
        highlight=False,
        width=width,
        height=25,  # only with both does rich believe the width of a dumb terminal
    )
    shown = fitting(columns, rows, width)
    has_titles = any(column.title for column in columns)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_header=has_titles, header_style="bold")
    for i in shown:
        column = columns[i]
        table.add_column(
            column.title,
            justify="right" if column.is_number else "left",
            overflow="fold",
            no_wrap=column.is_number,
        )
    for number, row in enumerate(rows):
        # With a heading, the first row is the answer; facts have their names in bold.
        bold = [(has_titles and number == 0) or (not has_titles and i == 0) for i in shown]
        table.add_row(*(Text(row[i], style="bold" if is_bold else "") for i, is_bold in zip(shown, bold, strict=True)))
    console.print(table)
    hidden = [column.title for i, column in enumerate(columns) if i not in shown]
    if hidden:
        said = f"No room here for {', '.join(hidden)}: a wider terminal, a pipe or --json shows them."
        console.print(Text(f"\n{wrapped(said, width)}", style="dim"))
    for note in notes:
        console.print(Text(f"\n{wrapped(note, width)}"), soft_wrap=True)
    return "".join(f"{line.rstrip()}\n" for line in screen.getvalue().splitlines())


def fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the positions of the columns that fit into `width` characters; those of rank 0 always do."""
    widths = [max(map(cell_len, (column.title, *(row[i] for row in rows)))) for i, column in enumerate(columns)]
    shown = list(range(len(columns)))
    while sum(widths[i] for i in shown) + _GAP * (len(shown) - 1) > width:
        last = max(shown, key=lambda i: (columns[i].rank, i), default=None)
        if last is None or columns[last].rank == 0:
            break
        shown.remove(last)
    return shown


def wrapped(text: str, width: int) -> str:
    """Break a sentence between words, but not between a number and its per cent sign, nor inside an id."""
    bound = text.replace(" %", "\u00a0%").replace(" ± ", "\u00a0±\u00a0")
    lines = textwrap.wrap(bound, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\u00a0", " ")


def width_of(file: TextIO) -> int:
    """Return how many characters go into a line: what COLUMNS says, else the terminal's own width, else 80."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(file.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
