"""What a command answers, and how it is written to standard output: a table, tab-separated text, JSON or ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

from hf_task2vec.tasks import listed, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Mode = Literal["human", "json", "quiet"]


class Column(NamedTuple):
    """A column of a table: what it writes of an item; numbers are aligned to the right."""

    title: str
    write: Callable[[Any], str]
    is_number: bool = True


@dataclass(frozen=True)
class Listing:
    """A table: an item a row, the most important columns first."""

    items: Sequence[Any]
    columns: Sequence[Column]
    title: str = ""
    """Stands above it, where there are several."""

    @property
    def rows(self) -> list[list[str]]:
        """The cells; names of other people's making must not steer a terminal."""
        return [[printable(" ".join(column.write(item).split())) for column in self.columns] for item in self.items]


@dataclass(frozen=True)
class Report:
    """The answer of one command in the forms a user can ask for."""

    document: Any
    """The JSON document of ``--json``."""
    lines: Sequence[str]
    """The lines of ``--quiet``."""
    items: Sequence[Any]
    columns: Sequence[Column]
    """The table of the default mode, see :class:`Listing`."""
    notes: Sequence[str] = ()
    """Sentences printed below the table."""
    exit_code: int = 0
    """That of the command."""
    read: str = ""
    """What was read, the first line above the table."""
    title: str = ""
    """Stands above the table, where others come before it."""
    before: Sequence[Listing] = ()
    """Tables that come first."""

    @property
    def listings(self) -> list[Listing]:
        """All tables that hold anything, in order."""
        before = [listing for listing in self.before if listing.items]
        return [*before, Listing(self.items, self.columns, self.title if before else "")]


def show(report: Report, mode: Mode, file: TextIO) -> None:
    """Write `report` to `file`: a table fitted to a terminal, tab-separated values anywhere else."""
    if mode == "json":
        file.write(json.dumps(report.document, indent=2, allow_nan=False) + "\n")
    elif mode == "quiet":
        file.writelines(f"{line}\n" for line in report.lines)
    elif file.isatty():
        _show_on_terminal(report, file)
    else:
        file.writelines(f"{line}\n" for line in [printable(report.read)] if line)
        for i, listing in enumerate(report.listings):
            heading = [column.title for column in listing.columns]
            lines = [heading, *listing.rows] if any(heading) else listing.rows
            file.write(("\n" if i else "") + (f"{listing.title}:\n" if listing.title else ""))
            file.writelines("\t".join(cells) + "\n" for cells in lines)
        file.writelines(f"\n{printable(note)}\n" for note in report.notes)
    file.flush()


def _show_on_terminal(report: Report, file: TextIO) -> None:
    """Draw the table with as many columns as have room; a Hub id is folded only where nothing else is left."""
    from rich.console import Console

    console = Console(file=file, markup=False, emoji=False, highlight=False)
    if report.read:
        console.print(f"{printable(report.read)}\n")
    hidden = dict[str, None]()
    for i, listing in enumerate(report.listings):
        if i:
            console.print()
        hidden |= dict.fromkeys(_draw(listing, console))
    if hidden:
        text = f"No room here for {', '.join(hidden)}: a wider terminal, a pipe or --json shows them."
        console.print(f"\n{text}", style="dim")
    for note in report.notes:
        console.print(f"\n{printable(note)}")


def _draw(listing: Listing, console: Console) -> list[str]:
    """Draw as many columns as have room; return the titles of the others."""
    if listing.title:
        console.print(f"{listing.title}:", style="bold")
    unlimited = console.options.update(width=10_000)
    shown = len(listing.columns)
    while shown > 2 and console.measure(_table(listing, shown), options=unlimited).maximum > console.width:
        shown -= 1
    console.print(_table(listing, shown))
    return [column.title for column in listing.columns[shown:]]


def _table(listing: Listing, shown: int) -> Table:
    from rich.table import Table

    has_heading = any(column.title for column in listing.columns)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=has_heading, header_style="bold")
    for i, (title, _, is_number) in enumerate(listing.columns[:shown]):
        table.add_column(
            title,
            justify="right" if is_number else "left",
            no_wrap=is_number,
            overflow="fold",
            style="bold" if i == 0 and not has_heading else None,
        )
    for row in listing.rows:
        table.add_row(*row[:shown])
    return table


def facts_report(facts: dict[str, Any], lines: Sequence[str] = (), read: str = "") -> Report:
    """Return a report of named facts, one a line; nested facts are named with dots."""
    columns = (Column("", itemgetter(0), False), Column("", itemgetter(1), False))
    return Report(facts, lines, list(_flatten(facts)), columns, read=read)


def _flatten(facts: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)) and any(isinstance(item, dict) for item in value):
            yield prefix + name, f"{len(value)} (see --json)"
        elif isinstance(value, (list, tuple)):
            yield prefix + name, listed(value) or "–"
        else:
            yield prefix + name, "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
