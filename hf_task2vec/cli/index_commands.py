"""The commands on zoo indexes: look into one, check one, build one, add a score to one."""

from __future__ import annotations

from typing import Any

import click

from hf_task2vec.cli.console import facts_report
from hf_task2vec.cli.index_place import as_place
from hf_task2vec.cli.options import build_options, common_options, given
from hf_task2vec.cli.session import EXIT_CODES, session
from hf_task2vec.errors import ZooIndexError

SOME_FAILED = 7


@click.group()
@common_options
def index() -> None:
    """Look into a zoo index (checkpoints, tasks, scores, embeddings), or build one."""


_index_path = click.argument("path", required=False, callback=as_place)


@index.command(epilog=EXIT_CODES)
@_index_path
@common_options
@click.pass_context
def info(ctx: click.Context, /, path: str | None) -> None:
    """Say what the index at PATH holds: a folder, or org/name on the Hub (default: the shipped one)."""
    with session(ctx) as (_, answer):
        from hf_task2vec.zoo import ZooIndex

        facts = ZooIndex.load(path).info()
        answer(facts_report(facts, [f"{table}\t{rows}" for table, rows in facts["counts"].items()]))


@index.command(epilog=EXIT_CODES)
@_index_path
@common_options
@click.pass_context
def validate(ctx: click.Context, /, path: str | None) -> None:
    """Check every row, reference and checksum of the index at PATH (default: the shipped one)."""
    with session(ctx) as (_, answer):
        from hf_task2vec.zoo import ZooIndex

        zoo = ZooIndex.load(path)
        if problems := zoo.validate():
            click.echo("\n".join(problems), err=True)
            raise ZooIndexError(f"{len(problems)} of the index's facts are wrong or do not agree (listed above)")
        answer(facts_report({"valid": True, **zoo.info()}))


@index.command(epilog=EXIT_CODES)
@click.argument("out")
@build_options
@common_options
@click.pass_context
def build(
    ctx: click.Context,
    /,
    out: str,
    base: str | None,
    max_samples: int | str,
    ray_address: str | None,
    gpus_per_cell: float | None,
    cpus_per_cell: float | None,
    **options: Any,
) -> None:
    """Measure checkpoints on tasks and write an index to OUT, for `select --index OUT`.

    Every finished pair is kept: started again after whatever end, the same command goes on where it was. One that
    cannot be measured is reported with the reason, and the others go on.

    \b
    hf-task2vec index build my-index --tasks org/data,./photos --checkpoints timm/resnet18.a1_in1k --base shipped
    hf-task2vec index build my-index --tasks tasks.csv --checkpoints checkpoints.txt --ray-address auto
    """  # noqa: D301 (click wants the control character)
    shares = given({"gpus_per_cell": gpus_per_cell, "cpus_per_cell": cpus_per_cell})
    if shares and ray_address is None:
        raise click.UsageError("--gpus-per-cell and --cpus-per-cell go with --ray-address.", ctx)
    with session(ctx) as (settings, answer):
        from hf_task2vec.build import Build, Cluster
        from hf_task2vec.zoo import ZooIndex

        plan = Build(
            out,
            base=ZooIndex.load() if base == "shipped" else base,
            max_samples=None if isinstance(max_samples, str) else max_samples,
            cluster=None if ray_address is None else Cluster(ray_address, **shares),
            **given(options),
        )
        report = plan.run(progress=settings.progress)
        reasons = [f"{f['checkpoint']} on {f['task']}: {f['reason']}" for f in report.failures]
        if report.path is None:
            raise ZooIndexError(f"no cell could be measured, so there is no index; the first: {reasons[0]}")
        answer(facts_report(report.to_dict(), [str(report.path)]))
        if reasons:
            more = f"; all are in {report.cells_file}" if len(reasons) > 1 else ""
            click.echo(f"error: {report.failed} cells failed: {reasons[0]}{more}", err=True)
            raise click.exceptions.Exit(SOME_FAILED)


@index.command("add-score", epilog=EXIT_CODES)
@click.argument("path")
@click.option("--task", required=True, metavar="NAME|EMBEDDING", help="Task of the index, or what `embed` wrote.")
@click.option("--checkpoint", required=True, metavar="ID", help="Hub id of the checkpoint.")
@click.option("--score", required=True, type=float, metavar="SHARE", help="Accuracy, between 0 and 1.")
@click.option("--protocol", required=True, help="How it was reached: full_finetune, linear_probe_full, …")
@click.option("--n-test", required=True, type=int, metavar="N", help="Images that it was measured on.")
@click.option("--split", default="test", show_default=True, help="Split that it was measured on.")
@click.option("--n-train", type=click.IntRange(0), metavar="N", help="Images that it was trained on.")
@click.option(
    "--metric", default="top1", show_default=True, help="What the score is: top1, mean_per_class, map, auc, …"
)
@click.option("--source", default="local", show_default=True, help="Where it comes from; a new name is added.")
@click.option("--license", help="Licence of a new source [default: unspecified].")
@click.option("--name", help="Name of an embedding's task in the index [default: its dataset].")
@click.option("--base", metavar="PATH|shipped", help="Index to begin with if there is none at PATH.")
@click.option("--replace", is_flag=True, help="Put it in the place of the same measurement's older score.")
@click.option("--look-up", is_flag=True, help="Ask the Hub about a checkpoint that the index does not know.")
@click.option("--token", help="Hub token [default: the one you are logged in with].")
@common_options
@click.pass_context
def add_score(ctx: click.Context, /, path: str, **options: Any) -> None:
    """Add a score of your own to the index at PATH, for `select --index PATH` to learn from.

    Scores are compared within one source, protocol, metric, split and task only: one alone moves no ranking, two
    checkpoints' do. Protocol linear_probe_loo (as by `select --refine`) with an embedding needs no second: the probe's
    own accuracy is known.

    \b
    hf-task2vec embed ./photos -o photos-embedding
    hf-task2vec index add-score my-index --base shipped --task photos-embedding \\
        --checkpoint timm/resnet18.a1_in1k --score 0.93 --protocol full_finetune --n-test 200
    hf-task2vec select ./photos --index my-index
    """  # noqa: D301 (click wants the control character)
    with session(ctx) as (_, answer):
        from hf_task2vec import local_scores

        added = local_scores.add_score(path, **options)
        row = {name: value for name, value in added.row.model_dump().items() if value is not None}
        facts = {
            "path": str(added.path),
            "score": row,
            "new": list(added.new),
            "replaced": added.replaced,
            "companion": added.companion,
            "comparable": added.comparable,
            "notes": list(added.notes),
        }
        answer(facts_report(facts, [str(added.path)]))
