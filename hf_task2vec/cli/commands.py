"""The commands: each turns its options into one call of the library, and the result into one report."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hf_task2vec import __version__
from hf_task2vec.cli.command import EXIT_CODES, Settings, command, group, written
from hf_task2vec.cli.console import Column, Listing, Report, facts_report
from hf_task2vec.cli.evaluate_command import evaluate
from hf_task2vec.cli.finetune_command import finetune
from hf_task2vec.cli.hub_commands import pull, push, search
from hf_task2vec.cli.index_commands import index
from hf_task2vec.cli.inputs import index_folder, load_embeddings
from hf_task2vec.cli.map_command import map_tasks
from hf_task2vec.cli.options import POSITIVE, Quantity, dataset_options, given, index_option, kind_option, split_commas
from hf_task2vec.fisher import launched
from hf_task2vec.selection import known, siblings

if TYPE_CHECKING:
    from hf_task2vec.selection import Ranking

logger = logging.getLogger(__name__)


@group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, epilog=EXIT_CODES)
@click.version_option(__version__)
def cli() -> None:
    """Which Hub checkpoint should I fine-tune on my image dataset?

    The answer goes to standard output: a table on a terminal, tab-separated values in a pipe, with --quiet bare values,
    with --json one document. All else goes to standard error.

    \b
    Examples:
      hf-task2vec select org/data --max-params 30M --license apache-2.0
      hf-task2vec select ./photos --json > ranking.json
      hf-task2vec select --help
    """  # noqa: D301 (click wants the control character)


def _free_to_write(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file that could not be written in the end, before the long work."""
    if path is not None and not ctx.resilient_parsing:
        folder = path.absolute().parent
        if not folder.is_dir():
            raise click.BadParameter(f"there is no folder {str(folder)!r}; make it first.", ctx, param)
        if not os.access(folder, os.W_OK):
            raise click.BadParameter(f"the folder {str(folder)!r} cannot be written to.", ctx, param)
    return path


