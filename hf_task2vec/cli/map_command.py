"""``hf-task2vec map``: a set of tasks on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hf_task2vec.cli.command import command, written
from hf_task2vec.cli.console import Column, Report
from hf_task2vec.cli.inputs import load_embeddings, load_index
from hf_task2vec.cli.options import given, hub_options, index_option, kind_option
from hf_task2vec.errors import Task2VecError
from hf_task2vec.selection import known

if TYPE_CHECKING:
    from hf_task2vec.report import TaskMap

_SHOWN_PAIRS = 10


def _is_page(ctx: click.Context, param: click.Parameter, path: Path) -> Path:
    if path.suffix.lower() not in (".html", ".htm"):
        raise click.BadParameter(f"{str(path)!r}: the map is a web page, so name it .html.", ctx, param)
    return path


@command("map", short_help="Draw a map of tasks, with their diversity.")
@click.argument("tasks", nargs=-1, type=click.Path(), metavar="[TASK …]")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=_is_page,
    default="map.html",
    show_default=True,
    help="Page to write: one HTML file that loads nothing.",
)
@click.option("--with-index", is_flag=True, help="Show all tasks of the index as well.")
@kind_option
@index_option
@hub_options
def map_tasks(
    tasks: tuple[str, ...], output: Path, with_index: bool, kind: str, index: str | None, **options: Any
) -> Report:
    """Draw a map of tasks: similar ones near each other, with near duplicates and the diversity of the set.

    Each TASK is a file written by `embed` or `pull`, a repository of embeddings on the Hub (org/name), or a
    task of the index. Without any, all tasks of the index are shown.

    The diversity is the mean distance between two tasks (the diversity coefficient of Lee et al. 2023).

    \b
    Examples:
      hf-task2vec map -o map.html
      hf-task2vec map photos-embedding me/data-task2vec cifar10 --json
      hf-task2vec map photos-embedding --with-index
    """  # noqa: D301 (click wants the control character)
    from hf_task2vec.files import atomic_path, why
    from hf_task2vec.report import map_page
    from hf_task2vec.report import map_tasks as compare
    from hf_task2vec.zoo import TaskRow

    whole = with_index or not tasks
    domains = {}
    if whole or not all(Path(name).exists() or "/" in name for name in tasks):  # some may be of the index
        zoo = load_index(index, **given(options))
        domains = {name: row.domain for name, row in zoo.by_name(TaskRow).items() if row.embedded}
    shown = list(dict.fromkeys([*tasks, *(domains if whole else ())]))
    if len(shown) < 2:
        raise click.UsageError("A map needs two tasks or more: name more, or add --with-index.")
    embeddings = load_embeddings(shown, index, **given(options))
    found = compare(embeddings, shown, [domains.get(name) for name in shown], kind=kind)

    def write() -> None:
        try:
            with atomic_path(output) as temporary:
                temporary.write_text(map_page(found), encoding="utf-8")
        except OSError as error:
            raise Task2VecError(f"the map cannot be written to {output}: {why(error)}") from error

    return _report(found, output, written(write))


_COLUMNS = (
    Column("first", lambda pair: pair.first, False),
    Column("second", lambda pair: pair.second, False),
    Column("distance", lambda pair: f"{pair.distance:.4f}"),
    Column("in units of noise", lambda pair: known(pair.noise_ratio, "{:.2f}")),
    Column("near duplicates", lambda pair: "yes" if pair.near_duplicate else "", False),
)


def _report(tasks: TaskMap, output: Path, exit_code: int) -> Report:
    from hf_task2vec.report import DUPLICATE_RATIO

    diversity = tasks.diversity
    error = "" if diversity.std_error is None else f" ± {diversity.std_error:.4f}"
    spread = f"mean distance over {diversity.n_pairs} pairs, {tasks.kind}"
    threshold = f"no farther apart than {DUPLICATE_RATIO} times their noise, as two samples of one task are"
    judged = any(pair.noise_ratio is not None for pair in tasks.pairs)
    notes = [
        f"Diversity of the {len(tasks)} tasks ({spread}): {diversity.mean:.4f}{error}.",
        f"Near duplicates ({threshold}): {len(tasks.near_duplicates) if judged else 'unknown'}.",
        *([] if exit_code else [f"The map is in {output}."]),
    ]
    path = None if exit_code else str(output)
    document = {"path": path, **tasks.to_dict()}
    return Report(document, [path] if path else [], tasks.pairs[:_SHOWN_PAIRS], _COLUMNS, notes, exit_code)
