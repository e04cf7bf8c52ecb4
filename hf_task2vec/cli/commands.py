"""The commands: each turns its options into one call of the library and the result into one report."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from hf_task2vec import __version__
from hf_task2vec.cli.completers import datasets, tasks_of_index
from hf_task2vec.cli.completion import completion
from hf_task2vec.cli.console import distance_report, facts_report
from hf_task2vec.cli.embeddings import load_embeddings
from hf_task2vec.cli.evaluate_command import evaluate
from hf_task2vec.cli.help import Command, Group, dressed
from hf_task2vec.cli.hub_commands import pull, push, search
from hf_task2vec.cli.index_commands import index
from hf_task2vec.cli.index_place import IndexPlace
from hf_task2vec.cli.map_command import map_tasks
from hf_task2vec.cli.options import common_options, dataset_options, given, index_option, kind_option, option
from hf_task2vec.cli.progress import begin
from hf_task2vec.cli.select_command import select
from hf_task2vec.cli.session import EXIT_CODES, session
from hf_task2vec.processes import launched


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EXIT_CODES,
)
@common_options
@click.version_option(__version__)
def cli() -> None:
    """Which Hub checkpoint should I fine-tune on my image dataset?

    The answer goes to standard output: a table on a terminal, in a pipe plain lines whose columns are two or more
    spaces apart, with --quiet bare values, with --json one document. All else goes to standard error.

    \b
    hf-task2vec select org/data --max-params 30M --license apache-2.0
    hf-task2vec select ./photos --json > ranking.json
    hf-task2vec select --help
    """  # noqa: D301 (click wants the control character)


@click.command(cls=Command, epilog=EXIT_CODES)
@click.argument("dataset", shell_complete=datasets)
@option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, writable=True, path_type=Path),
    metavar="FOLDER",
    help="Folder to write.",
)
@dataset_options
@common_options
@click.pass_context
def embed(
    ctx: click.Context,
    /,
    dataset: str,
    output: Path,
    probe: str | None,
    device: str | None,
    batch_size: int | None,
    token: str | None,
    seed: int,
    max_samples: int,
    **options: Any,
) -> None:
    """Write the embedding of DATASET (see `select`) to a folder.

    Several processes share the images with `accelerate launch -m hf_task2vec.cli embed …` (on GPUs), or with
    `torchrun --nproc-per-node 2 -m hf_task2vec.cli embed … --device cpu`.

    \b
    hf-task2vec embed ./photos -o photos-embedding
    hf-task2vec embed org/data -o data-embedding --max-samples 1000 --seed 1
    """  # noqa: D301 (click wants the control character)
    with session(ctx, shared=True) as (settings, answer), launched(cpu=device == "cpu") as processes:
        begin("starting")
        from hf_task2vec.cache import default_device, load_probe
        from hf_task2vec.embed import embed_task
        from hf_task2vec.task import Task

        with nullcontext() if processes is None else processes.main_process_first():
            task = Task.from_dataset(dataset, token=token, seed=seed, max_samples=max_samples, **given(options))
            network = load_probe(probe, token=token)
        if device is None and processes is None:
            device = default_device()
        chosen = given({"device": device, "batch_size": batch_size, "accelerator": processes})
        embedding = embed_task(task, network, seed=seed, progress=settings.progress, **chosen)
        if processes is None or processes.is_main_process:
            embedding.save(output)
        answer(facts_report({"path": str(output), **embedding.describe()}, [str(output)]))


@click.command(cls=Command, epilog=EXIT_CODES)
@click.argument("tasks", nargs=-1, required=True, metavar="A B [C …]", shell_complete=tasks_of_index)
@kind_option
@index_option
@common_options
@click.pass_context
def distance(ctx: click.Context, /, tasks: tuple[str, ...], kind: str, index: IndexPlace | None) -> None:
    """Print the distances between tasks.

    A, B, C … are folders or files written by `embed` or `pull`, repositories of embeddings on the Hub (org/name), or
    names of tasks of the index (an unknown one lists them all).

    \b
    hf-task2vec distance photos-embedding trashnet cifar10
    hf-task2vec distance photos-embedding cifar10 --kind asymmetric --json
    """  # noqa: D301 (click wants the control character)
    if len(tasks) < 2:
        raise click.UsageError("A distance needs two tasks or more.", ctx)
    with session(ctx) as (_, answer):
        from hf_task2vec.distance import DISTANCES, pairwise

        if kind not in DISTANCES:
            raise click.UsageError(f"{kind!r} is no distance; there are: {', '.join(sorted(DISTANCES))}.", ctx)
        distances = pairwise(load_embeddings(tasks, index), kind)
        answer(distance_report(kind, tasks, distances.tolist()))


# For commands whose own docstrings have no examples.
_EXAMPLES = {
    "index": "hf-task2vec index info\nhf-task2vec index validate my-index",
    "index info": "hf-task2vec index info\nhf-task2vec index info my-index --json",
    "index validate": "hf-task2vec index validate\nhf-task2vec index validate my-index",
    "evaluate": "hf-task2vec evaluate\nhf-task2vec evaluate --tasks ./datasets --scores scores.csv",
}

for command in (select, embed, distance, map_tasks, search, push, pull, index, evaluate, completion):
    cli.add_command(dressed(command, _EXAMPLES, str(command.name)))


def main() -> None:
    """Run the command line (the console script ``hf-task2vec``)."""
    cli(prog_name="hf-task2vec")