@command()
@click.argument("dataset", type=click.Path())
@click.option("--top-k", type=click.IntRange(1), metavar="N", default=10, show_default=True, help="Candidates to show.")
@click.option(
    "--max-params", type=Quantity(), metavar="NUMBER", help="Most parameters a checkpoint may have, such as 30M."
)
@click.option("--max-gmacs", type=POSITIVE, metavar="NUMBER", help="Most multiply-adds for one image, in billions.")
@click.option(
    "--device-memory",
    type=Quantity(),
    metavar="SIZE",
    help="Memory of the device to train on, such as 8GB: weights, gradients and Adam's moments must fit into it.",
)
@click.option(
    "--latency",
    type=POSITIVE,
    metavar="MS",
    help="Most milliseconds for one image on a desktop processor (timm's benchmarks, Core i9).",
)
@click.option(
    "--license",
    "licenses",
    multiple=True,
    callback=split_commas,
    metavar="ID",
    help="Licences to accept: apache-2.0, mit … (repeat, or with commas).",
)
@click.option("--library", metavar="NAME", help="Library that loads the checkpoint: timm, transformers.")
@click.option(
    "--input-size",
    type=click.IntRange(1),
    metavar="PX",
    help="Side of the images that the checkpoint takes, in pixels.",
)
@click.option(
    "--candidates",
    multiple=True,
    callback=split_commas,
    metavar="ID|QUERY",
    help="Rank only these Hub ids, or those that 'author:timm license:mit params:<30M' finds (repeat, or with commas).",
)
@click.option(
    "--experts", is_flag=True, help="Rank fine-tuned checkpoints too: by their base, and what they were tuned on."
)
@click.option(
    "--refine",
    type=click.IntRange(0),
    metavar="N",
    default=0,
    show_default=True,
    help="How many of the best to download and measure on the sample.",
)
@click.option("--refine-bytes", type=Quantity(), metavar="SIZE", help="Most bytes that --refine downloads, such as 2G.")
@click.option(
    "--refine-seconds", type=POSITIVE, metavar="NUMBER", help="Start no measurement that would end later than this."
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=_free_to_write,
    help="Also write a page (HTML, one file) with the ranking, its reasons and some of the images.",
)
@click.option("--no-images", "images", is_flag=True, default=True, flag_value=False, help="No images in the report.")
@dataset_options
@index_option
@click.option(
    "--metric",
    type=click.Choice(("trained", "static")),
    default="trained",
    show_default=True,
    help="What predicts the accuracies; static is the same order for every task.",
)
@click.option(
    "--protocol",
    type=click.Choice(("fine-tune", "linear-probe")),
    default="fine-tune",
    show_default=True,
    help="What the accuracies are predicted for: all weights trained, or a linear classifier on frozen features.",
)
@click.option(
    "--domain",
    type=click.Choice(
        (
            *("natural", "fine-grained", "nature", "satellite", "histology", "radiology", "medical"),
            *("synthetic", "glyphs", "texture"),
        )
    ),
    metavar="KIND",
    help="What the images show, if you know: natural, fine-grained, nature, satellite, histology, radiology, "
    "medical (skin, cells, eyes), synthetic, glyphs or texture. Otherwise told from their embedding.",
)
@click.option(
    "--no-cache", "cache", is_flag=True, default=True, flag_value=False, help="Make everything anew and keep nothing."
)
@click.pass_obj
def select(
    settings: Settings, /, dataset: str, report: Path | None, images: bool, index: str | None, **options: Any
) -> Report:
    """Rank Hub checkpoints for DATASET.

    DATASET is a dataset on the Hub (org/name), a local folder (one folder of images per class, or parquet files), or
    sklearn:digits, an offline sample.

    \b
    Examples:
      hf-task2vec select org/data --max-params 30M --license apache-2.0
      hf-task2vec select ./photos --refine 3       # measure three of the best
      hf-task2vec select ./photos --report report.html
      hf-task2vec select ./photos --candidates "author:timm params:<30M"
      hf-task2vec select ./photos --experts        # fine-tuned checkpoints too
      hf-task2vec select sklearn:digits --quiet    # nothing but ids, in order
    """  # noqa: D301 (click wants the control character)
    if report is None and not images:
        raise click.UsageError("--no-images goes with --report.")
    from hf_task2vec.selection import select_backbone

    options["index"] = index_folder(index, token=options["token"])
    ranking = select_backbone(dataset, progress=settings.progress, **given(options))
    for warning in ranking.warnings:
        logger.warning("warning: %s", warning)
    notes, exit_code = [ranking.summary], 0
    if report is not None:
        exit_code = written(lambda: notes.append(f"The report is in {ranking.report(report, images=images)}."))
    return ranking_report(ranking, notes, exit_code)


def ranking_report(ranking: Ranking, notes: list[str], exit_code: int) -> Report:
    """Return the report of a selection; accuracies are in per cent in the table, in [0, 1] in the document."""
    facts = [
        Column("params", lambda c: known(c.params_m, "{:.1f}M")),
        Column("licence", lambda c: c.license or "?", False),
        Column("GMACs", lambda c: known(c.gmacs, "{:.1f}")),
    ]
    score = Column(ranking.score_name, lambda c: f"{100 * c.score:.1f}")
    columns = [  # the most important first: a narrow terminal shows as many as have room
        Column("#", lambda row: str(row[0].rank)),
        Column("checkpoint", lambda row: row[0].hub_id, False),
        *_of(
            lambda row: row[0],
            score,
            Column("80 % interval", lambda c: f"{100 * c.low:.1f}–{100 * c.high:.1f}"),
            Column("measured", lambda c: "" if c.measured is None else f"{100 * c.measured:.1f}"),
            *facts[:2],
        ),
        Column("siblings", lambda row: siblings(row[1]), False),
        *_of(lambda row: row[0], *facts[2:], Column("px", lambda c: known(c.input_px, "{}"))),
    ]
    try_ = [
        Column("checkpoint", lambda pick: pick.candidate.hub_id, False),
        Column("why", lambda pick: pick.reason, False),
        *_of(attrgetter("candidate"), score, *facts),
    ]
    sizes = [
        Column("size", lambda best: best.name, False),
        Column("checkpoint", lambda best: best.candidate.hub_id, False),
        Column("points lower", lambda best: best.cost),
        *_of(attrgetter("candidate"), score, *facts, Column("images/s", lambda c: known(c.throughput_gpu, "{:.0f}"))),
    ]
    rows = ranking.folded()
    # What is known of none of them takes no room.
    columns = [column for column in columns if any(column.write(row) not in ("", "?") for row in rows)]
    before = [Listing(ranking.shortlist(), try_, "To try"), Listing(ranking.budgets, sizes, "Within a size")]
    return Report(
        ranking.to_dict(),
        [c.hub_id for c in ranking],
        rows,
        columns,
        notes,
        exit_code,
        ranking.read,
        f"The best of {ranking.n_ranked:,}",
        before,
    )


