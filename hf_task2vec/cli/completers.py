"""What stands behind Tab: names for the options and arguments of the commands.

No numerical library is imported: names are read from the index's CSV files. The names that only the code knows are
written down here once more, and a test compares them.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

METRICS = ("trained", "static")
DISTANCES = ("asymmetric", "cosine", "jensen_shannon", "kl", "log_correlation", "symmetric")

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def names(known: Iterable[str]) -> Completer:
    """Return what completes one of the known names, or the last of several with commas."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",") if param.multiple else ("", "", incomplete)
        return [CompletionItem(f"{before}{comma}{name}") for name in known if name.startswith(last)]

    return complete


def tasks_of_index(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the embedded tasks of the index, and files."""
    tasks = sorted(row["task"] for row in _table(ctx, "tasks") if row.get("embedded") == "true")
    return _starting(tasks, incomplete)


def licences_of_index(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the licences of the index's checkpoints, the most frequent first."""
    return names(_frequent(ctx, "license"))(ctx, param, incomplete)


def libraries_of_index(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the libraries of the index's checkpoints."""
    return names(_frequent(ctx, "library"))(ctx, param, incomplete)


def datasets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete folders and the built-in sample."""
    return _starting(["sklearn:digits"], incomplete, "dir")


def paths(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete files and folders."""
    return _starting([], incomplete)


def folders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete folders."""
    return _starting([], incomplete, "dir")


def _starting(known: Iterable[str], incomplete: str, kind: str = "file") -> list[CompletionItem]:
    """Return the names that fit, or else leave it to the shell: a file (or folder)."""
    found = [CompletionItem(name) for name in known if name.startswith(incomplete)]
    # A shell that gets both would list the names only.
    return found or [CompletionItem(incomplete, type=kind)]


def _frequent(ctx: click.Context, column: str) -> list[str]:
    counts = Counter(row.get(column) or "" for row in _table(ctx, "checkpoints"))
    del counts[""]
    return [name for name, _ in counts.most_common()]


def _table(ctx: click.Context, name: str) -> list[dict[str, str]]:
    """Return the rows of one file of the index that the command line names so far; none if it cannot be read."""
    index = ctx.params.get("index")
    package = Path(__file__).resolve().parents[1]
    shipped = (package / "zoo_index", package.parent / "zoo_index")  # in a wheel, in a checkout
    for folder in shipped if index is None else (Path(str(index)).expanduser(),):
        try:
            with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as handle:
                return list(csv.DictReader(handle))
        except (OSError, ValueError):
            continue
    return []
