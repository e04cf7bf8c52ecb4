"""What the command line writes to standard output: one report as a table, plain text, JSON or ids."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TextIO

import click

if TYPE_CHECKING:
    from hf_task2vec.ranking import Candidate, Ranking

Mode = Literal["human", "json", "quiet"]


@dataclass(frozen=True)
class Column:
    """A column of a report's table.

    Attributes
    ----------
    title
        Its heading; a table whose titles are all empty has none.
    is_number
        Numbers are aligned to the right.
    rank
        0 for what a table is about; on a narrow terminal the columns of the highest rank are left out first.
    """

    title: str
    is_number: bool = False
    rank: int = 0


@dataclass(frozen=True)
class Report:
    """The answer of one command in the forms a user can ask for.

    Attributes
    ----------
    document
        The JSON document of ``--json``.
    lines
        The lines of ``--quiet``.
    columns, rows
        The table of the default mode; each row has one text per column.
    notes
        Sentences printed below the table.
    text
        What the default mode prints in place of a table.
    """

    document: Any
    lines: Sequence[str]
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default=())
    text: str | None = None


def show(report: Report, mode: Mode, file: TextIO) -> None:
    """Write `report` to `file`: a coloured table on a terminal, aligned text anywhere else."""
    if mode == "json":
        text = json.dumps(report.document, indent=2, allow_nan=False) + "\n"
    elif mode == "quiet":
        text = "".join(f"{line}\n" for line in report.lines)
    elif report.text is not None:
        text = report.text
    elif file.isatty():
        from hf_task2vec.cli.terminal_table import terminal_table, width_of

        text = terminal_table(report.columns, report.rows, report.notes, width=width_of(file))
    else:
        text = plain_table(report.columns, report.rows) + "".join(f"\n{note}\n" for note in report.notes)
    file.write(encodable(text, getattr(file, "encoding", None)))
    file.flush()


def say(message: str) -> None:
    """Write one line to standard error."""
    click.echo(encodable(message, getattr(sys.stderr, "encoding", None)), err=True)


# What stands for characters that a terminal or pipe cannot encode (`LC_ALL=C`, PYTHONIOENCODING=ascii).
_IN_ASCII = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "…": "...", "±": "+-", "×": "x", "→": "->", "≥": ">=", "≤": "<=", "⁹": "^9"}
    | {"\u00a0": " ", "σ": "sigma", "τ": "tau", "⚠": "!"}
)


def encodable(text: str, encoding: str | None) -> str:
    """Return `text`, with the likes of … and ± spelt out where `encoding` lacks any of its characters."""
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return text.translate(_IN_ASCII)
    return text


def plain_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """Return `rows` as text for pipes: one line a row, nothing cut, no cell empty, a heading if there are titles.

    Columns are two or more spaces apart, and no cell holds two spaces in a row: ``awk -F '  +'`` splits a line.
    """
    titles = [column.title for column in columns]
    cells = [[" ".join(cell.split()) or "-" for cell in row] for row in rows]
    lines = [titles, *cells] if any(titles) else cells
    widths = [max((len(line[i]) for line in lines), default=0) for i in range(len(columns))]
    text = ""
    for line in lines:
        padded = (
            cell.rjust(width) if column.is_number else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        )
        text += "  ".join(padded).rstrip() + "\n"
    return text


def ranking_report(ranking: Ranking) -> Report:
    """Return the report of a selection; accuracies are in per cent in the table, in [0, 1] in the document."""
    rows = [_ranking_row(candidate) for candidate in ranking]
    # What is known of none of them takes no room.
    shown = [i for i in range(len(_RANKING_COLUMNS)) if i < 4 or any(row[i] not in ("", "?") for row in rows)]
    titles = {"accuracy": ranking.score_name}
    columns = [replace(column, title=titles.get(column.title, column.title)) for column in _RANKING_COLUMNS]
    columns = [columns[i] for i in shown]
    lines = [candidate.hub_id for candidate in ranking]
    return Report(ranking.to_dict(), lines, columns, [[row[i] for i in shown] for row in rows], (ranking.summary,))


_RANKING_COLUMNS = (
    *(Column("#", True), Column("checkpoint"), Column("accuracy", True), Column("80 % interval", True, 1)),
    *(Column("measured", True), Column("params", True, 2), Column("GMACs", True, 4), Column("px", True, 5)),
    Column("licence", rank=3),
)


def _ranking_row(candidate: Candidate) -> list[str]:
    return [
        str(candidate.rank),
        candidate.hub_id,
        f"{100 * candidate.score:.1f}",
        f"{100 * candidate.low:.1f}–{100 * candidate.high:.1f}",
        "" if candidate.measured is None else f"{100 * candidate.measured:.1f}",
        _known(candidate.params_m, ".1f", "M"),
        _known(candidate.gmacs, ".1f"),
        _known(candidate.input_px, "d"),
        candidate.license or "?",
    ]


def facts_report(facts: dict[str, Any], lines: Sequence[str] = (), notes: Sequence[str] = ()) -> Report:
    """Return a report of named facts, one a line; nested facts are named with dots."""
    rows = [[name, value] for name, value in _flatten(facts)]
    return Report(facts, lines, (Column(""), Column("")), rows, notes)


def distance_report(kind: str, names: Sequence[str], distances: Sequence[Sequence[float]]) -> Report:
    """Return the report of the (n, n) `distances` from each of `names` (rows) to each (columns)."""
    document = {"kind": kind, "tasks": list(names), "distances": [list(row) for row in distances]}
    pairs = [(i, j) for i in range(len(names)) for j in range(len(names)) if i != j]
    lines = [f"{names[i]}\t{names[j]}\t{distances[i][j]:.6g}" for i, j in pairs]
    columns = [Column("from \\ to"), *(Column(name, True) for name in names)]
    rows = [[name, *(f"{value:.4f}" for value in row)] for name, row in zip(names, distances, strict=True)]
    return Report(document, lines, columns, rows)


def _known(value: float | None, form: str, unit: str = "") -> str:
    return "?" if value is None else format(value, form) + unit


def _flatten(facts: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)) and any(isinstance(item, dict) for item in value):
            yield prefix + name, f"{len(value)} (see --json)"
        elif isinstance(value, (list, tuple)):
            shown = ", ".join(str(item) for item in value[:8])
            yield prefix + name, (shown or "–") + (f", … ({len(value)} in all)" if len(value) > 8 else "")
        elif isinstance(value, float):
            yield prefix + name, f"{value:.6g}"
        else:
            yield prefix + name, "–" if value is None else str(value)


@contextlib.contextmanager
def reserved_stdout() -> Iterator[TextIO]:
    """Yield standard output for the caller alone.

    Until the end of the block whatever other code writes to standard output, from Python or from native libraries,
    goes to standard error, so that a JSON document stays the only thing in the pipe.
    """
    stdout = sys.stdout
    stdout.flush()
    with contextlib.ExitStack() as stack:
        # A stream in memory (a notebook's, a test's) has no descriptor, and no native library can write to it.
        with contextlib.suppress(OSError, ValueError):
            descriptor, spare = stdout.fileno(), sys.stderr.fileno()
            # Where the encoding lacks a character (±, …) a question mark is better than no answer.
            copy = open(os.dup(descriptor), "w", encoding=stdout.encoding, errors="replace")  # noqa: SIM115
            stdout = stack.enter_context(copy)
            stack.callback(os.dup2, copy.fileno(), descriptor)
            os.dup2(spare, descriptor)
        with contextlib.redirect_stdout(sys.stderr):
            yield stdout