def _of(item: Callable[[Any], Any], *columns: Column) -> list[Column]:
    """Columns that write of a part of an item."""

    def of_part(column: Column) -> Column:
        return column._replace(write=lambda whole: column.write(item(whole)))

    return [of_part(column) for column in columns]


@command(shared=True)
@click.argument("dataset", type=click.Path())
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="File to write (safetensors); an older one is replaced.",
)
@dataset_options
@click.pass_obj
def embed(
    settings: Settings,
    /,
    dataset: str,
    output: Path,
    probe: str | None,
    device: str | None,
    batch_size: int | None,
    token: str | None,
    seed: int,
    **options: Any,
) -> Report:
    """Write the embedding of DATASET (see `select`) to a file.

    Several processes share the images with `accelerate launch -m hf_task2vec.cli embed …` (on GPUs), or with
    `torchrun --nproc-per-node 2 -m hf_task2vec.cli embed … --device cpu`.

    \b
    Examples:
      hf-task2vec embed ./photos -o photos-embedding
      hf-task2vec embed org/data -o data-embedding --max-samples 1000 --seed 1
    """  # noqa: D301 (click wants the control character)
    with launched(cpu=device == "cpu") as processes:
        from hf_task2vec.embedding import embed_task, load_probe
        from hf_task2vec.probes import default_device
        from hf_task2vec.tasks import Task

        with nullcontext() if processes is None else processes.main_process_first():
            task = Task.from_dataset(dataset, token=token, seed=seed, **given(options))
            network = load_probe(probe, token=token)
        if device is None and processes is None:
            device = default_device()
        chosen = given({"device": device, "batch_size": batch_size, "accelerator": processes})
        embedding = embed_task(task, network, seed=seed, progress=settings.progress, **chosen)
        is_main = processes is None or processes.is_main_process
        exit_code = written(lambda: embedding.save(output)) if is_main else 0
    path = None if exit_code else str(output)
    facts = {"path": path, "read": task.read, **embedding.describe()}
    return replace(facts_report(facts, [path] if path else [], read=task.read), exit_code=exit_code)


@command()
@click.argument("tasks", nargs=-1, required=True, type=click.Path(), metavar="A B [C …]")
@kind_option
@index_option
def distance(tasks: tuple[str, ...], kind: str, index: str | None) -> Report:
    """Print the distances between tasks.

    A, B, C … are files written by `embed` or `pull`, repositories of embeddings on the Hub (org/name), or
    names of tasks of the index (an unknown one lists them all).

    \b
    Examples:
      hf-task2vec distance photos-embedding trashnet cifar10
      hf-task2vec distance photos-embedding cifar10 --kind asymmetric --json
    """  # noqa: D301 (click wants the control character)
    if len(tasks) < 2:
        raise click.UsageError("A distance needs two tasks or more.")
    from hf_task2vec.embedding import pairwise

    distances = pairwise(load_embeddings(tasks, index), kind).tolist()
    pairs = [(i, j) for i in range(len(tasks)) for j in range(len(tasks)) if i != j]
    return Report(
        {"kind": kind, "tasks": list(tasks), "distances": distances},
        [f"{tasks[i]}\t{tasks[j]}\t{distances[i][j]:.6g}" for i, j in pairs],
        range(len(tasks)),
        [Column("from \\ to", tasks.__getitem__, False), *(_to(distances, j, name) for j, name in enumerate(tasks))],
    )


def _to(distances: list[list[float]], j: int, name: str) -> Column:
    return Column(name, lambda i: f"{distances[i][j]:.4f}")


for added in (select, finetune, embed, distance, map_tasks, search, push, pull, index, evaluate):
    cli.add_command(added)


def main() -> None:
    """Run the command line (the console script ``hf-task2vec``)."""
    gc.set_threshold(100_000)  # an index is tens of thousands of objects that stay: looking for garbage takes 0.2 s
    cli(prog_name="hf-task2vec")
