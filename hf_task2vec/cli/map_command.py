"""``hf-task2vec map``: a set of tasks on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hf_task2vec.cli.command import command
from hf_task2vec.cli.console import Column, Report
from hf_task2vec.cli.inputs import index_folder, load_embeddings
from hf_task2vec.cli.options import given, hub_options, index_option, kind_option
from hf_task2vec.errors import Task2VecError

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
    from hf_task2vec.files import atomic_path
    from hf_task2vec.report import map_page
    from hf_task2vec.report import map_tasks as compare

    index = index_folder(index, token=options["token"], timeout=options["timeout"])
    domains = _domains(index) if with_index or not tasks or _may_be_of_index(tasks) else {}
    shown = list(dict.fromkeys([*tasks, *(domains if with_index or not tasks else ())]))
    if len(shown) < 2:
        raise click.UsageError("A map needs two tasks or more: name more, or add --with-index.")
    embeddings = load_embeddings(shown, index, **given(options))
    found = compare(embeddings, shown, [domains.get(name) for name in shown], kind=kind)
    try:
        with atomic_path(output) as temporary:
            temporary.write_text(map_page(found), encoding="utf-8")
    except OSError as error:
        raise Task2VecError(f"the map cannot be written to {output}: {error}") from error
    return _report(found, output)


def _may_be_of_index(tasks: tuple[str, ...]) -> bool:
    return not all(Path(name).exists() or "/" in name for name in tasks)


def _domains(index: str | None) -> dict[str, str]:
    """The embedded tasks of the index and their domains."""
    from hf_task2vec.zoo import ZooIndex

    zoo = ZooIndex.load(index)
    embedded = zoo.embeddings.names
    domain = dict(zip(zoo.tasks["task"], zoo.tasks["domain"], strict=True))
    return {task: domain[task] for task in embedded}


_COLUMNS = (
    *(Column("first"), Column("second"), Column("distance", True)),
    *(Column("in units of noise", True), Column("near duplicates")),
)


def _report(tasks: TaskMap, output: Path) -> Report:
    from hf_task2vec.report import DUPLICATE_RATIO

    rows = [
        [
            pair.first,
            pair.second,
            f"{pair.distance:.4f}",
            "?" if pair.noise_ratio is None else f"{pair.noise_ratio:.2f}",
            "yes" if pair.near_duplicate else "",
        ]
        for pair in tasks.pairs[:_SHOWN_PAIRS]
    ]
    diversity = tasks.diversity
    error = "" if diversity.std_error is None else f" ± {diversity.std_error:.4f}"
    spread = f"mean distance over {diversity.n_pairs} pairs, {tasks.kind}"
    threshold = f"no farther apart than {DUPLICATE_RATIO} times their noise, as two samples of one task are"
    judged = any(pair.noise_ratio is not None for pair in tasks.pairs)
    notes = [
        f"Diversity of the {len(tasks)} tasks ({spread}): {diversity.mean:.4f}{error}.",
        f"Near duplicates ({threshold}): {len(tasks.near_duplicates) if judged else 'unknown'}.",
        f"The map is in {output}.",
    ]
    return Report({"path": str(output), **tasks.to_dict()}, [str(output)], _COLUMNS, rows, notes)
