"""The commands on zoo indexes: look into one, check one, build one, add to one, learn from one."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import click

from hf_task2vec.cli.command import Settings, command, group
from hf_task2vec.cli.console import Report, facts_report
from hf_task2vec.cli.inputs import load_index
from hf_task2vec.cli.options import POSITIVE, CountOrAll, device_option, given, run_options, split_commas, token_option
from hf_task2vec.errors import ZooIndexError

SOME_FAILED = 7
logger = logging.getLogger(__name__)


@group(short_help="Look into a zoo index, or build one.")
def index() -> None:
    """Look into a zoo index (checkpoints, tasks, scores, embeddings), or build one."""


@command()
@click.argument("path", required=False, type=click.Path())
def info(path: str | None) -> Report:
    """Say what the index at PATH holds: a folder, or org/name on the Hub (default: the shipped one).

    \b
    Examples:
      hf-task2vec index info
      hf-task2vec index info my-index --json
    """  # noqa: D301 (click wants the control character)
    facts = load_index(path).info()
    return facts_report(facts, [f"{table}\t{rows}" for table, rows in facts["counts"].items()])


@command()
@click.argument("path", required=False, type=click.Path())
def validate(path: str | None) -> Report:
    """Check every row, reference and checksum of the index at PATH (default: the shipped one).

    \b
    Examples:
      hf-task2vec index validate
      hf-task2vec index validate my-index
    """  # noqa: D301 (click wants the control character)
    zoo = load_index(path)
    if problems := zoo.validate():
        logger.error("%s", "\n".join(problems))
        raise ZooIndexError(f"{len(problems)} of the index's facts are wrong or do not agree (listed above)")
    return facts_report({"valid": True, **zoo.info()})


@command()
@click.argument("out", type=click.Path())
@click.option(
    "--tasks",
    multiple=True,
    required=True,
    callback=split_commas,
    metavar="DATASET|FILE.csv",
    help="Datasets, or a file with one a row and its columns (repeat, or with commas).",
)
@click.option(
    "--checkpoints",
    multiple=True,
    required=True,
    callback=split_commas,
    metavar="ID|FILE.txt",
    help="Hub ids or folders, or a file with one a line (repeat, or with commas).",
)
@click.option(
    "--base",
    type=click.Path(),
    metavar="PLACE|shipped",
    help="Index to extend, a folder or org/name[@revision] on the Hub [default: start a new one].",
)
@click.option(
    "--cache", type=click.Path(), metavar="PATH", help="Folder of the finished cells [default: in the cache folder]."
)
@click.option(
    "--max-samples",
    type=CountOrAll(2),
    metavar="N|all",
    default=1000,
    show_default=True,
    help="Images of each split to measure on.",
)
@click.option("--no-embed", "embed", is_flag=True, default=True, flag_value=False, help="Do not embed the tasks.")
@click.option("--probe", metavar="CHECKPOINT", help="Probe of a new index [default: the built-in one].")
@click.option("--retry-failed", is_flag=True, help="Try cells again that failed at an earlier start.")
@click.option(
    "--ray-address", metavar="ADDRESS", help="Work on a Ray cluster: auto, HOST:6379, or local (needs the extra [ray])."
)
@click.option(
    "--gpus-per-cell",
    type=click.FloatRange(0),
    metavar="NUMBER",
    help="GPUs that a cell needs, such as 0.25 [default: 0].",
)
@click.option("--cpus-per-cell", type=POSITIVE, metavar="NUMBER", help="CPU cores that a cell needs [default: 1].")
@run_options
@click.pass_obj
def build(
    settings: Settings,
    /,
    out: str,
    base: str | None,
    max_samples: int | None,
    ray_address: str | None,
    gpus_per_cell: float | None,
    cpus_per_cell: float | None,
    **options: Any,
) -> Report:
    """Measure checkpoints on tasks and write an index to OUT, for `select --index OUT`.

    Every finished pair is kept: started again after whatever end, the same command goes on where it was. One that
    cannot be measured is reported with the reason, and the others go on.

    \b
    Examples:
      hf-task2vec index build my-index --base shipped \\
          --tasks org/data,./photos --checkpoints timm/resnet18.a1_in1k
      hf-task2vec index build my-index --tasks tasks.csv \\
          --checkpoints checkpoints.txt --ray-address auto
    """  # noqa: D301 (click wants the control character)
    shares = given({"gpus_per_cell": gpus_per_cell, "cpus_per_cell": cpus_per_cell})
    if shares and ray_address is None:
        raise click.UsageError("--gpus-per-cell and --cpus-per-cell go with --ray-address.")
    from hf_task2vec.evidence import Cluster, build_index

    report = build_index(
        out,
        base=None if base is None else load_index(base, token=options["token"]),
        max_samples=max_samples,
        cluster=None if ray_address is None else Cluster(ray_address, **shares),
        progress=settings.progress,
        **given(options),
    )
    reasons = [f"{f['checkpoint']} on {f['task']}: {f['reason']}" for f in report.failures]
    if report.path is None:
        raise ZooIndexError(f"no cell could be measured, so there is no index; the first: {reasons[0]}")
    answer = facts_report(report.to_dict(), [str(report.path)])
    if not reasons:
        return answer
    more = f"; all are in {report.cells_file}" if len(reasons) > 1 else ""
    logger.error("error: %d cells failed: %s%s", report.failed, reasons[0], more)
    return replace(answer, exit_code=SOME_FAILED)


@command("add-score")
@click.argument("path", type=click.Path())
@click.option(
    "--task",
    required=True,
    type=click.Path(),
    metavar="NAME|EMBEDDING",
    help="Task of the index, or what `embed` wrote.",
)
@click.option("--checkpoint", required=True, metavar="ID", help="Hub id of the checkpoint.")
@click.option("--score", required=True, type=float, metavar="SHARE", help="Accuracy, between 0 and 1.")
@click.option(
    "--protocol", required=True, metavar="NAME", help="How it was reached: full_finetune, linear_probe_full, …"
)
@click.option("--n-test", required=True, type=int, metavar="N", help="Images that it was measured on.")
@click.option("--split", default="test", metavar="NAME", show_default=True, help="Split that it was measured on.")
@click.option("--n-train", type=click.IntRange(0), metavar="N", help="Images that it was trained on.")
@click.option(
    "--metric",
    default="top1",
    metavar="NAME",
    show_default=True,
    help="What the score is: top1, mean_per_class, map, auc, …",
)
@click.option(
    "--source", default="local", metavar="NAME", show_default=True, help="Where it comes from; a new one is added."
)
@click.option("--license", metavar="ID", help="Licence of a new source [default: unspecified].")
@click.option("--name", metavar="NAME", help="Name of an embedding's task in the index [default: its dataset].")
@click.option("--base", type=click.Path(), metavar="PATH|shipped", help="Index to begin with if there is none at PATH.")
@click.option("--replace", is_flag=True, help="Put it in the place of the same measurement's older score.")
@click.option("--look-up", is_flag=True, help="Ask the Hub about a checkpoint that the index does not know.")
@token_option
def add_score(path: str, **options: Any) -> Report:
    """Add a score of your own to the index at PATH, for `select --index PATH` to learn from.

    Scores are compared within one source, protocol, metric, split and task only: one alone moves no ranking, two
    checkpoints' do. Protocol linear_probe_loo (as by `select --refine`) with an embedding needs no second: the probe's
    own accuracy is known.

    \b
    Examples:
      hf-task2vec embed ./photos -o photos-embedding
      hf-task2vec index add-score my-index --base shipped \\
          --task photos-embedding --checkpoint timm/resnet18.a1_in1k \\
          --score 0.93 --protocol full_finetune --n-test 200
      hf-task2vec select ./photos --index my-index
    """  # noqa: D301 (click wants the control character)
    from hf_task2vec import evidence

    added = evidence.add_score(path, **options)
    return facts_report(added.to_dict(), [str(added.path)])


@command()
@click.argument("path", type=click.Path(), required=False)
@click.option("--since", metavar="DATE", help="Only what has changed since [default: since the last whole harvest].")
@click.option("--query", metavar="WORDS", help='Which repositories: words of the id, "author:NAME", … [default: all].')
@click.option("--max", "max_repositories", type=click.IntRange(1), metavar="N", help="Repositories to look at now.")
@click.option("--base", type=click.Path(), metavar="PATH|shipped", help="Index to begin with if there is none at PATH.")
@click.option(
    "--state",
    type=click.Path(),
    metavar="FILE",
    help="File that remembers what was seen [default: in the cache folder].",
)
@click.option(
    "--embed-datasets", type=click.IntRange(1), metavar="N", help="Embed the N datasets of the Hub with most outcomes."
)
@token_option
@click.pass_obj
def harvest(
    settings: Settings, /, path: str | None, base: str | None, embed_datasets: int | None, **options: Any
) -> Report:
    """Read what model cards of the Hub say of fine-tuned checkpoints, and add it to the index at PATH.

    Cards are looked at once, the latest first; started again after whatever end, it goes on where it was. Without PATH
    it is only said what would be added to the shipped index.

    \b
    Examples:
      hf-task2vec index harvest my-index --base shipped --max 2000
      hf-task2vec index harvest my-index --query author:nateraw
      hf-task2vec index harvest --since 2026-11-01 --json
    """  # noqa: D301 (click wants the control character)
    from hf_task2vec import evidence
    from hf_task2vec.tasks import bar, say

    if embed_datasets and path is None:
        raise click.UsageError("--embed-datasets needs a PATH to write to.")
    index = load_index(None) if path is None else evidence.open_index(path, base)
    say("reading cards")
    with bar("reading cards", "repository", None, shown=settings.progress) as counter:
        found = evidence.harvest(index, on_done=counter.update, **given(options))
    facts = {"path": path, **found.to_dict()}
    if path is not None:
        found.index.save(path)
        if datasets := evidence.most_reported(found.index, embed_datasets or 0):
            report = evidence.add_tasks(path, datasets, token=options["token"], progress=settings.progress)
            facts |= {"embedded": report.done, "failures": list(report.failures)}
    return facts_report(facts, [f"{found.rows}\tscores added or changed"])


@command("add-task")
@click.argument("path", type=click.Path())
@click.argument("datasets", nargs=-1, required=True, metavar="ORG/DATASET...")
@click.option("--base", type=click.Path(), metavar="PATH|shipped", help="Index to begin with if there is none at PATH.")
@click.option(
    "--most-gb", type=POSITIVE, metavar="N", help="Size of a dataset that must be downloaded whole [default: 5]."
)
@device_option
@token_option
@click.pass_obj
def add_task(settings: Settings, /, path: str, datasets: tuple[str, ...], **options: Any) -> Report:
    """Embed datasets of the Hub and add them to the index at PATH, as tasks that rankings can learn from.

    Of Parquet files only what the sample needs is transferred. No image is stored in the index.

    \b
    Examples:
      hf-task2vec index add-task my-index org/dataset --base shipped
      hf-task2vec index add-task my-index org/leaves org/signs
    """  # noqa: D301 (click wants the control character)
    from hf_task2vec import evidence

    report = evidence.add_tasks(path, datasets, progress=settings.progress, **given(options))
    if report.path is None:
        raise ZooIndexError(f"no dataset could be embedded; the first: {report.failures[0]['reason']}")
    return facts_report(report.to_dict(), [str(report.path)])


@command()
@click.argument("path", type=click.Path())
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Steps of the optimiser [default: 100].")
@click.pass_obj
def train(settings: Settings, /, path: str, steps: int | None) -> Report:
    """Learn how rankings with the index at PATH weigh its scores from these scores, beginning with what it has.

    Worth it after a harvest, or after many scores of your own; `evaluate` says what it brings. A hundred steps take a
    minute or two for an index as large as the shipped one.

    \b
    Examples:
      hf-task2vec index train my-index
      hf-task2vec evaluate --index my-index
    """  # noqa: D301 (click wants the control character)
    from hf_task2vec import evidence
    from hf_task2vec.metric import train as train_metric
    from hf_task2vec.tasks import bar, say

    zoo, steps = evidence.open_index(path), steps or 100
    say(f"learning from {len(zoo.score_rows):,} scores")
    with bar("learning", "step", steps, shown=settings.progress) as counter:
        trained, report = train_metric(zoo, steps=steps, on_step=counter.update)
    trained.save(path)
    return facts_report({"path": path, **report}, [path])


for added in (info, validate, build, add_score, add_task, harvest, train):
    index.add_command(added)
